"""Sizes and boxes as they stand in json, where tools write numbers in many ways: what is plain is taken."""

import math
from array import array
from typing import Any

MAX_SIDE_PX = 1 << 31


def whole(value: Any) -> int | None:
    """A length in pixels: a whole number, however it is written (480, 480.0, "480"); None for anything else."""
    if type(value) is str and len(value) < 20:
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < MAX_SIDE_PX else None


def four_numbers(bbox: Any) -> tuple[float, float, float, float] | None:
    """A box as it stands in json as four finite numbers; None for anything else."""
    if type(bbox) not in (list, tuple) or len(bbox) != 4:
        return None
    try:
        x0, y0, x1, y1 = array("d", bbox)
    except (TypeError, OverflowError):
        return None
    return (x0, y0, x1, y1) if math.isfinite(x0 + y0 + x1 + y1) else None


def is_absent_box(bbox: Any) -> bool:
    """Whether a source says with this that there is no box: null, `[]`, `{}` or four zeros."""
    return bbox is None or (type(bbox) in (list, dict) and (not bbox or bbox == [0, 0, 0, 0]))


def is_absent_mask(segmentation: Any) -> bool:
    """Whether a source says with this that there is no mask: null, `[]` or `{}`."""
    return segmentation is None or (type(segmentation) in (list, dict) and not segmentation)


def plain_mask(segmentation: Any) -> Any:
    """A segmentation with the size of a run-length encoding in whole numbers, where it is plain; otherwise as it is."""
    size = segmentation.get("size") if type(segmentation) is dict else None
    if type(size) is not list or len(size) != 2 or (type(size[0]) is int and type(size[1]) is int):
        return segmentation
    sides = [whole(side) for side in size]
    return segmentation if None in sides else {**segmentation, "size": sides}
