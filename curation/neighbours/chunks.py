"""Chunks: runs of cells that one task compares, out of vectors that lie in slabs.

A slab holds its rows in the order of their home cells, so the residents of a run of cells are one range of each slab.
Those who visit them from outside are read block by block and compared with the residents, who stay in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.neighbours.blocks import Blocks
from refloom.curation.neighbours.pairs import Floats, Indices, Keys, Pairs
from refloom.curation.neighbours.plan import Cell
from refloom.curation.neighbours.search import Bounds, Codes, pairs_of_cell
from refloom.curation.passes.scratch import Scratch

MARK = np.dtype([("row", "<i8"), ("key", "<u8"), ("apart", "<i8"), ("kind", "<i8")])
"""A row besides its vector: its number over all parts, the hash of its id, and its codes (see `Codes`)."""

FOUND = np.dtype([("i", "<i8"), ("j", "<i8"), ("cosine", "<f4"), ("key_i", "<u8"), ("key_j", "<u8")])
"""A pair: the numbers of its rows over all parts, their cosine, and the hashes of their ids."""

_MOST_CHUNKS = 4096
_THIN_ABOVE = 1 << 20

Table = npt.NDArray[Any]
"""Structured rows."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Cells from `first` to before `last`; of one cell too large for a task, part `part` of `parts` of its residents.

    Attributes:
        products: inner products that it takes.
    """

    first: int
    last: int
    part: int
    parts: int
    products: int

    def to_json(self) -> list[int]:
        """As results hold it; the products come last."""
        return [self.first, self.last, self.part, self.parts, self.products]

    @classmethod
    def from_json(cls, value: list[int]) -> "Chunk":
        """The inverse of `to_json`."""
        return cls(*value)


def chunks_of(residents: Indices, guests: Indices, *, most_rows: int, least_products: int) -> list[Chunk]:
    """Cut K cells into chunks of about the same work, none with too many residents to hold.

    Args:
        residents, guests: (K,) rows that live in and that visit each cell.
        most_rows: residents of a chunk.
        least_products: work below which nothing is cut.
    """
    work = residents * (residents - 1) // 2 + residents * guests
    aim = max(least_products, int(work.sum()) // _MOST_CHUNKS)
    chunks: list[Chunk] = []
    first, rows, products = 0, 0, 0

    def close(last: int) -> None:
        if products:
            chunks.append(Chunk(first, last, 0, 1, products))

    for cell, (count, own) in enumerate(zip(residents.tolist(), work.tolist(), strict=True)):
        if rows and (rows + count > most_rows or products + own > aim):
            close(cell)
            first, rows, products = cell, 0, 0
        if own and (count > most_rows or (own > 2 * aim and count > 1)):
            parts = max(-(-count // most_rows), min(count, -(-own // aim)))
            chunks += [Chunk(cell, cell + 1, part, parts, max(1, own // parts)) for part in range(parts)]
            first, rows, products = cell + 1, 0, 0
        else:
            rows, products = rows + count, products + own
    close(len(residents))
    return chunks


class Slab:
    """The files of one slab; see `search`."""

    def __init__(self, scratch: Scratch, search: str, number: int, width: int) -> None:
        """Nothing is read yet."""
        folder = f"{search}/placed/{number:06d}"
        self.vectors = scratch.array(f"{folder}/vectors.bin", np.float32, width)
        self.marks = scratch.array(f"{folder}/marks.bin", MARK)
        self.starts = scratch.array(f"{folder}/starts.bin", np.int64)
        self.guests = scratch.array(f"{folder}/guests.bin", np.int64)
        self.guest_starts = scratch.array(f"{folder}/guest_starts.bin", np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Guests:
    """V visits from outside, by slab and place: in which slab the guest lies, where in it, and whom it visits."""

    slab: Indices
    place: Indices
    cell: Indices


def compare(
    slabs: Sequence[Slab],
    chunk: Chunk,
    bounds: Bounds,
    *,
    width: int,
    guest_rows: int,
    blocks: Blocks | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Table:
    """The pairs of a chunk, as `FOUND`.

    Args:
        slabs: all of the search.
        chunk: of `chunks_of`.
        bounds: what is looked for.
        width: numbers in a vector.
        guest_rows: guests held at once.
        blocks: what multiplies blocks.
        advance: told of inner products that are done.
    """
    ranges = _ranges(slabs, chunk)
    held = sum(stop - start for start, stop, _ in ranges)
    base = np.cumsum([0, *(stop - start for start, stop, _ in ranges)])
    within, outside = _visits(slabs, chunk, ranges, base)
    room = min(guest_rows, len(outside.place))
    vectors, marks = np.empty((held + room, width), np.float32), np.zeros(held + room, MARK)
    home = np.empty(held, np.int64)
    for number, (slab, (start, stop, cells)) in enumerate(zip(slabs, ranges, strict=True)):
        here = slice(base[number], base[number + 1])
        vectors[here], marks[here], home[here] = slab.vectors.read(start, stop), slab.marks.read(start, stop), cells
    residents = _by_cell(home, np.arange(held))
    found: list[Table] = []
    count = 0

    def meet(cell: int, others: Indices, inside: bool) -> None:
        nonlocal found, count
        rows = residents.get(cell)
        if rows is None:
            return
        piece = Cell(str(cell), rows, others, inside)
        codes = Codes(apart=marks["apart"], kinds=marks["kind"])
        pairs = pairs_of_cell(vectors, piece, bounds, codes, blocks, marks["key"])
        found.append(_named(pairs, marks))
        count += len(pairs)
        if bounds.most is not None and count > max(_THIN_ABOVE, 4 * bounds.most * (held + room)):
            found = [thin(np.concatenate(found), bounds)]
            count = len(found[0])
        advance(piece.comparisons)

    for cell in residents:
        meet(cell, within.get(cell, np.zeros(0, np.int64)), True)
    for block in _blocks(outside, room):
        for cell, others in _read(slabs, block, vectors, marks, held).items():
            meet(cell, others, False)
    return thin(np.concatenate([np.zeros(0, FOUND), *found]), bounds)


def _ranges(slabs: Sequence[Slab], chunk: Chunk) -> list[tuple[int, int, Indices]]:
    """The chunk's residents in each slab: where they begin and end, and the cell of each."""
    offsets = [slab.starts.read(chunk.first, chunk.last + 1) for slab in slabs]
    counts = [int(starts[-1] - starts[0]) for starts in offsets]
    share = -(-sum(counts) // chunk.parts)
    low, high = chunk.part * share, (chunk.part + 1) * share
    out, before = [], 0
    for starts, count in zip(offsets, counts, strict=True):
        cells = np.repeat(np.arange(chunk.first, chunk.last), np.diff(starts))
        start, stop = min(max(low - before, 0), count), min(max(high - before, 0), count)
        out.append((int(starts[0]) + start, int(starts[0]) + stop, cells[start:stop]))
        before += count
    return out


def _visits(
    slabs: Sequence[Slab], chunk: Chunk, ranges: list[tuple[int, int, Indices]], base: Indices
) -> tuple[dict[int, Indices], _Guests]:
    """Who visits the chunk's cells: of its own residents, by cell, and from outside.

    Of a cell in parts, the residents of later parts are guests of the earlier ones.
    """
    own_rows, own_cells = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    parts: list[tuple[Indices, Indices, Indices]] = []
    for number, (slab, (start, stop, _)) in enumerate(zip(slabs, ranges, strict=True)):
        starts = slab.guest_starts.read(chunk.first, chunk.last + 1)
        places = slab.guests.read(int(starts[0]), int(starts[-1]))
        cells = np.repeat(np.arange(chunk.first, chunk.last), np.diff(starts))
        inside = (places >= start) & (places < stop)
        own_rows.append(places[inside] - start + base[number])
        own_cells.append(cells[inside])
        places, cells = places[~inside], cells[~inside]
        if chunk.parts > 1:
            _, end = slab.starts.read(chunk.first, chunk.first + 2).tolist()
            later = np.arange(stop, end)
            places = np.concatenate([places, later])
            cells = np.concatenate([cells, np.full(len(later), chunk.first)])
        parts.append((np.full(len(places), number), places, cells))
    slab_of, place, cell = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((cell, place, slab_of))
    outside = _Guests(slab_of[order], place[order], cell[order])
    return _by_cell(np.concatenate(own_cells), np.concatenate(own_rows)), outside


def _by_cell(cells: Indices, rows: Indices) -> dict[int, Indices]:
    """Rising rows of each cell."""
    if not len(cells):
        return {}
    order = np.lexsort((rows, cells))
    present, starts = np.unique(cells[order], return_index=True)
    return dict(zip(present.tolist(), np.split(rows[order], starts[1:]), strict=True))


def _blocks(guests: _Guests, most: int) -> Iterator[_Guests]:
    """Visits by blocks of at most `most` guests; all visits of a guest are in one."""
    new = np.ones(len(guests.place), bool)
    new[1:] = (guests.slab[1:] != guests.slab[:-1]) | (guests.place[1:] != guests.place[:-1])
    firsts = np.append(np.flatnonzero(new), len(new))
    for begin in range(0, len(firsts) - 1, max(1, most)):
        some = slice(firsts[begin], firsts[min(begin + most, len(firsts) - 1)])
        yield _Guests(guests.slab[some], guests.place[some], guests.cell[some])


def _read(slabs: Sequence[Slab], block: _Guests, vectors: Floats, marks: Table, held: int) -> dict[int, Indices]:
    """Read the guests of a block behind the residents; returns for each cell where its guests lie there."""
    rows = np.empty(len(block.place), np.int64)
    end = held
    for number in np.unique(block.slab).tolist():
        here = block.slab == number
        places, which = np.unique(block.place[here], return_inverse=True)
        rows[here] = end + which
        vectors[end : end + len(places)] = slabs[number].vectors.take(places)
        marks[end : end + len(places)] = slabs[number].marks.take(places)
        end += len(places)
    return _by_cell(block.cell, rows)


def _named(pairs: Pairs, marks: Table) -> Table:
    """Pairs of rows in memory as pairs of rows over all parts."""
    found = np.zeros(len(pairs), FOUND)
    one, other = marks[pairs.i], marks[pairs.j]
    found["i"], found["j"], found["cosine"] = one["row"], other["row"], pairs.cosine
    found["key_i"], found["key_j"] = one["key"], other["key"]
    return found


def numbered(found: Table, bounds: Bounds) -> tuple[Indices, Pairs]:
    """Pairs over all parts as pairs of the rows that are in any, each once, and thinned to the strongest.

    Returns:
        (T,) the rows by the hash of their ids, and the pairs numbered by them.
    """
    rows, _, pairs = _numbered(found, bounds)
    return rows, pairs


def thin(found: Table, bounds: Bounds) -> Table:
    """Each pair once, and of the pairs of a row only the strongest."""
    rows, keys, pairs = _numbered(found, bounds)
    out = np.zeros(len(pairs), FOUND)
    out["i"], out["j"], out["cosine"] = rows[pairs.i], rows[pairs.j], pairs.cosine
    out["key_i"], out["key_j"] = keys[pairs.i], keys[pairs.j]
    return out


def _numbered(found: Table, bounds: Bounds) -> tuple[Indices, Keys, Pairs]:
    rows = np.concatenate([found["i"], found["j"]])
    rows, first, places = np.unique(rows, return_index=True, return_inverse=True)
    keys = np.concatenate([found["key_i"], found["key_j"]])[first]
    order = np.argsort(keys, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    i, j = rank[places[: len(found)]], rank[places[len(found) :]]
    pairs = Pairs(np.minimum(i, j), np.maximum(i, j), found["cosine"]).sorted()
    return rows[order], keys[order], pairs if bounds.most is None else pairs.strongest(bounds.most)
