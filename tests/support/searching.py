"""The neighbour search as the stages run it, over made vectors in memory, and all pairs by brute force."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from refloom.curation.config import Curation
from refloom.curation.neighbours import pairs
from refloom.curation.neighbours.cells import keys_of
from refloom.curation.neighbours.pairs import Pairs
from refloom.curation.neighbours.passes import Search, begin, found, marks_of, search_passes
from refloom.curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS
from refloom.curation.neighbours.search import Bounds
from refloom.curation.passes.passes import StageContext
from refloom.curation.passes.sizes import TaskSizes
from refloom.curation.stages import BY_NAME, CurationRun
from refloom.ingest.engine.watch import Watch
from refloom.schemas.dataset import Dataset
from refloom.schemas.storage import Folder

Named = dict[tuple[str, str], np.float32]
"""The smaller name, the larger name: their cosine."""
Words = Sequence[str | None]

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search has found, and what it took.

    Attributes:
        pairs: by name.
        cut: rows that wanted to visit more cells than they may; 0 means that no pair is missed.
        products: inner products of rows with rows and with centroids.
        chunks: as `Chunk.to_json` gives them.
    """

    pairs: Named
    cut: int
    products: int
    chunks: list[list[int]]


def searched(
    ids: Sequence[str],
    vectors: np.ndarray,
    bounds: Bounds,
    *,
    near_cells: int = NEAR_CELLS,
    exact_below: int = EXACT_BELOW,
    places: Words | None = None,
    kinds: Words | None = None,
    edges: Sequence[int] = (),
    grain: TaskSizes | None = None,
    backwards: bool = False,
) -> Found:
    """Put vectors through the passes of a search.

    Args:
        ids, vectors, bounds, near_cells, exact_below: see `neighbours.search` and `passes.search`.
        places, kinds: rows of one place, or of two kinds, are no pair.
        edges: rows before which a new part begins.
        grain: how finely the tasks are cut.
        backwards: the tasks of a pass are done last to first.
    """
    search = Search("things", bounds, near_cells, exact_below)
    url = f"memory://searched-{next(_numbers)}"
    try:
        context = StageContext(
            Dataset(url, create=True),
            CurationRun(replace(Curation(), grain=grain or TaskSizes()), {}, ()),
            BY_NAME["dedup"],
            "state",
        )
        parts = [slice(*ends) for ends in itertools.pairwise([0, *sorted(edges), len(ids)])]
        for number, part in enumerate(parts):
            own = [None if words is None else list(words[part]) for words in (places, kinds)]
            marks = marks_of(list(ids[part]), *own, part=number)
            half = len(marks) // 2  # in two batches, as row groups come
            batches = [(marks[some], vectors[part][some]) for some in (slice(0, half), slice(half, None))]
            context.scratch.sign("begin", f"part-{number}", dict(begin(context.scratch, "things", number, batches)))
        for one_pass in search_passes(lambda context: [search], ("begin",)):
            planned_tasks = one_pass.plan(context)
            for order in reversed(planned_tasks) if backwards else planned_tasks:
                result = one_pass.work(context, order.args, Watch(order.name, timeout_s=0))
                assert result is not None
                context.scratch.sign(one_pass.name, order.name, result)
        return _read(context, search, [ids[part] for part in parts])
    finally:
        Folder(url).remove_tree("")


def _read(context: StageContext, search: Search, parts: list[Sequence[str]]) -> Found:
    rows, near, _ = found(context, search)
    names = [parts[row >> 32][row & 0xFFFFFFFF] for row in rows.tolist()]
    placed = context.scratch.results("place").values()
    cells = [result["cells"] for result in context.scratch.results("centroids").values()]
    chunks = [chunk for result in context.scratch.results("chunk").values() for chunk in result["chunks"]]
    with_centroids = sum(result["rows"] for result in placed) * (cells[0] if cells and cells[0] > 1 else 0)
    named: Named = {}
    for i, j, cosine in zip(near.i.tolist(), near.j.tolist(), near.cosine, strict=True):
        named[min(names[i], names[j]), max(names[i], names[j])] = cosine
    assert len(named) == len(near), "a pair twice"
    return Found(
        pairs=named,
        cut=sum(result["cut"] for result in placed),
        products=with_centroids + sum(chunk[-1] for chunk in chunks),
        chunks=chunks,
    )


def all_pairs(
    ids: Sequence[str],
    vectors: np.ndarray,
    bounds: Bounds,
    *,
    places: Words | None = None,
    kinds: Words | None = None,
) -> Named:
    """All pairs between the bounds by brute force; with `most`, those among the strongest of either of their rows."""
    every: Named = {}
    near = pairs_between(vectors, bounds.lower, bounds.upper)
    for i, j, cosine in zip(near.i.tolist(), near.j.tolist(), near.cosine, strict=True):
        apart = places is None or places[i] is None or places[i] != places[j]
        alike = kinds is None or None in (kinds[i], kinds[j]) or kinds[i] == kinds[j]
        if apart and alike:
            every[min(ids[i], ids[j]), max(ids[i], ids[j])] = cosine
    if bounds.most is None:
        return every
    key = dict(zip(ids, keys_of(ids).tolist(), strict=True))
    ranked: dict[str, list[tuple[float, int, tuple[str, str]]]] = {}
    for (one, other), cosine in every.items():
        ranked.setdefault(one, []).append((-cosine, key[other], (one, other)))
        ranked.setdefault(other, []).append((-cosine, key[one], (one, other)))
    kept = {pair for own in ranked.values() for _, _, pair in sorted(own)[: bounds.most]}
    return {pair: every[pair] for pair in kept}


def pairs_between(vectors: np.ndarray, lower: float, upper: float | None = None) -> Pairs:
    """All pairs of rows with a cosine between two bounds."""
    i, j = np.triu_indices(len(vectors), 1)
    cosine = pairs.cosines(vectors, i, j)
    every = Pairs(i, j, cosine)
    return every.where((cosine >= np.float32(lower)) & (cosine < np.float32(2 if upper is None else upper)))
