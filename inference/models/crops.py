"""Crops that models and trainers see: squares around faces, objects cut out on white. Pure functions."""

import cv2
import numpy as np
import numpy.typing as npt

from refloom.schemas import boxes

Pixels = npt.NDArray[np.uint8]

_WHITE = 255
_THIN = 16
"""Longer over shorter side from which a picture's ends are cut off before its middle is made larger."""
WHOLE_SHARE = 0.8
"""Of a picture's shorter side: the square in its middle by which embedders know a whole picture."""
_LARGE_PX = 8192
"""Side from which a padded square is not made before it is shrunk."""


def middle(pixels: Pixels, thin: int = _THIN) -> Pixels:
    """The part of a thin picture that a square around its middle can be cut out of; any other picture is itself.

    What brings the short side to N pixels and cuts out the middle needs memory for the long side, which for a picture
    of 20000x1 would be gigabytes. The cut is as much on both ends, so that the middle stays where it is.

    Args:
        pixels: (H, W, 3).
        thin: longer over shorter side up to which a picture is itself.

    Returns:
        A view whose longer side is at most `thin` + 1 times the shorter one.
    """
    height, width = pixels.shape[:2]
    most = thin * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return pixels[top : height - top, left : width - left]


def square_face_box(box: npt.ArrayLike, width: int, height: int, expand: float) -> npt.NDArray[np.float32]:
    """The square that a face's stored crop shows.

    Its middle is the middle of the box, its side the box's longer side times (1 + 2 `expand`), though never more than
    the picture's longer side unless the face is. It is rounded to whole pixels, so that it says exactly what the crop
    shows, and may leave the picture.

    EasyRef's face crop (spec A3.2: middle rounded down, even sides, a random margin of 0 to 0.49 of the side, limited
    and shifted so that the square stays in the picture) is a rule of training, drawn anew each time. With `expand` 0.5
    the stored square holds every one of these draws except the shifted ones, so that a recipe can still draw.

    Args:
        box: (4,) xyxy, pixels.
        width, height: of the picture, pixels.
        expand: margin on every side, as a share of the box's longer side, from 0.

    Returns:
        (4,) xyxy, whole pixels, at least 1x1.

    Raises:
        ValueError: the box is not finite or empty, or `expand` is negative.
    """
    x0, y0, x1, y1 = (float(edge) for edge in np.asarray(box, np.float64))
    longer = max(x1 - x0, y1 - y0)
    if not np.isfinite([x0, y0, x1, y1]).all() or not (x1 > x0 and y1 > y0) or expand < 0:
        raise ValueError(f"no square around the box {(x0, y0, x1, y1)} with a margin of {expand}")
    side = max(1, round(min(longer * (1 + 2 * expand), max(longer, width, height))))
    left = int(np.floor((x0 + x1 - side) / 2 + 0.5))
    top = int(np.floor((y0 + y1 - side) / 2 + 0.5))
    return np.array([left, top, left + side, top + side], np.float32)


def cut_square(pixels: Pixels, box: npt.ArrayLike, max_side_px: int | None = None) -> Pixels:
    """A square part of a picture, white where it leaves the picture; shrunk by area averaging, never grown.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        box: (4,) xyxy, a square of whole pixels, as `square_face_box` gives it.
        max_side_px: larger squares are shrunk to this.

    Returns:
        (S, S, 3) with S the side of the box, or `max_side_px` if that is less.

    Raises:
        ValueError: the box is no square of whole pixels.
    """
    edges = np.asarray(box, np.float64)
    left, top, right, bottom = (int(edge) for edge in edges)
    side = right - left
    if (edges != np.floor(edges)).any() or side < 1 or bottom - top != side:
        raise ValueError(f"not a square of whole pixels: {edges.tolist()}")
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if side > _LARGE_PX and max_side_px is not None and x1 > x0 and y1 > y0:  # shrunk before it is padded
        scale = max_side_px / side
        size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        small = np.full((max_side_px, max_side_px, 3), _WHITE, np.uint8)
        at_x, at_y = (
            min(round(gap * scale), max_side_px - one) for gap, one in zip((x0 - left, y0 - top), size, strict=True)
        )
        small[at_y : at_y + size[1], at_x : at_x + size[0]] = _resize(pixels[y0:y1, x0:x1], *size)
        return small
    square = np.full((side, side, 3), _WHITE, np.uint8)
    if x1 > x0 and y1 > y0:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    if max_side_px is None or side <= max_side_px:
        return square
    return _resize(square, max_side_px, max_side_px)


def cut_out(
    pixels: Pixels, mask: Pixels | None, box: tuple[int, int, int, int], size: int, background: int = _WHITE
) -> Pixels:
    """An object on a plain square: what an image encoder sees of it.

    The object's part of the picture is centred and scaled until its longer side fills the square; it keeps its aspect
    to half a pixel of the result.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        mask: (y1 - y0, x1 - x0) of the box, non-zero on the object, as `masks.decode_box` gives it; None keeps the
            whole box.
        box: whole pixels inside the picture, as `boxes.pad` gives it.
        size: side of the result, pixels.
        background: grey value around the object.

    Returns:
        (size, size, 3).

    Raises:
        ValueError: the box is empty or leaves the picture, or the mask has another size.
    """
    x0, y0, x1, y1 = box
    if (x0, y0, x1, y1) != boxes.pad(box, pixels.shape[1], pixels.shape[0]):
        raise ValueError(f"the box {box} is not inside the picture of {pixels.shape[1]}x{pixels.shape[0]}")
    part = pixels[y0:y1, x0:x1]
    height, width = part.shape[:2]
    if mask is not None:
        if mask.shape != (height, width):
            raise ValueError(f"the mask is {mask.shape}, its box {(height, width)}")
        # np.where does the same in thirty times the time
        part = np.asarray(cv2.copyTo(part, mask, np.full(part.shape, background, np.uint8)))
    longer = max(height, width)
    # shrunk before it is padded: a whole square around a panorama would take gigabytes
    fitted = _resize(part, max(1, round(width * size / longer)), max(1, round(height * size / longer)))
    return _centre(fitted, size, background)


def cut_middle(pixels: Pixels, size: int, share: float = WHOLE_SHARE) -> Pixels:
    """The middle of a whole picture as a square: what an image encoder sees of a picture whose subject is not outlined.

    Subjects stand in the middle, and what surrounds them differs from photograph to photograph: without it photographs
    of one subject are nearer to each other, and those of two are no nearer (see `similar` in the registry).

    Args:
        pixels: (H, W, 3) uint8 sRGB.
        size: side of the result, pixels.
        share: side of the square over the picture's shorter side, above 0 and at most 1.

    Returns:
        (size, size, 3).
    """
    height, width = pixels.shape[:2]
    side = max(1, round(share * min(height, width)))
    left, top = (width - side) // 2, (height - side) // 2
    return _resize(pixels[top : top + side, left : left + side], size, size)


def _centre(pixels: Pixels, side: int, background: int) -> Pixels:
    """The pixels in the middle of a plain square of at least their size."""
    height, width = pixels.shape[:2]
    square = np.full((side, side, 3), background, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _resize(pixels: Pixels, width: int, height: int) -> Pixels:
    shrinks = width < pixels.shape[1] or height < pixels.shape[0]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=kind), np.uint8)
