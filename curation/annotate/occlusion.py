"""How much of an object's box other objects take: what hides an object lies in its box. Pure functions of masks."""

import numpy as np
import numpy.typing as npt

from refloom.schemas.boxes import Boxes

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Corners = tuple[int, int, int, int]

_SIDE_PX = 128
"""Boxes are looked at in at most this many rows and columns, evenly spread."""
_NESTED = 0.5
"""Share of the smaller of two masks inside the other from which one is a part of the other and hides nothing."""


def covered(wanted: list[int], inner: list[Corners], shapes: list[Pixels | None]) -> Floats:
    """Share of the box of some objects that masks of others cover, outside their own masks.

    Parts of an object and what it is a part of do not count: more than half of the smaller mask lies in the larger.

    Args:
        wanted: indices of W of the N objects of one picture.
        inner: (N,) their boxes, whole pixels.
        shapes: (N,) masks inside these boxes, 0 and 1; None for an object without one.

    Returns:
        (W,) 0 to 1; NaN for an object without a mask, and where no other object of the picture has one.
    """
    masked = [index for index, shape in enumerate(shapes) if shape is not None]
    edges = np.array(inner, np.int64).reshape(-1, 4)
    out = np.full(len(wanted), np.nan)
    if len(masked) < 2:
        return out
    for place, index in enumerate(wanted):
        own = shapes[index]
        if own is not None:
            near = [other for other in masked if other != index and _meet(edges[index], edges[other])]
            out[place] = _cover(own, inner[index], [(shapes[other], inner[other]) for other in near])
    return out


def _meet(one: Boxes, other: Boxes) -> bool:
    return bool((np.minimum(one[2:], other[2:]) > np.maximum(one[:2], other[:2])).all())


def _cover(own: Pixels, box: Corners, others: list[tuple[Pixels | None, Corners]]) -> float:
    x0, y0, x1, y1 = box
    step = -(-max(x1 - x0, y1 - y0) // _SIDE_PX)
    seen = own[::step, ::step]
    taken = np.zeros_like(seen)
    size = np.count_nonzero(seen)
    for shape, (left, top, right, bottom) in others:
        assert shape is not None
        # the part of the other's mask on the grid of this box, and where on that grid it lies
        rows, columns = _grid(y0, y1, top, bottom, step), _grid(x0, x1, left, right, step)
        part = shape[
            y0 + rows.start * step - top : bottom - top : step, x0 + columns.start * step - left : right - left : step
        ][: rows.stop - rows.start, : columns.stop - columns.start]
        shared = np.count_nonzero(part & seen[rows, columns])
        if shared <= _NESTED * min(size, np.count_nonzero(shape) / step**2):
            taken[rows, columns] |= part
    return float(np.count_nonzero(taken & (1 - seen)) / taken.size)


def _grid(start: int, stop: int, low: int, high: int, step: int) -> slice:
    """The places, among every `step`-th pixel from `start` to `stop`, that lie from `low` to `high`."""
    return slice(max(0, -(-(low - start) // step)), -(-(min(high, stop) - start) // step))
