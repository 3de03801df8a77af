"""The neighbour search: pairs of unit vectors whose cosine lies between two bounds, cell by cell in bounded memory.

Blocks are compared by matrix products, whose last bits depend on shapes and threads; so a block only proposes, with
some slack, and `pairs.cosines` decides. The same pairs and bits come out for any size of blocks, number of workers and
order of rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from curation.neighbours import pairs
from curation.neighbours.blocks import Blocks, numpy_blocks
from curation.neighbours.cells import keys_of, sample
from curation.neighbours.pairs import Floats, Indices, Keys, Pairs
from curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS, Cell, Plan, cell_count, fit, plan

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

    def take(self, order: Indices) -> "Codes":
        """The codes of rows in another order."""
        return Codes(
            apart=None if self.apart is None else np.asarray(self.apart, np.int64)[order],
            kinds=None if self.kinds is None else np.asarray(self.kinds, np.int64)[order],
        )

    def check(self, rows: int) -> None:
        """Refuse codes of another number of rows."""
        for name in ("apart", "kinds"):
            codes = getattr(self, name)
            if codes is not None and len(codes) != rows:
                raise ValueError(f"{len(codes)} codes in `{name}` for {rows} rows: one for each")


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
        cell: from `plan`.
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


def merge(parts: Iterable[Pairs], bounds: Bounds, keys: Keys | None = None) -> Pairs:
    """What cells found, as one: by i and j, each pair once; keys as for `pairs_of_cell`."""
    whole = pairs.union(parts)
    return whole if bounds.most is None else whole.strongest(bounds.most, keys)


Mapper = Callable[[Callable[[Cell], Pairs], list[Cell]], Iterable[Pairs]]
"""Maps a function over cells, in any order, anywhere."""


def _here(work: Callable[[Cell], Pairs], pieces: list[Cell]) -> Iterable[Pairs]:
    return map(work, pieces)


def plan_for(
    ids: Sequence[str],
    vectors: Floats,
    lower: float,
    *,
    near_cells: int = NEAR_CELLS,
    cells: int | None = None,
    exact_below: int = EXACT_BELOW,
) -> Plan:
    """The plan for some vectors: fit and place; arguments as for `cosine_pairs`. To be done once, by one thread."""
    few = len(vectors) < (exact_below if cells is None else 2)
    centroids = None if few else fit(ids, vectors, cells or cell_count(len(vectors), near_cells))
    return plan(vectors, centroids, lower=lower, near_cells=near_cells)


def cosine_pairs(
    ids: Sequence[str],
    vectors: Floats,
    lower: float,
    upper: float | None = None,
    *,
    codes: Codes = _FREE,
    near_cells: int = NEAR_CELLS,
    cells: int | None = None,
    most: int | None = None,
    block_mb: float = 64.0,
    exact_below: int = EXACT_BELOW,
    mapper: Mapper = _here,
    blocks: Blocks | None = None,
) -> Pairs:
    """All pairs with lower <= cosine < upper.

    Exact for fewer than `exact_below` rows, and wherever no row wants to visit more than `near_cells` cells; otherwise
    recall was 1 at a bound of 0.93 and, with 96 near cells, 0.99 at 0.65 (benchmarks/neighbours.py has more).

    Args:
        ids: N distinct names.
        vectors: (N, D) float32, unit length.
        lower, upper, most, block_mb: see `Bounds`.
        codes: of rows that can be no pair.
        near_cells: cells that a row visits at most besides its own.
        cells: how many; by default 1 below `exact_below` rows, else about sqrt(N near_cells).
        exact_below: see `cells`.
        mapper: runs the cells; here, one after another, by default.
        blocks: a faster matrix product, e.g. of faiss or a GPU; it only proposes pairs, so the result is the same.

    Returns:
        Row numbers into `ids`, i < j, by i and j.

    Raises:
        ValueError: ids repeat, lengths differ, vectors are not unit length, or bounds make no sense.
    """
    bounds = Bounds(lower=lower, upper=upper, most=most, block_mb=block_mb)
    if len(ids) != len(vectors):
        raise ValueError(f"{len(ids)} ids, {len(vectors)} vectors: one vector for each id")
    codes.check(len(ids))
    check_unit(vectors)
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    names = [ids[place] for place in order]
    if any(one == other for one, other in pairwise(names)):
        raise ValueError("ids repeat: every vector needs a name of its own")
    is_sorted = bool((order[1:] > order[:-1]).all())
    rows = vectors if is_sorted else vectors[order]
    own = codes.take(order)
    made = plan_for(names, rows, lower, near_cells=near_cells, cells=cells, exact_below=exact_below)
    keys = None if most is None else keys_of(names)

    def work(cell: Cell) -> Pairs:
        return pairs_of_cell(rows, cell, bounds, own, blocks, keys)

    found = merge(mapper(work, made.cells), bounds, keys)
    if is_sorted:
        return found
    i, j = order[found.i], order[found.j]
    return Pairs(np.minimum(i, j), np.maximum(i, j), found.cosine).sorted()


def recall(ids: Sequence[str], vectors: Floats, found: Pairs, bounds: Bounds, queries: int = 256) -> tuple[int, int]:
    """Measure a search: pairs of a sample of rows that it found, and those that brute force finds.

    Args:
        ids, vectors: as searched.
        found: its result, without `most` and `codes`.
        bounds: its bounds.
        queries: rows to compare with all others: those whose ids hash lowest.
    """
    chosen = np.sort(sample(ids, queries, seed=1))
    asked = np.zeros(len(vectors), bool)
    asked[chosen] = True
    others = np.flatnonzero(~asked)
    true = pairs_of_cell(vectors, Cell("queries", chosen, others), bounds)
    return int((asked[found.i] | asked[found.j]).sum()), len(true)
