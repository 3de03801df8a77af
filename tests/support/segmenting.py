"""What tests of segmenters share: a photograph with a known shape in it, and when two segments are the same."""

import cv2
import numpy as np
from skimage import data

from refloom.inference.models.segmenters import Segment
from refloom.schemas import masks


def pasted_cat() -> tuple[np.ndarray, np.ndarray]:
    """A photograph of a cup with an ellipse of cat's fur in it, and the ellipse."""
    cup = data.coffee()
    truth = cv2.ellipse(np.zeros(cup.shape[:2], np.uint8), (330, 190), (120, 70), 25, 0, 360, 1, -1)
    fur = cv2.resize(data.chelsea(), cup.shape[1::-1])
    return np.where(truth[..., None] > 0, fur, cup), truth


def tight(truth: np.ndarray) -> np.ndarray:
    return masks.tight_boxes([masks.encode(truth)])


def same(a: Segment | None, b: Segment | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a.mask, a.area, a.predicted_iou, a.stability_score, a.box.tolist()) == (
        b.mask,
        b.area,
        b.predicted_iou,
        b.stability_score,
        b.box.tolist(),
    )
