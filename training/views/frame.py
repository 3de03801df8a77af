"""The part of a picture that is trained on, and the same part of its boxes and masks. Pure functions."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from refloom.schemas import masks
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Pixels, Row
from refloom.training.views.example import Mask, SizeCondition

Rect = tuple[int, int, int, int]
"""x0, y0, x1, y1 in whole pixels."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of a picture, resized and perhaps mirrored.

    Attributes:
        picture: (height, width) of the picture, pixels.
        rect: part of it, pixels of the picture.
        size: (height, width) that it is resized to.
        flip: mirrored left to right after that.
    """

    picture: Size
    rect: Rect
    size: Size
    flip: bool = False

    def pixels(self, picture: Pixels) -> Pixels:
        """The frame of a picture: (h, w, 3)."""
        x0, y0, x1, y1 = self.rect
        frame: Pixels = self._mirrored(resized(picture[y0:y1, x0:x1], self.size))
        return frame

    def boxes(self, boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Boxes of the picture in the frame.

        Args:
            boxes: (N, 4) xyxy, pixels of the picture.

        Returns:
            (N, 4) xyxy in 0–1 of the frame, clipped to it; zeros where a box is outside.
        """
        x0, y0, x1, y1 = self.rect
        sides = (x1 - x0, y1 - y0) * 2
        corners = (np.asarray(boxes, np.float64).reshape(-1, 4) - [x0, y0, x0, y0]) / sides
        corners = np.clip(corners, 0, 1)
        if self.flip:
            corners = np.stack([1 - corners[:, 2], corners[:, 1], 1 - corners[:, 0], corners[:, 3]], axis=1)
        corners[(corners[:, 2:] <= corners[:, :2]).any(axis=1)] = 0
        return corners

    def mask(self, mask: masks.Mask | None) -> Mask | None:
        """A mask of the picture in the frame: (h, w), True where at least half of a pixel is; None for None.

        Raises:
            Rejected: `bad_mask`.
        """
        if mask is None:
            return None
        inside = masks.decode_box(mask, self.rect) * np.uint8(255)
        frame: Mask = self._mirrored(resized(inside, self.size) > 127)
        return frame

    def conditions(self, original_size: Size | None = None) -> SizeCondition:
        """SDXL's micro-conditioning of the frame.

        Args:
            original_size: (height, width); the picture's by default.
        """
        x0, y0, x1, _ = self.rect
        scale_y, scale_x = self.size[0] / (self.rect[3] - y0), self.size[1] / (x1 - x0)
        left = self.picture[1] - x1 if self.flip else x0  # of the mirrored picture, which is what is seen
        corner = (round(y0 * scale_y), round(left * scale_x))
        return SizeCondition(original_size or self.picture, corner, self.size)

    def _mirrored(self, pixels: Any) -> Any:
        return np.ascontiguousarray(pixels[:, ::-1]) if self.flip else pixels


def framed(
    picture: Row,
    size: Size,
    *,
    rng: np.random.Generator | None = None,
    keep: npt.ArrayLike | None = None,
    flip: bool = False,
) -> Frame:
    """The largest part of a picture with the aspect of a size.

    Args:
        picture: of a sample's `pictures`.
        size: (height, width) to train at.
        rng: draws the place of the part; None takes the middle.
        keep: (4,) xyxy in pixels: what must be inside, if it can be; if not, it is in the middle.
        flip: mirror it.
    """
    height, width = picture["height"], picture["width"]
    part_height = min(height, max(1, round(width * size[0] / size[1])))
    part_width = min(width, max(1, round(height * size[1] / size[0])))
    x0, y0 = 0, 0
    kept = [0.0, 0.0, 0.0, 0.0] if keep is None else [float(edge) for edge in np.asarray(keep)]
    if part_width < width:
        x0 = _offset(width, part_width, None if keep is None else (kept[0], kept[2]), rng)
    if part_height < height:
        y0 = _offset(height, part_height, None if keep is None else (kept[1], kept[3]), rng)
    return Frame((height, width), (x0, y0, x0 + part_width, y0 + part_height), size, flip)


def _offset(whole: int, part: int, keep: tuple[float, float] | None, rng: np.random.Generator | None) -> int:
    low, high = 0, whole - part
    if keep is not None:
        low, high = max(low, int(np.ceil(keep[1])) - part), min(high, int(np.floor(keep[0])))
    if low > high:
        assert keep is not None
        return int(np.clip(round((keep[0] + keep[1] - part) / 2), 0, whole - part))
    return (low + high) // 2 if rng is None else int(rng.integers(low, high + 1))


def resized(pixels: Any, size: Size) -> Any:
    """Pixels (h, w, ...) at another size: by area averaging where they shrink, by cubic interpolation where they grow.

    A mask of 0 and 255 grows by linear interpolation, which does not overshoot.
    """
    height, width = size
    if pixels.shape[:2] == size:
        return np.ascontiguousarray(pixels)
    shrinks = height < pixels.shape[0] or width < pixels.shape[1]
    grows = cv2.INTER_CUBIC if pixels.ndim == 3 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_AREA if shrinks else grows)


def shrunk(pixels: Pixels, max_area_px: int) -> Pixels:
    """A picture of at most so many pixels, its aspect kept; smaller ones as they are."""
    height, width = pixels.shape[:2]
    scale = (max_area_px / (height * width)) ** 0.5
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    small: Pixels = resized(pixels, (max(1, int(height * scale)), max(1, int(width * scale))))
    return small
