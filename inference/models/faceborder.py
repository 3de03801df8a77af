"""A second look for faces that fill the picture: detectors trained on faces with something around them miss those."""

from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np

from refloom.inference.models.faces import Face, Pixels, back_from, box_in, scaled

_BORDER = 0.5
"""Width of the border as a share of the picture's longer side."""
_LEAST_SHARE = 0.25
"""Longer side of a face that is taken, as a share of the picture's: smaller ones are seen as they are."""
_MOST_PX = 1280
"""Longer side of the picture within the border: a face that fills it is large enough for all uses."""


class Find(Protocol):
    """A model's own search, with the bounds of `faces.FaceModel.find` settled."""

    def __call__(self, pixels: Pixels, min_det_score: float, min_side_px: float, max_faces: int | None) -> list[Face]:
        """Faces by descending score."""
        ...


def find(
    search: Find,
    pixels: Pixels,
    *,
    min_det_score: float,
    border_det_score: float,
    min_side_px: float,
    max_faces: int | None,
) -> list[Face]:
    """Faces of the picture; where there is none, those of the picture within a black border.

    Args:
        search: of the model.
        pixels: (H, W, 3) uint8.
        min_det_score: of the picture as it is.
        border_det_score: of the picture within a border, where it is the higher one of both.
        min_side_px: faces whose shorter side is smaller are dropped.
        max_faces: only the best ones.

    Returns:
        Faces in pixels of the picture; boxes are cut to it.
    """
    found = search(pixels, min_det_score, min_side_px, max_faces)
    if found or max_faces == 0:
        return found
    longer = max(pixels.shape[:2])
    scale = min(1.0, _MOST_PX / longer)
    inner = scaled(pixels, scale)
    border = round(_BORDER * max(inner.shape[:2]))
    canvas = cv2.copyMakeBorder(inner, border, border, border, border, cv2.BORDER_CONSTANT)
    seen = search(np.asarray(canvas, np.uint8), max(min_det_score, border_det_score), min_side_px * scale, None)
    back = back_from(inner, pixels).astype(np.float32)
    kept = []
    for face in seen:
        box = box_in(pixels, (face.box - border) * np.tile(back, 2), min_side_px)
        if box is not None and (box[2:] - box[:2]).max() >= _LEAST_SHARE * longer:
            landmarks = ((face.landmarks - border) * back).astype(np.float32)
            kept.append(replace(face, box=box, landmarks=landmarks))
    return kept[:max_faces]
