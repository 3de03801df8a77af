"""The outline of an object against the pixels and against the picture's edge. Pure functions."""

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Corners = tuple[int, int, int, int]

_SIDE_PX = 128
"""Outlines are compared with the pixels at this size of the box."""
_FAINT = 60
"""Sobel response, of any channel in 0 to 255, of a step by ten levels: less is no edge that one would see."""
_EDGE = 0.01
"""Share of the picture's longer side that still counts as its edge."""
_CROSS = np.ones((3, 3), np.uint8)


def cut_share(mask: Pixels, box: Corners, width: int, height: int) -> float:
    """How much of an object the picture's edge cuts off: the part of each side of its box that lies at the edge.

    At the edge is what lies within a hundredth of the picture's longer side: outlines by hand stop a little early.

    Args:
        mask: (y1 - y0, x1 - x0) of 0 and 1, inside the box.
        box: whole pixels inside the picture.
        width, height: of the picture.

    Returns:
        The sum over the four sides of the rows or columns that reach the edge, over the side's length: 0 to 4.
    """
    x0, y0 = box[:2]
    margin = max(1, round(_EDGE * max(width, height)))
    bands = (
        (mask[:, : max(0, margin - x0)], 1),
        (mask[: max(0, margin - y0)], 0),
        (mask[:, max(0, width - margin - x0) :], 1),
        (mask[max(0, height - margin - y0) :], 0),
    )
    cuts = [np.count_nonzero(band.any(axis=axis)) / mask.shape[1 - axis] for band, axis in bands if band.size]
    return float(sum(cuts))


def faint_outline(rgb: Pixels, mask: Pixels, box: Corners) -> float:
    """Share of an object's outline along which the picture shows no edge, in light or in colour.

    It is high for outlines drawn past the object, in the dark, and around what is transparent. The picture's edge is no
    part of the outline.

    Args:
        rgb: (H, W, 3), the picture.
        mask: (y1 - y0, x1 - x0) of 0 and 1, inside the box.
        box: whole pixels inside the picture.

    Returns:
        0 to 1; 0 where the whole outline lies on the picture's edge.
    """
    x0, y0, x1, y1 = box
    height, width = rgb.shape[:2]
    beside = -(-max(x1 - x0, y1 - y0) // _SIDE_PX)  # a pixel of what the box is shrunk to
    top, bottom, left, right = (min(beside, room) for room in (y0, height - y1, x0, width - x1))
    pixels = rgb[y0 - top : y1 + bottom, x0 - left : x1 + right]
    shape = cv2.copyMakeBorder(mask, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
    scale = _SIDE_PX / max(shape.shape)
    if scale < 1:
        size = (max(1, round(shape.shape[1] * scale)), max(1, round(shape.shape[0] * scale)))
        # averaging all pixels takes five times the time and tells good references from others no better
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        shape = cv2.resize(shape, size, interpolation=cv2.INTER_NEAREST)
    # replicated, so that the picture's edge makes no outline
    inner = cv2.erode(shape, _CROSS, borderType=cv2.BORDER_REPLICATE)
    outline = cv2.subtract(shape, inner)
    length = cv2.countNonZero(outline)
    if not length:
        return 0.0
    across, down = (cv2.convertScaleAbs(cv2.Sobel(pixels, cv2.CV_16S, *way)) for way in ((1, 0), (0, 1)))
    red, green, blue = cv2.split(cv2.max(across, down))
    strongest = cv2.dilate(cv2.max(cv2.max(red, green), blue), _CROSS)
    _, plain = cv2.threshold(strongest, _FAINT - 1, 1, cv2.THRESH_BINARY)
    return float(1 - cv2.countNonZero(cv2.bitwise_and(outline, plain)) / length)
