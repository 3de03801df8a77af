"""The neighbour search in four passes: centroids, places, chunks, cells.

    centroids   one task for each search: the vectors whose ids hash lowest, k-means, an order of the cells
    place       per slab of vectors: home and visited cells; rows written in the order of the cells, with offsets
    chunk       one task for each search: runs of cells of about the same work
    compare     per chunk: reads its residents and those who visit them out of all slabs, finds pairs

Whoever begins a search leaves `<search>/vectors/<part>.bin`, `<search>/marks/<part>.bin` and says in its result, under
the search's name, how many rows there are and how wide. Exact for fewer than `exact_below` rows, and wherever no row
wants to visit more than `near_cells` cells; see `neighbours.plan`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.neighbours import cells
from refloom.curation.neighbours.blocks import fastest_blocks
from refloom.curation.neighbours.cells import keys_of
from refloom.curation.neighbours.chunks import FOUND, MARK, Chunk, Slab, chunks_of, compare, numbered
from refloom.curation.neighbours.pairs import Floats, Indices, Pairs
from refloom.curation.neighbours.plan import SAMPLE_PER_CELL, cell_count, visits, widest_reach
from refloom.curation.neighbours.search import Bounds, check_unit, codes_of
from refloom.curation.passes.passes import Pass, PlannedTask, StageContext
from refloom.curation.passes.scratch import Scratch, TaskResult, part_name, row_number
from refloom.ingest.engine.watch import Watch
from refloom.schemas.errors import Refused


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for.

    Attributes:
        name: its folder.
        bounds: of the cosine.
        near_cells: cells that a row visits at most besides its own.
        exact_below: fewer rows are one cell; of more there are about sqrt(N near_cells).
    """

    name: str
    bounds: Bounds
    near_cells: int
    exact_below: int


def marks_of(
    names: list[str],
    apart: list[str] | None = None,
    kinds: list[str | None] | None = None,
    *,
    part: int,
    first: int = 0,
) -> npt.NDArray[Any]:
    """(N,) what is known of rows besides their vectors.

    Args:
        names: ids, whose hashes choose the sample and settle ties.
        apart: rows with the same word are no pair.
        kinds: rows with different words are no pair; None says nothing.
        part: the part that the rows are in.
        first: place of the first of them in it.
    """
    marks = np.zeros(len(names), MARK)
    marks["row"] = row_number(part, np.arange(first, first + len(names)))
    marks["key"] = keys_of(names)
    marks["apart"] = -1 if apart is None else codes_of(apart)
    marks["kind"] = -1 if kinds is None else codes_of(kinds)
    return marks


def begin(
    scratch: Scratch, search: str, part: int, batches: Iterable[tuple[npt.NDArray[Any], Floats]]
) -> dict[str, list[int]]:
    """Leave the vectors and marks of a part for a search; returns what the result says of it."""
    count, width = 0, 0
    with (
        scratch.rows(f"{search}/vectors/{part_name(part)}.bin") as write,
        scratch.rows(f"{search}/marks/{part_name(part)}.bin") as mark,
    ):
        for marks, vectors in batches:
            check_unit(vectors)
            if width not in (0, vectors.shape[1]):
                raise ValueError(f"{search}: vectors of {width} and of {vectors.shape[1]} numbers: embed all anew")
            width = vectors.shape[1]
            write(vectors)
            mark(marks)
            count += len(marks)
    return {search: [part, count, width]}


