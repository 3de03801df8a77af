"""Masks of what a picture shows, in the ways in which COCO, YouTube-VIS and SA-1B write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from refloom.schemas import masks
from refloom.schemas.errors import Rejected
from refloom.schemas.masks import Mask
from refloom.schemas.pictures import Pixels

_UPSAMPLING = 2
_LARGEST_DEVIATION_PX = 0.8


@dataclass(frozen=True, slots=True)
class Visible:
    """The pixels that show something.

    Attributes:
        box: (x0, y0, x1, y1), tight, whole pixels.
        pixels: (y1 - y0, x1 - x0) 0 or 1.
        height, width: of the picture.
    """

    box: tuple[int, int, int, int]
    pixels: Pixels
    height: int
    width: int

    @property
    def area(self) -> int:
        """Set pixels."""
        return int(cv2.countNonZero(self.pixels))

    @property
    def xywh(self) -> list[float]:
        """The tight box as COCO writes it."""
        x0, y0, x1, y1 = self.box
        return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def visible(where: npt.NDArray[np.bool_]) -> Visible | None:
    """The set pixels of a whole picture (H, W); None if there are none."""
    whole = where.view(np.uint8)
    x, y, width, height = cv2.boundingRect(whole)
    if not width:
        return None
    pixels = np.ascontiguousarray(whole[y : y + height, x : x + width])
    return Visible((x, y, x + width, y + height), pixels, *where.shape)


def compressed(shown: Visible) -> Mask:
    """As SA-1B writes it: run lengths in a string."""
    return masks.encode_box(shown.pixels, shown.box, shown.height, shown.width)


def uncompressed(shown: Visible) -> dict[str, Any]:
    """As YouTube-VIS and COCO crowds have it: a list of run lengths, column by column, unset ones first."""
    x0, y0, x1, _ = shown.box
    columns = np.zeros((x1 - x0, shown.height), np.uint8)
    columns[:, y0 : y0 + shown.pixels.shape[0]] = shown.pixels.T
    flat = columns.reshape(-1)
    turns = np.flatnonzero(np.diff(flat, prepend=0, append=0)) + x0 * shown.height
    edges = np.concatenate([[0], turns, [shown.height * shown.width]])
    counts = np.diff(edges).tolist()
    if counts[-1] == 0:
        counts.pop()
    return {"size": [shown.height, shown.width], "counts": counts}


def for_coco(shown: Sequence[Visible]) -> list[tuple[Any, float, list[float]]]:
    """Segmentations of one picture as COCO has them: polygons, or run lengths where polygons are off by over a pixel.

    Returns:
        For each (segmentation, area, bbox); area and bbox are those of what pycocotools decodes from it.
    """
    if not shown:
        return []
    height, width = shown[0].height, shown[0].width
    written: list[Any] = [_polygons(one) for one in shown]
    decoded, _ = masks.read(written, height, width)
    for index, (one, mask) in enumerate(zip(shown, decoded, strict=True)):
        if isinstance(mask, Rejected) or not _close(one, mask):
            written[index] = uncompressed(one)
            decoded[index] = compressed(one)
    sound = [mask for mask in decoded if not isinstance(mask, Rejected)]
    areas, tight = masks.areas(sound), masks.tight_boxes(sound)
    return [
        (segmentation, float(area), [float(x0), float(y0), float(x1 - x0), float(y1 - y0)])
        for segmentation, area, (x0, y0, x1, y1) in zip(written, areas.tolist(), tight.tolist(), strict=True)
    ]


def _polygons(shown: Visible) -> list[list[float]]:
    """Outer outlines in picture coordinates, which count from pixel edges."""
    fine = np.repeat(np.repeat(shown.pixels, _UPSAMPLING, axis=0), _UPSAMPLING, axis=1)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for outline in outlines:
        simple = cv2.approxPolyDP(outline, _LARGEST_DEVIATION_PX * _UPSAMPLING, closed=True)
        if len(simple) < 3:
            continue
        points = (simple[:, 0] + 0.5) / _UPSAMPLING + shown.box[:2]
        polygons.append(points.reshape(-1).tolist())
    return polygons


def _close(shown: Visible, mask: Mask) -> bool:
    """Whether a mask differs from what is shown by no more than the pixels along its outline."""
    x0, y0, x1, y1 = shown.box
    window = (max(0, x0 - 2), max(0, y0 - 2), min(shown.width, x1 + 2), min(shown.height, y1 + 2))
    got = masks.decode_box(mask, window)
    wanted = np.zeros_like(got)
    wanted[y0 - window[1] : y1 - window[1], x0 - window[0] : x1 - window[0]] = shown.pixels
    square = np.ones((3, 3), np.uint8)
    beyond = got & ~cv2.dilate(wanted, square) & 1
    lacking = cv2.erode(wanted, square) & ~got & 1
    return not beyond.any() and not lacking.any()
