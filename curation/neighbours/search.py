"""Pairs of unit vectors whose cosine lies between two bounds, in one cell, in bounded memory; `passes.search` does all.

Blocks are compared by matrix products, whose last bits depend on shapes and threads; so a block only proposes, with
some slack, and `pairs.cosines` decides. The same pairs and bits come out for any size of blocks, number of workers and
order of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.curation.neighbours import pairs
from refloom.curation.neighbours.blocks import Blocks, numpy_blocks
from refloom.curation.neighbours.cells import keys_of
from refloom.curation.neighbours.pairs import Floats, Indices, Keys, Pairs
from refloom.curation.neighbours.plan import Cell

_UNIT_TOLERANCE = 1e-2
_ROWS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is looked for.

    Attributes:
        lower: smallest cosine, included.
        upper: cosine from which pairs are too alike, not included; null for none.
        most: a pair must be among this many strongest of at least one of its two rows; null for all. It bounds the
            pairs of N rows by N times this, where a common class would give N^2. Of equal cosines the one whose id
            hashes lower is stronger.
        block_mb: memory of a block of comparisons and of what is gathered for it, 10^6 bytes.
    """

    lower: float
    upper: float | None = None
    most: int | None = None
    block_mb: float = 64.0

    def __post_init__(self) -> None:
        if not -1 <= self.lower < 1:
            raise ValueError(f"lower is a cosine in [-1, 1), not {self.lower}")
        if self.upper is not None and self.upper <= self.lower:
            raise ValueError(f"upper ({self.upper}) must be more than lower ({self.lower})")
        if self.most is not None and self.most < 1:
            raise ValueError(f"most is 1 or more, not {self.most}")
        if self.block_mb <= 0:
            raise ValueError(f"block_mb is more than 0, not {self.block_mb}")

    def hold(self, cosine: Floats) -> npt.NDArray[np.bool_]:
        """Which of (P,) cosines lie between the bounds."""
        inside: npt.NDArray[np.bool_] = cosine >= np.float32(self.lower)
        return inside if self.upper is None else inside & (cosine < np.float32(self.upper))


def check_unit(vectors: Floats) -> None:
    """Refuse what is no (N, D) array of finite unit vectors, naming the first bad row."""
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors are (N, D) float32, not {vectors.shape} {vectors.dtype}")
    for start in range(0, len(vectors), 1 << 16):
        part = np.asarray(vectors[start : start + (1 << 16)])
        lengths = np.sqrt(np.einsum("nd,nd->n", part, part))
        bad = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
        if len(bad):
            raise ValueError(f"row {start + int(bad[0])} has length {lengths[bad[0]]:.4g}: vectors must be unit length")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codes:
    """Which rows can be no pair, whatever their cosine. Negative codes say nothing.

    Attributes:
        apart: (N,) rows with the same code are no pair: of one picture, one video.
        kinds: (N,) rows with different codes are no pair: of two classes.
    """

    apart: Indices | None = None
    kinds: Indices | None = None

    def allow(self, i: Indices, j: Indices) -> npt.NDArray[np.bool_]:
        """Which of P pairs can be pairs."""
        free = np.ones(len(i), bool)
        if self.apart is not None:
            free &= (self.apart[i] != self.apart[j]) | (self.apart[i] < 0)
        if self.kinds is not None:
            one, other = self.kinds[i], self.kinds[j]
            free &= (one == other) | (one < 0) | (other < 0)
        return free


_FREE = Codes()


def codes_of(words: Sequence[str | None]) -> Indices:
    """(N,) codes of words, -1 for None: hashes of 63 bits, so that parts of a whole agree without a common list."""
    named = [word for word in words if word is not None]
    codes = np.full(len(words), -1, np.int64)
    codes[[word is not None for word in words]] = (keys_of(named) >> np.uint64(1)).astype(np.int64)
    return codes


def pairs_of_cell(
    vectors: Floats,
    cell: Cell,
    bounds: Bounds,
    codes: Codes = _FREE,
    blocks: Blocks | None = None,
    keys: Keys | None = None,
) -> Pairs:
    """The pairs of one piece of work; a pure function of the rows' vectors, so that a pool of workers can map it.

    Args:
        vectors: (N, D) float32, unit length, in memory or memory-mapped: only the cell's rows are read.
        cell: whose rows meet.
        bounds: what is looked for.
        codes: of rows that can be no pair.
        blocks: what multiplies blocks; numpy by default.
        keys: (N,) that settle ties among the strongest; the rows' numbers by default.
    """
    multiply = blocks or numpy_blocks
    width = vectors.shape[1]
    # |rounding| <= D 2^-24 sum|x y| <= D 2^-24 for unit vectors, whatever the order of the sum; twice for comfort
    slack = 2 * width * 2.0**-24
    lower = bounds.lower - slack
    upper = np.inf if bounds.upper is None else bounds.upper + slack
    columns = max(_ROWS, int(bounds.block_mb * 1e6 / (4 * (_ROWS + width))))
    found: list[Pairs] = []
    held = 0
    others = np.concatenate([cell.rows, cell.others]) if cell.inside else cell.others
    for top in range(0, len(cell.rows), _ROWS):
        rows = cell.rows[top : top + _ROWS]
        left = np.ascontiguousarray(vectors[rows])
        for start in range(top if cell.inside else 0, len(others), columns):
            across = others[start : start + columns]
            near = multiply(left, np.ascontiguousarray(vectors[across]))
            hits = np.flatnonzero((near >= lower) & (near < upper)) if bounds.upper else np.flatnonzero(near >= lower)
            row, column = np.divmod(hits, len(across))
            if cell.inside:  # rows meet each other once: where the other comes later in the list
                later = column + start > row + top
                row, column = row[later], column[later]
            i, j = rows[row], across[column]
            free = codes.allow(i, j)
            i, j = i[free], j[free]
            cosine = pairs.cosines(vectors, i, j)
            part = Pairs(np.minimum(i, j), np.maximum(i, j), cosine).where(bounds.hold(cosine))
            found.append(part)
            held += len(part)
            if bounds.most is not None and held > 4 * bounds.most * len(others):
                found = [pairs.union(found).strongest(bounds.most, keys)]
                held = len(found[0])
    whole = pairs.union(found)
    return whole if bounds.most is None else whole.strongest(bounds.most, keys)
