"""What a face model gives: boxes, landmarks and identity embeddings."""

from dataclasses import dataclass
from typing import Protocol

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
