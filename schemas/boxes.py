"""Boxes: xyxy, float32, pixels of the upright picture; pixel i spans [i, i+1), the whole picture is (0, 0, w, h).

Pure array functions. A batch of boxes is an array of shape (N, 4).
"""

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]

CLIP_PX = 2.0
"""A box may leave the picture by this many pixels and is then clipped; beyond that it is rejected."""

EDGE_TOLERANCE_PX = 4.0
EDGE_TOLERANCE_SHARE = 0.05
AREA_TOLERANCE_SHARE = 0.15


def clip(boxes: Boxes, width: int, height: int) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Clip boxes that leave the picture by at most `CLIP_PX`.

    Args:
        boxes: (N, 4) xyxy, may hold NaN.
        width, height: of the picture, pixels.

    Returns:
        The clipped boxes and a mask (N,) of the sound ones: finite, not empty, at most `CLIP_PX` outside.
    """
    limit = np.array([width, height, width, height], dtype=np.float32)
    clipped = np.minimum(np.maximum(boxes, 0), limit)
    inside = (boxes >= -CLIP_PX) & (boxes <= limit + CLIP_PX)  # False for NaN
    filled = clipped[:, 2:] > clipped[:, :2]
    sound: npt.NDArray[np.bool_] = np.all(np.concatenate([inside, filled], axis=1), axis=1)
    return clipped, sound


def area(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Areas (N,) in square pixels; empty boxes give 0."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    product: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return product


def iou(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """Intersection over union of every pair: (N, 4) and (M, 4) give (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(high - low, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - shared
    ratio: npt.NDArray[np.float32] = shared / np.maximum(union, 1e-9)
    return ratio


def agree(boxes: Boxes, mask_boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Whether stored boxes fit the tight boxes of their masks.

    Args:
        boxes, mask_boxes: (N, 4) xyxy.

    Returns:
        (N,) True where every edge differs by at most max(4 px, 5 % of the mask box's side).
    """
    sides = mask_boxes[:, 2:] - mask_boxes[:, :2]
    allowed = np.maximum(sides * EDGE_TOLERANCE_SHARE, EDGE_TOLERANCE_PX)
    gaps = np.abs(boxes - mask_boxes)
    within: npt.NDArray[np.bool_] = (np.maximum(gaps[:, :2], gaps[:, 2:]) <= allowed).all(axis=1)
    return within


def areas_agree(declared: npt.ArrayLike, areas: npt.ArrayLike, boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Whether declared areas fit the pixel counts of their masks.

    A polygon's area and its pixels differ by up to half a pixel along the outline, so thin and tiny
    objects are allowed the half perimeter of their box on top of 15 %.

    Args:
        declared, areas: (N,) square pixels; a NaN in `declared` (the source has no area) agrees.
        boxes: (N, 4) tight boxes of the masks.

    Returns:
        (N,) booleans.
    """
    said, counted = np.asarray(declared, np.float64), np.asarray(areas, np.float64)
    outline = (boxes[:, 2] - boxes[:, 0]) + (boxes[:, 3] - boxes[:, 1])
    # fmax so that a NaN, which must agree, and an infinite area, which must not, need no calls of their own
    allowed = AREA_TOLERANCE_SHARE * np.minimum(np.fmax(said, counted), 1e18) + outline
    within: npt.NDArray[np.bool_] = ~(np.abs(said - counted) > allowed)
    return within


def orient(boxes: Boxes, orientation: int, width: int, height: int) -> Boxes:
    """Turn boxes of the stored picture into the upright picture.

    Args:
        boxes: (N, 4) xyxy in the stored frame.
        orientation: EXIF orientation 1..8 of the stored picture.
        width, height: of the *stored* picture, pixels.

    Returns:
        (N, 4) xyxy in the upright frame.
    """
    x0, y0, x1, y1 = boxes.T
    if orientation in (2, 3, 7, 8):  # these see the stored x axis reversed
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):  # these see the stored y axis reversed
        y0, y1 = height - y1, height - y0
    corners = (y0, x0, y1, x1) if orientation >= 5 else (x0, y0, x1, y1)
    return np.stack(corners, axis=1).astype(np.float32)


def pad(box: npt.ArrayLike, width: int, height: int) -> tuple[int, int, int, int]:
    """The smallest integer box (x0, y0, x1, y1) that holds `box`, inside the picture and at least 1x1."""
    x0, y0, x1, y1 = (float(v) for v in np.asarray(box, np.float64))
    left = min(max(int(np.floor(x0)), 0), width - 1)
    top = min(max(int(np.floor(y0)), 0), height - 1)
    right = min(max(int(np.ceil(x1)), left + 1), width)
    bottom = min(max(int(np.ceil(y1)), top + 1), height)
    return left, top, right, bottom
