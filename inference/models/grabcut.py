"""GrabCut (Rother, Kolmogorov and Blake 2004) as a segmenter: colours inside a box against those around it.

It needs no weights and no GPU. It judges nothing: there is no estimate of how good a mask is.
"""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from refloom.inference.models.entry import Entry
from refloom.inference.models.segmenters import Pixels, Segment, check_pixels, segment_of, usable_boxes
from refloom.schemas import boxes as box_tools
from refloom.schemas import masks
from refloom.schemas.boxes import Boxes

_LEAST_PX = 3
"""Shorter side that a box must keep when the part around it is shrunk."""

Corners = tuple[int, int, int, int]


def load(entry: Entry, device: str, precision: str) -> "GrabCut":
    """The model of the registry's entry; `device` and `precision` change nothing: OpenCV has it for the CPU."""
    options = {name: value for name, value in entry.options.items() if name not in ("work_side_px", "iterations")}
    settings = Settings(
        work_side_px=int(entry.options["work_side_px"]), iterations=int(entry.options["iterations"]), **options
    )
    return GrabCut(settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides a mask.

    Attributes:
        work_side_px: the part of the picture around a box is shrunk until its longer side is at most this.
        margin: how far that part goes beyond the box, as a share of the root of the box's area.
        iterations: of GrabCut.
        min_side_px: boxes with a shorter side are refused.
        max_box_share: boxes that cover more of the picture are refused: nothing is left that shows the background.
        min_part: parts of a mask below this share of its largest part go, holes below it are filled.
        min_fill: masks that fill less of their box are refused.
    """

    work_side_px: int
    margin: float
    iterations: int
    min_side_px: float
    max_box_share: float
    min_part: float
    min_fill: float


class GrabCut:
    """A `segmenters.Segmenter`."""

    has_automatic = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def segment(self, pixels: Pixels, boxes: Boxes) -> list[Segment | None]:
        """See `segmenters.Segmenter.segment`. A mask stays inside its box, rounded outwards to whole pixels."""
        height, width = check_pixels(pixels)
        clipped, usable = usable_boxes(boxes, width, height)
        return [self._one(pixels, box) if good else None for box, good in zip(clipped, usable, strict=True)]

    def segment_everything(self, pixels: Pixels) -> list[Segment]:
        """See `segmenters.Segmenter.segment_everything`; always a ValueError."""
        raise ValueError("GrabCut needs a box for every object; use a model that has automatic masks")

    def _one(self, pixels: Pixels, box: Boxes) -> Segment | None:
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = inner = box_tools.pad(box, width, height)
        area = (x1 - x0) * (y1 - y0)
        if float((box[2:] - box[:2]).min()) < self._settings.min_side_px:
            return None
        if area > self._settings.max_box_share * height * width:
            return None
        margin = self._settings.margin * area**0.5
        outer = box_tools.pad((x0 - margin, y0 - margin, x1 + margin, y1 + margin), width, height)
        part = pixels[outer[1] : outer[3], outer[0] : outer[2]]
        found = self._cut(part, (x0 - outer[0], y0 - outer[1], x1 - outer[0], y1 - outer[1]), seed_of(inner))
        if found is None or int(found.sum()) < self._settings.min_fill * area:
            return None
        mask = masks.encode_box(found, inner, height, width)
        return segment_of(mask, height, width, predicted_iou=None, stability_score=None)

    def _cut(self, part: Pixels, box: Corners, seed: int) -> Pixels | None:
        """The object's pixels inside the box, (y1 - y0, x1 - x0) of 0 and 1, or None where there is too little."""
        scale = min(1.0, self._settings.work_side_px / max(part.shape[:2]))
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        work = np.ascontiguousarray(part)
        if size != (part.shape[1], part.shape[0]):
            work = np.asarray(cv2.resize(work, size, interpolation=cv2.INTER_AREA), np.uint8)
        scales = np.tile((size[0] / part.shape[1], size[1] / part.shape[0]), 2)
        x0, y0, x1, y1 = (round(float(edge)) for edge in np.array(box) * scales)
        labels = np.full(work.shape[:2], cv2.GC_BGD, np.uint8)
        labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
        around = labels.size - (x1 - x0) * (y1 - y0)
        if min(x1 - x0, y1 - y0) < _LEAST_PX or around < max(work.shape[:2]):
            return None
        cv2.setRNGSeed(seed)  # the colour models start from k-means
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(
            work, labels, None, background, foreground, self._settings.iterations, cv2.GC_INIT_WITH_MASK
        )  # its colours are compared, never named: RGB does as well as BGR
        found = clean(np.asarray(labels & 1, np.uint8), self._settings.min_part)  # 1 and 3 are the foreground
        grown = cv2.resize(found.astype(np.float32), (part.shape[1], part.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grown[box[1] : box[3], box[0] : box[2]] >= 0.5, np.uint8)


def seed_of(box: Corners) -> int:
    """A seed from a box alone, so that its mask depends on no other."""
    return zlib.crc32(np.array(box, "<i4").tobytes()) & 0x7FFFFFFF


def clean(found: Pixels, min_part: float) -> Pixels:
    """A mask without specks and pinholes.

    Args:
        found: (h, w) of 0 and 1.
        min_part: connected parts below this share of the largest go; holes below this share of it are filled.

    Returns:
        (h, w) of 0 and 1.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    if count == 1:
        return found
    sizes = np.asarray(stats[:, cv2.CC_STAT_AREA]).copy()
    sizes[0] = 0  # what is not set
    least = min_part * int(sizes.max())
    kept = np.asarray((sizes >= least) & (sizes > 0))[parts].astype(np.uint8)
    count, holes, stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
    small = np.asarray(stats[:, cv2.CC_STAT_AREA]) < least
    small[np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))] = False  # open to the outside
    return np.asarray(kept | small[holes], np.uint8)
