"""Where rows meet in a neighbour search: which are compared with which, in cells that can be done in any order.

Why no pair is missed. Let x live in cell A and y in cell B, so that the great sphere halfway between the centroids a
and b has x on one side and y on the other. Then angle(x, y) is at least the angle of x to it plus that of y, and if
angle(x, y) <= t, one of the two is at most t / 2: with `margin(x, B) = (x.a - x.b) / |a - b|`, the sine of that angle,
margin <= sin(t / 2) = sqrt((1 - cos t) / 2). So x visits every cell with a margin up to that; each pair then meets in
a cell that one of them lives in (the ClusterJoin of Das Sarma et al., PVLDB 2014, on the sphere).

Where vectors fill the sphere evenly the bound spares nothing. So a vector visits at most its `near_cells` nearest
cells; `Visits.cut` says how many wanted to visit more. Where it is 0 the search is exact, else recall was 1 at a bound
of 0.93 and, with 96 near cells, 0.99 at 0.65 (benchmarks/neighbours.py has more).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.curation.neighbours import cells

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

NEAR_CELLS = 32
SAMPLE_PER_CELL = 16
EXACT_BELOW = 20_000
"""Fewer rows are one cell: every pair is compared, which then costs less than fitting."""
MOST_CELLS = 32_768
_TABLE_CELLS = 4096
"""Up to so many, the distances between all centroids are held: 64 MiB."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One piece of work: `rows` are compared with each other and with `others`.

    Attributes:
        name: of the cell.
        rows: (R,) row numbers, rising.
        others: (O,) row numbers, rising, none of them in `rows`.
        inside: whether rows meet each other too, or the others only.
    """

    name: str
    rows: Indices
    others: Indices
    inside: bool = True

    @property
    def comparisons(self) -> int:
        """Inner products that it takes."""
        own = len(self.rows) * (len(self.rows) - 1) // 2 if self.inside else 0
        return own + len(self.rows) * len(self.others)


def cell_count(rows: int, near_cells: int = NEAR_CELLS) -> int:
    """Cells for N rows: sqrt(N near_cells), which balances comparing with centroids and with rows; a multiple of 8.

    No more than `MOST_CELLS`: one thread fits them, in time that grows with their square.
    """
    return min(MOST_CELLS, max(8, round(math.sqrt(rows * near_cells) / 8) * 8))


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Where N rows live, and the V visits that they make.

    Attributes:
        home: (N,) the cell of each row.
        guest: (V,) rows, rising.
        visited: (V,) the cell that each of them visits.
        cut: rows that wanted to visit more cells than they may.
    """

    home: Indices
    guest: Indices
    visited: Indices
    cut: int


def visits(
    vectors: Floats, centroids: Floats, *, lower: float, near_cells: int, widest: Floats | None = None
) -> Visits:
    """Homes and visits of rows, each by itself: parts of the rows give parts of the result.

    Args:
        vectors: (N, D) float32, unit length.
        centroids: (K, D), K at least 2.
        lower: smallest cosine of interest, below 1.
        near_cells: cells that a row visits at most besides its own.
        widest: of `widest_reach`, where it is known.
    """
    count = len(centroids)
    widest = widest_reach(centroids) if widest is None else widest
    table = _reach(centroids @ centroids.T) if count <= _TABLE_CELLS else None
    # rounding of inner products must not keep a row out of a cell
    bound = np.sqrt((1 - lower) / 2) + 1e-4
    homes, guests, visited = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    cut = 0
    start = 0
    for tile, kept in cells.tiles(vectors):
        near, dots = cells.nearest(tile, centroids, min(near_cells + 2, count))
        near, dots = near[:kept], dots[:kept]
        home = near[:, 0]
        reach = _reaches(centroids, near) if table is None else table[home[:, None], near]
        wanted = (dots[:, :1] - dots) / reach <= bound
        wanted[:, 0] = False
        if near_cells + 1 < count:
            # whatever lies beyond the last column is at least this far
            cut += int(((dots[:, 0] - dots[:, -1]) / widest[home] <= bound).sum())
            wanted[:, -1] = False
        row, place = np.nonzero(wanted)
        homes.append(home)
        guests.append(row + start)
        visited.append(near[row, place])
        start += kept
    return Visits(np.concatenate(homes), np.concatenate(guests), np.concatenate(visited), cut)


def widest_reach(centroids: Floats) -> Floats:
    """(K,) the distance of each centroid to the farthest other."""
    parts = [_reach(tile[:kept] @ centroids.T).max(axis=1) for tile, kept in cells.tiles(centroids)]
    return np.concatenate(parts)


def _reach(dots: Floats) -> Floats:
    reach: Floats = np.sqrt(np.maximum(2 - 2 * dots, 1e-12))
    return reach


def _reaches(centroids: Floats, near: Indices) -> Floats:
    """(R, C) distances between the first and all of the C cells near each of R rows."""
    own = centroids[near[:, 0]]
    return _reach(np.stack([(own * centroids[column]).sum(axis=1) for column in near.T], axis=1))
