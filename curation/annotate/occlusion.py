"""How much of an object's box other objects take: what hides an object lies in its box. Pure functions of masks."""

import cv2
import numpy as np
import numpy.typing as npt

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
    masked = np.array([index for index, shape in enumerate(shapes) if shape is not None], np.int64)
    out = np.full(len(wanted), np.nan)
    if len(masked) < 2:
        return out
    edges = np.array(inner, np.int64)
    ends, starts = edges[masked, 2:], edges[masked, :2]
    for place, index in enumerate(wanted):
        own = shapes[index]
        if own is not None:
            meets = (np.minimum(ends, edges[index, 2:]) > np.maximum(starts, edges[index, :2])).all(axis=1)
            near = [other for other in masked[meets].tolist() if other != index]
            out[place] = _cover(own, inner[index], [(shapes[other], inner[other]) for other in near])
    return out


def _cover(own: Pixels, box: Corners, others: list[tuple[Pixels | None, Corners]]) -> float:
    x0, y0, x1, y1 = box
    step = -(-max(x1 - x0, y1 - y0) // _SIDE_PX)
    seen = np.ascontiguousarray(own[::step, ::step])
    taken = np.zeros_like(seen)
    size = cv2.countNonZero(seen) if others else 0
    for shape, (left, top, right, bottom) in others:
        assert shape is not None
        # the part of the other's mask on the grid of this box, and where on that grid it lies
        rows, columns = _grid(y0, y1, top, bottom, step), _grid(x0, x1, left, right, step)
        first_row, first_column = y0 + rows.start * step - top, x0 + columns.start * step - left
        part = shape[first_row::step, first_column::step][: rows.stop - rows.start, : columns.stop - columns.start]
        if not part.size:
            continue
        part = np.ascontiguousarray(part)
        shared = cv2.countNonZero(cv2.bitwise_and(part, np.ascontiguousarray(seen[rows, columns])))
        if shared <= _NESTED * min(size, cv2.countNonZero(shape) / step**2):
            taken[rows, columns] |= part
    return cv2.countNonZero(cv2.subtract(taken, seen)) / taken.size


def _grid(start: int, stop: int, low: int, high: int, step: int) -> slice:
    """The places, among every `step`-th pixel from `start` to `stop`, that lie from `low` to `high`."""
    return slice(max(0, -(-(low - start) // step)), -(-(min(high, stop) - start) // step))
