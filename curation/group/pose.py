"""How much pose changes between the members of a group: outlines laid over each other, and heads turned in space."""

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from refloom.schemas import masks
from refloom.schemas.boxes import Boxes
from refloom.schemas.masks import Mask

SIDE_PX = 32
"""Of the square that outlines are brought to: 1,024 cells, a finger's width of a person."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def pose_change(outlines: Sequence[Mask | None], boxes: Boxes) -> float | None:
    """Mean over pairs of 1 - IoU of the members' outlines, free of where and how large they are seen.

    Every outline is scaled so that its longer side fills a square, and put into its middle: another aspect, another
    view and another posture all count; a mere zoom or shift does not.

    Args:
        outlines: N masks; where all are None the boxes stand for them.
        boxes: (N, 4) xyxy, pixels.

    Returns:
        0 to 1; None for N < 2, and where some have a mask and some have none.
    """
    if len(outlines) < 2:
        return None
    known = [mask for mask in outlines if mask is not None]
    if known and len(known) < len(outlines):
        return None
    return float(1 - pair_overlaps(silhouettes(known) if known else _rectangles(boxes)).mean())


def pair_pose_changes(outlines: Sequence[Bools | None], boxes: Boxes, are_shaped: Sequence[bool]) -> list[float | None]:
    """1 - IoU of the outlines of each pair (0,1), (0,2), ..., (1,2), ..., as `pose_change` compares them.

    Args:
        outlines: N of `silhouettes`, or None without a mask.
        boxes: (N, 4) xyxy, pixels; they stand for outlines where neither of a pair has one.
        are_shaped: N times whether the box says something of the shape: not that of a face or a whole picture.

    Returns:
        N (N - 1) / 2 numbers from 0 to 1; None where one alone has an outline, and for boxes that say nothing.
    """
    changes: dict[tuple[int, int], float] = {}
    masked = [place for place, shape in enumerate(outlines) if shape is not None]
    boxed = [place for place, shape in enumerate(outlines) if shape is None and are_shaped[place]]
    if len(masked) > 1:
        shapes = np.stack([shape for shape in outlines if shape is not None])
        changes |= zip(combinations(masked, 2), (1 - pair_overlaps(shapes)).tolist(), strict=True)
    if len(boxed) > 1:
        shapes = _rectangles(boxes[boxed])
        changes |= zip(combinations(boxed, 2), (1 - pair_overlaps(shapes)).tolist(), strict=True)
    return [changes.get(pair) for pair in combinations(range(len(outlines)), 2)]


def pair_overlaps(shapes: Bools) -> Floats:
    """IoU of pairs (0,1), (0,2), ..., (1,2), ...: (N, S, S), none of them empty, to (N (N - 1) / 2,)."""
    flat = shapes.reshape(len(shapes), -1).astype(np.float32)
    common = (flat @ flat.T).astype(np.float64)  # counts, exact in any order of summing
    areas = np.diagonal(common)
    overlaps: Floats = (common / (areas[:, None] + areas[None] - common))[np.triu_indices(len(shapes), k=1)]
    return overlaps


def head_turn(poses: Sequence[Sequence[float] | None]) -> float | None:
    """Mean over pairs of the angle by which one head is turned against the other.

    Args:
        poses: N times pitch, yaw and roll in degrees, of R = Rz(roll) Ry(yaw) Rx(pitch) as insightface has them.

    Returns:
        Degrees, 0 to 180; None for N < 2 and where a pose is missing.
    """
    if len(poses) < 2 or any(pose is None for pose in poses):
        return None
    turned = _rotations(np.radians(np.array(poses, np.float64)))
    traces = np.einsum("iab,jab->ij", turned, turned, optimize=False)[np.triu_indices(len(poses), k=1)]
    return float(np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1))).mean())


def _rotations(angles: Floats) -> Floats:
    """(N, 3) pitch, yaw and roll, radians, to (N, 3, 3)."""
    (a, b, c), (x, y, z) = np.cos(angles.T), np.sin(angles.T)
    rows = [
        [b * c, x * y * c - a * z, a * y * c + x * z],
        [b * z, x * y * z + a * c, a * y * z - x * c],
        [-y, x * b, a * b],
    ]
    return np.array(rows).transpose(2, 0, 1)


def silhouettes(outlines: Sequence[Mask]) -> Bools:
    """Masks in the middle of one square each: (N, S, S)."""
    tight = masks.tight_boxes(outlines).astype(int).tolist()
    cut = masks.decode_boxes(outlines, [(x0, y0, x1, y1) for x0, y0, x1, y1 in tight])
    return np.stack([_centred(pixels) for pixels in cut])


def _rectangles(boxes: Boxes) -> Bools:
    """Filled boxes in the middle of one square each: (N, S, S)."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    return np.stack([_padded(np.ones(_fitting(height, width), bool)) for width, height in sides.tolist()])


def _centred(pixels: npt.NDArray[np.uint8]) -> Bools:
    height, width = _fitting(*pixels.shape)
    shrunk = cv2.resize(pixels * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    shape = shrunk >= 128
    if not shape.any():  # hair-thin at this size: what it is most
        shape = shrunk == shrunk.max()
    return _padded(shape)


def _fitting(height: float, width: float) -> tuple[int, int]:
    """Height and width with the longer side of the square, and at least one cell."""
    longer = max(height, width)
    return max(1, round(height * SIDE_PX / longer)), max(1, round(width * SIDE_PX / longer))


def _padded(shape: Bools) -> Bools:
    square = np.zeros((SIDE_PX, SIDE_PX), bool)
    top, left = (SIDE_PX - shape.shape[0]) // 2, (SIDE_PX - shape.shape[1]) // 2
    square[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return square