def search_passes(searches: Callable[[StageContext], list[Search]], begun: tuple[str, ...]) -> tuple[Pass, ...]:
    """The passes of some searches.

    Args:
        searches: of a stage.
        begun: the passes whose tasks have begun them.
    """

    def plan_centroids(context: StageContext) -> list[PlannedTask]:
        results = [result for one_pass in begun for result in context.scratch.results(one_pass).values()]
        planned_tasks = []
        for search in searches(context):
            parts = sorted(result[search.name] for result in results if result.get(search.name, (0, 0))[1])
            rows = sum(count for _, count, _ in parts)
            if rows < 2:
                continue
            if len({width for _, _, width in parts}) > 1:
                raise Refused(
                    f"{search.name} were embedded by models of different widths: do them again with --replace"
                )
            args = {"search": search.name, "parts": [part[:2] for part in parts], "width": parts[0][2]}
            planned_tasks.append(PlannedTask(search.name, args, rows))
        return planned_tasks

    def plan_place(context: StageContext) -> list[PlannedTask]:
        return [
            PlannedTask(f"{name}-{number:06d}", {"search": name, "number": number, "slab": slab}, slab[2] - slab[1])
            for name, result in context.scratch.results("centroids").items()
            for number, slab in enumerate(result["slabs"])
        ]

    def plan_chunk(context: StageContext) -> list[PlannedTask]:
        return [PlannedTask(name, {"search": name}) for name in sorted(context.scratch.done("centroids"))]

    def plan_compare(context: StageContext) -> list[PlannedTask]:
        return [
            PlannedTask(f"{name}-{number:06d}", {"search": name, "number": number}, max(1, chunk[-1]))
            for name, result in context.scratch.results("chunk").items()
            for number, chunk in enumerate(result["chunks"])
        ]

    def one(context: StageContext, name: str) -> Search:
        return next(search for search in searches(context) if search.name == name)

    def work_centroids(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
        return _centroids(context, one(context, args["search"]), args["parts"], args["width"])

    def work_place(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
        return _place(context.scratch, one(context, args["search"]), args["number"], args["slab"], watch)

    def work_chunk(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
        return _chunk(context, args["search"])

    def work_compare(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
        return _compare(context, one(context, args["search"]), args["number"], watch)

    return (
        Pass("centroids", "vector", plan_centroids, work_centroids),
        Pass("place", "vector", plan_place, work_place),
        Pass("chunk", "cell", plan_chunk, work_chunk),
        Pass("compare", "product", plan_compare, work_compare),
    )


def found(context: StageContext, search: Search) -> tuple[Indices, Pairs, int]:
    """What a search has found.

    Returns:
        (T,) the rows that are in any pair, the pairs numbered by them, and the width of their vectors.
    """
    scratch = context.scratch
    if search.name not in scratch.done("centroids"):
        return np.zeros(0, np.int64), numbered(np.zeros(0, FOUND), search.bounds)[1], 0
    width = scratch.result("centroids", search.name)["width"]
    parts = [
        scratch.array(f"{search.name}/pairs/{number:06d}.bin", FOUND).all()
        for number in range(len(scratch.result("chunk", search.name)["chunks"]))
    ]
    rows, pairs = numbered(np.concatenate([np.zeros(0, FOUND), *parts]), search.bounds)
    return rows, pairs, width


# -- the tasks ---------------------------------------------------------------------------------------------------


def _centroids(context: StageContext, search: Search, parts: list[list[int]], width: int) -> TaskResult:
    scratch, rows = context.scratch, sum(count for _, count in parts)
    count = 0 if rows < search.exact_below else cell_count(rows, search.near_cells)
    if count:
        wanted = _lowest(scratch, search, parts, SAMPLE_PER_CELL * count)
        vectors = scratch.vectors(f"{search.name}/vectors", wanted, width)
        centroids = cells.fit(vectors, count)
        slots = np.empty(len(centroids), np.int64)
        slots[cells.neighbourly(centroids)] = np.arange(len(centroids))
        scratch.write_array(f"{search.name}/centroids.bin", centroids)
        scratch.write_array(f"{search.name}/slots.bin", slots)
        scratch.write_array(f"{search.name}/reach.bin", widest_reach(centroids))
        count = len(centroids)
    step = max(1, int(context.config.grain.slab_mb * 1e6 / (4 * width)))
    slabs = [[part, start, min(start + step, held)] for part, held in parts for start in range(0, held, step)]
    return {"cells": max(1, count), "width": width, "slabs": slabs}


def _lowest(scratch: Scratch, search: Search, parts: list[list[int]], count: int) -> Indices:
    """The rows whose ids hash lowest, by hash; holds them and one part's."""
    best = np.zeros(0, MARK)
    for part, _ in parts:
        best = np.concatenate([best, scratch.array(f"{search.name}/marks/{part_name(part)}.bin", MARK).all()])
        best = best[cells.lowest(best["key"], count)]
    rows: Indices = best["row"]
    return rows


def _place(scratch: Scratch, search: Search, number: int, slab: list[int], watch: Watch) -> TaskResult:
    """Rows of a slab in the order of their home cells, and the places there of those who visit a cell."""
    centroids = scratch.result("centroids", search.name)
    count, width = centroids["cells"], centroids["width"]
    part, start, stop = slab
    vectors = scratch.array(f"{search.name}/vectors/{part_name(part)}.bin", np.float32, width).read(start, stop)
    marks = scratch.array(f"{search.name}/marks/{part_name(part)}.bin", MARK).read(start, stop)
    home, guest, visited, cut = np.zeros(stop - start, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    if count > 1:
        slots = scratch.array(f"{search.name}/slots.bin", np.int64).all()
        near = visits(
            vectors,
            scratch.array(f"{search.name}/centroids.bin", np.float32, width).all(),
            lower=search.bounds.lower,
            near_cells=search.near_cells,
            widest=scratch.array(f"{search.name}/reach.bin", np.float32).all(),
        )
        home, guest, visited, cut = slots[near.home], near.guest, slots[near.visited], near.cut
    order = np.argsort(home, kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    by_cell = np.lexsort((places[guest], visited))
    numbers = np.arange(count + 1)
    folder = f"{search.name}/placed/{number:06d}"
    with scratch.rows(f"{folder}/vectors.bin") as write:
        for first in range(0, len(order), _ROWS_AT_ONCE):
            write(vectors[order[first : first + _ROWS_AT_ONCE]])
    scratch.write_array(f"{folder}/marks.bin", marks[order])
    scratch.write_array(f"{folder}/starts.bin", np.searchsorted(home[order], numbers))
    scratch.write_array(f"{folder}/guests.bin", places[guest[by_cell]])
    scratch.write_array(f"{folder}/guest_starts.bin", np.searchsorted(visited[by_cell], numbers))
    watch.advance(len(order))
    return {"rows": len(order), "visits": len(guest), "cut": cut}


_ROWS_AT_ONCE = 8192


def _chunk(context: StageContext, name: str) -> TaskResult:
    scratch = context.scratch
    centroids = scratch.result("centroids", name)
    count, width = centroids["cells"], centroids["width"]
    residents, guests = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for number in range(len(centroids["slabs"])):
        slab = Slab(scratch, name, number, width)
        residents += np.diff(slab.starts.all())
        guests += np.diff(slab.guest_starts.all())
    grain = context.config.grain
    made = chunks_of(
        residents,
        guests,
        most_rows=max(2, int(grain.chunk_mb * 1e6 / (4 * width))),
        least_products=max(1, int(grain.chunk_gflop * 1e9 / (2 * width))),
    )
    return {"chunks": [chunk.to_json() for chunk in made]}


def _compare(context: StageContext, search: Search, number: int, watch: Watch) -> TaskResult:
    scratch = context.scratch
    centroids = scratch.result("centroids", search.name)
    width = centroids["width"]
    chunk = Chunk.from_json(scratch.result("chunk", search.name)["chunks"][number])
    slabs = [Slab(scratch, search.name, slab, width) for slab in range(len(centroids["slabs"]))]
    most_rows = max(1, int(context.config.grain.chunk_mb * 1e6 / (4 * width)))
    pairs = compare(
        slabs, chunk, search.bounds, width=width, guest_rows=most_rows, blocks=fastest_blocks(), advance=watch.advance
    )
    scratch.write_array(f"{search.name}/pairs/{number:06d}.bin", pairs)
    return {"pairs": len(pairs)}
