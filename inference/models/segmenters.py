"""What a segmenter gives: masks for boxes, masks for a bare picture; and the checks that all of them share."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from refloom.schemas import masks
from refloom.schemas.boxes import Boxes
from refloom.schemas.masks import Mask

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """One mask of a picture, with at least one pixel set.

    Attributes:
        mask: of the whole picture.
        box: (4,) xyxy, the mask's tight box, pixels.
        area: pixels set.
        predicted_iou: the model's own estimate of the mask's IoU with the truth, 0 to 1; None if it makes none.
        stability_score: IoU of the masks at two thresholds around the model's own, 0 to 1; None if it has no threshold.
    """

    mask: Mask
    box: Boxes
    area: int
    predicted_iou: float | None
    stability_score: float | None


class Segmenter(Protocol):
    """Finds masks. On one kind of machine the same pixels and boxes give the same bytes."""

    @property
    def has_automatic(self) -> bool:
        """Whether `segment_everything` can be called."""
        ...

    def segment(self, pixels: Pixels, boxes: Boxes) -> list[Segment | None]:
        """The object in each box. The picture is encoded once, whatever the number of boxes, and never for none.

        Args:
            pixels: (H, W, 3) uint8, upright sRGB, of any size from 1x1.
            boxes: (N, 4) xyxy in pixels of the picture, N from 0; they may leave it.

        Returns:
            N segments, in the order of the boxes; None where the model finds nothing, and for a box that is not finite,
            empty, outside the picture, or of a kind that the model cannot work with.

        Raises:
            ValueError: other pixels or boxes than these.
            Failed: `out_of_memory`.
        """
        ...

    def segment_everything(self, pixels: Pixels) -> list[Segment]:
        """Every object and part of a picture, the most certain first.

        Args:
            pixels: as for `segment`.

        Raises:
            ValueError: other pixels than these, or `has_automatic` is False.
            Failed: `out_of_memory`.
        """
        ...


def check_pixels(pixels: Pixels) -> tuple[int, int]:
    """Height and width of a picture.

    Raises:
        ValueError: it is not (H, W, 3) uint8, or has no pixel.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    return pixels.shape[0], pixels.shape[1]


def usable_boxes(boxes: npt.ArrayLike, width: int, height: int) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Boxes clipped to the picture, and which of them can be a prompt.

    Args:
        boxes: (N, 4) xyxy, pixels, may hold NaN.
        width, height: of the picture, pixels.

    Returns:
        (N, 4) clipped, and (N,) True where the box is finite and something of it lies in the picture.

    Raises:
        ValueError: another shape.
    """
    given = np.asarray(boxes, np.float32)
    if given.size == 0:
        given = given.reshape(-1, 4)
    if given.ndim != 2 or given.shape[1] != 4:
        raise ValueError(f"boxes are (N, 4), not {given.shape}")
    clipped = np.clip(given, 0, np.array([width, height, width, height], np.float32))
    sound = np.concatenate([np.isfinite(given), clipped[:, 2:] > clipped[:, :2]], axis=1)
    return clipped, np.asarray(sound.all(axis=1), np.bool_)


def segment_of(
    mask: Mask, height: int, width: int, predicted_iou: float | None, stability_score: float | None
) -> Segment | None:
    """The segment of a mask, or None if no pixel is set.

    Args:
        mask: of the picture, or of the picture at another size.
        height, width: of the picture, pixels.
        predicted_iou: as the model says it; a regression, so it may leave 0 to 1 by a little and is then clipped.
        stability_score: 0 to 1.
    """
    fitting = mask if mask["size"] == [height, width] else masks.resize(mask, height, width)
    area = int(masks.areas([fitting])[0])
    if area == 0:
        return None
    return Segment(fitting, masks.tight_boxes([fitting])[0], area, _share(predicted_iou), _share(stability_score))


def _share(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(min(max(value, 0.0), 1.0))
