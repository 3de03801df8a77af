"""What a detector gives: where things are that a phrase names; and which of overlapping boxes stand for one thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from refloom.schemas import boxes
from refloom.schemas.boxes import Boxes

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One thing of a picture.

    Attributes:
        box: (4,) xyxy, pixels of the picture, inside it and not empty.
        score: the detector's own, 0 to 1; scales differ between models.
    """

    box: Boxes
    score: float


class Detector(Protocol):
    """Finds what phrases name. The same pixels and phrase give the same bytes."""

    def detect(self, pixels: Pixels, phrase: str, max_count: int | None = None) -> list[Detection]:
        """Things that a phrase names, by descending score.

        Args:
            pixels: (H, W, 3) uint8, upright sRGB, of any size from 1x1.
            phrase: a noun with what belongs to it, such as `red cup`; not blank.
            max_count: only the best ones, from 1; None for all from the model's threshold.

        Returns:
            None of them covers another by more than the model's bound; may be empty.

        Raises:
            ValueError: other pixels than these, or a blank phrase.
            Failed: `out_of_memory`.
        """
        ...


def apart(
    found: Boxes, scores: Sequence[float], width: int, height: int, max_overlap: float, max_count: int | None = None
) -> list[Detection]:
    """The surest boxes, each of one thing: what overlaps a surer one by more than a bound is the same thing.

    Args:
        found: (N, 4) xyxy, pixels; they may leave the picture.
        scores: N of them.
        width, height: of the picture, pixels.
        max_overlap: largest IoU of two things, 0 to 1.
        max_count: only the best ones.

    Returns:
        By descending score, ties by box; clipped to the picture, without what lies outside it or is not finite.
    """
    limit = np.array([width, height, width, height], np.float32)
    clipped = np.clip(np.asarray(found, np.float32).reshape(-1, 4), 0, limit)
    sound = np.isfinite(clipped).all(axis=1) & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    order = sorted(np.flatnonzero(sound).tolist(), key=lambda at: (-scores[at], clipped[at].tolist()))
    kept: list[int] = []
    for at in order:
        if max_count is not None and len(kept) == max_count:
            break
        if not kept or float(boxes.iou(clipped[[at]], clipped[kept]).max()) <= max_overlap:
            kept.append(at)
    return [Detection(clipped[at], float(scores[at])) for at in kept]
