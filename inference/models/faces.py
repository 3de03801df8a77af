"""What a face model gives: boxes, landmarks and identity embeddings; and what all do with pictures and boxes."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face of a picture.

    Attributes:
        box: (4,) xyxy, pixels of the picture, inside it and not empty.
        det_score: the detector's own score; scales differ between models.
        landmarks: (5, 2) x, y in pixels of left eye, right eye, nose, left and right mouth corner, left as the viewer
            sees it; NaN where the model has none. They may lie outside the picture.
        pose: (3,) pitch, yaw and roll in degrees, or None.
        embedding: (D,) identity, unit length.
    """

    box: Floats
    det_score: float
    landmarks: Floats
    pose: Floats | None
    embedding: Floats


def check_pixels(pixels: Pixels) -> None:
    """Raise ValueError for other pixels than (H, W, 3) uint8, or none."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")


def scaled(pixels: Pixels, scale: float) -> Pixels:
    """A picture at a share of its size, of one pixel a side at least; the very same where the size stays."""
    height, width = pixels.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == (width, height):
        return pixels
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=kind), np.uint8)


def back_from(work: Pixels, pixels: Pixels) -> npt.NDArray[np.float64]:
    """(2,) what x and y of a scaled picture are multiplied by to lie in the picture."""
    return np.array((pixels.shape[1] / work.shape[1], pixels.shape[0] / work.shape[0]))


def box_in(pixels: Pixels, outline: Floats, min_side_px: float) -> Floats | None:
    """What of a box (4,) xyxy lies in a picture; None where it has no area, or its shorter side is too small."""
    height, width = pixels.shape[:2]
    box = np.clip(outline, 0, (width, height, width, height)).astype(np.float32)
    shorter = float((box[2:] - box[:2]).min())
    return box if shorter > 0 and shorter >= min_side_px else None


class FaceModel(Protocol):
    """Finds faces. The same pixels give the same bytes."""

    def find(
        self,
        pixels: Pixels,
        *,
        min_det_score: float | None = None,
        min_side_px: float = 0,
        max_faces: int | None = None,
    ) -> list[Face]:
        """Faces by descending score, ties by box.

        Args:
            pixels: (H, W, 3) uint8, upright sRGB, of any size from 1x1.
            min_det_score: detections below are dropped; None takes the model's threshold.
            min_side_px: faces whose shorter side is smaller are dropped.
            max_faces: only the best ones.

        Faces that these bounds drop cost no embedding.

        Raises:
            ValueError: other pixels than these.
        """
        ...
