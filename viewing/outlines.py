"""Thumbnails: a part of a picture as a small JPEG, with outlines of masks and boxes in its coordinates, as SVG paths.

Outlines are kept apart from the pixels, so that the page can show the picture without them. Pure functions.
"""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from refloom.schemas import boxes, masks, pictures
from refloom.schemas.errors import Rejected
from refloom.schemas.masks import Mask

_MARGIN = 0.2
"""Of the longer side of a box, shown around it."""
_MIN_REGION_PX = 40
_MAX_ASPECT = 1.5
_MAX_ZOOM = 4.0
_OUTLINE_SCALE = 2
"""Outlines are traced at this many times the thumbnail's resolution."""
_OUTLINE_TOLERANCE_PX = 0.35
_OUTLINE_PARTS = 60
_OUTLINE_POINTS = 600
_MAX_BYTES = 14_000
_QUALITIES = (82, 65, 45, 25)

Pixels = npt.NDArray[np.uint8]
Region = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something drawn over a thumbnail, in its pixels.

    Attributes:
        outline: SVG path of the mask's outlines, holes included; empty without a mask.
        box: xyxy; None leaves it out.
        points: x, y each.
        label: short text at the box.
        group: marks of one subject share a number, which gives their colour.
        title: shown when pointed at.
    """

    outline: str = ""
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    label: str = ""
    group: int = 0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A thumbnail.

    Attributes:
        jpeg: its bytes.
        width, height: pixels.
        marks: drawn over it.
    """

    jpeg: bytes
    width: int
    height: int
    marks: tuple[Mark, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class View:
    """A region of a picture at thumbnail size; turns picture coordinates into the thumbnail's.

    Attributes:
        region: x0, y0, x1, y1, pixels of the picture.
        width, height: of the thumbnail, pixels.
    """

    region: Region
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Thumbnail pixels per picture pixel, along x and y."""
        x0, y0, x1, y1 = self.region
        return self.width / (x1 - x0), self.height / (y1 - y0)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture in the thumbnail."""
        scale_x, scale_y = self.scale
        return (x - self.region[0]) * scale_x, (y - self.region[1]) * scale_y

    def box(self, box: npt.ArrayLike) -> tuple[float, float, float, float]:
        """A box of the picture in the thumbnail, xyxy."""
        x0, y0, x1, y1 = (float(edge) for edge in np.asarray(box, np.float64))
        return (*self.point(x0, y0), *self.point(x1, y1))

    def outline(self, mask: Mask | None, height: int, width: int) -> str:
        """The outline of a mask, as an SVG path; empty where there is none, or it is not of this picture.

        Args:
            mask: of the whole picture.
            height, width: of the picture.
        """
        if mask is None or list(mask["size"]) != [height, width]:
            return ""
        try:
            inside = masks.decode_box(mask, self.region)
        except Rejected:
            return ""
        size = (self.width * _OUTLINE_SCALE, self.height * _OUTLINE_SCALE)
        shrinks = inside.shape[1] > size[0]
        soft = cv2.resize(inside * np.uint8(255), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        # a frame of nothing lets an outline run along the edge of the region
        framed = cv2.copyMakeBorder((soft > 127).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        lines, _ = cv2.findContours(framed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # contours run through the middle of pixels, and the frame moved them by one
        return "".join(_path((part - 0.5) / _OUTLINE_SCALE) for part in _simplified(list(lines)))


def _simplified(lines: list[npt.NDArray[Any]]) -> list[npt.NDArray[np.float64]]:
    """The largest of some outlines, (N, 2) each, with as few points as look the same; coarser if there are too many."""
    largest = sorted(lines, key=cv2.contourArea, reverse=True)[:_OUTLINE_PARTS]
    tolerance = _OUTLINE_TOLERANCE_PX * _OUTLINE_SCALE
    while True:
        parts = [cv2.approxPolyDP(line, tolerance, True).reshape(-1, 2).astype(np.float64) for line in largest]
        parts = [part for part in parts if len(part) > 2]
        if sum(len(part) for part in parts) <= _OUTLINE_POINTS:
            return parts
        tolerance *= 2


def _path(points: npt.NDArray[np.float64]) -> str:
    return "M" + " ".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in points) + "Z"


def view_of(region: Region, side_px: int) -> View:
    """A region so large that its longer side is `side_px`; small regions are not blown up without end."""
    width, height = region[2] - region[0], region[3] - region[1]
    scale = min(side_px / max(width, height), _MAX_ZOOM)
    return View(region, max(1, round(width * scale)), max(1, round(height * scale)))


def around(box: npt.ArrayLike, width: int, height: int) -> Region:
    """The region that shows an object: its box with some surrounding, neither tiny nor a thin stripe.

    Args:
        box: xyxy, pixels.
        width, height: of the picture.
    """
    x0, y0, x1, y1 = (float(edge) for edge in np.asarray(box, np.float64))
    longer = max(x1 - x0, y1 - y0)
    least = max(_MIN_REGION_PX, longer * (1 + 2 * _MARGIN) / _MAX_ASPECT)
    grow_x = max(_MARGIN * longer, (least - (x1 - x0)) / 2)
    grow_y = max(_MARGIN * longer, (least - (y1 - y0)) / 2)
    return boxes.pad((x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y), width, height)


def cut(pixels: Pixels, view: View) -> Drawing:
    """The pixels of a view, without marks.

    Args:
        pixels: (H, W, 3) uint8 sRGB, the whole picture.
        view: what to show of it.
    """
    x0, y0, x1, y1 = view.region
    size = (view.width, view.height)
    part = pixels[y0:y1, x0:x1]
    grows = view.width > x1 - x0
    small = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    return Drawing(_small_jpeg(np.asarray(small, np.uint8), view.width * view.height), view.width, view.height)


def whole(pixels: Pixels) -> Region:
    """The region of a whole picture."""
    return 0, 0, pixels.shape[1], pixels.shape[0]


def _small_jpeg(pixels: Pixels, area: int) -> bytes:
    """A JPEG of a bounded size: pictures of noise are given less quality, so that a page stays small."""
    most = max(_MAX_BYTES, area // 2)
    for quality in _QUALITIES:
        data = pictures.encode_jpeg(pixels, quality)
        if len(data) <= most:
            break
    return data
