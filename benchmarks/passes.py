"""The neighbour search as the stages run it: passes of tasks on a pool of workers."""

import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import folder
from benchmarks.neighbours import by_row, clustered, recall
from benchmarks.table import Result
from refloom.curation.config import Curation
from refloom.curation.dedup.objects import MOST_COPIES
from refloom.curation.neighbours.pairs import Pairs
from refloom.curation.neighbours.passes import Search, begin, found, marks_of, search_passes
from refloom.curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS
from refloom.curation.neighbours.search import Bounds
from refloom.curation.passes.passes import Pass, PlannedTask, StageContext
from refloom.curation.passes.scratch import TaskResult
from refloom.curation.passes.sizes import TaskSizes
from refloom.curation.stages import BY_NAME, CurationRun
from refloom.ingest.engine.pool import Pool, Task, WorkerPool, connect
from refloom.ingest.engine.watch import Watch
from refloom.schemas.dataset import Dataset

_PART_ROWS = 50_000
_SEARCH = Search("vectors", Bounds(lower=0.93, most=MOST_COPIES), NEAR_CELLS, EXACT_BELOW)
_GRAIN = TaskSizes(slab_mb=100.0, chunk_mb=100.0, chunk_gflop=10.0)
_QUICK = TaskSizes(slab_mb=10.0, chunk_mb=10.0, chunk_gflop=0.5)
"""Finer than the default, so that both sizes come in several slabs and chunks."""
_PEAKS = "peaks"
_SHARED = ("place", "compare")
"""The passes of many tasks; centroids, chunk and settle are one."""


def run(quick: bool) -> Result:
    """Seconds, peak memory of the largest task of each pass, and recall, for two sizes and one and two workers."""
    sizes, grain = ((20_000, 40_000), _QUICK) if quick else ((200_000, 1_000_000), _GRAIN)
    connect(Pool(workers=2))  # stays up between runs, so that only the work is timed
    rows, seconds, peaks, shares, same = [], {}, {}, [], True
    for size in sizes:
        vectors = clustered(size)
        ids = [f"{number:09d}" for number in range(size)]
        pairs = []
        for workers in (1, 2):
            done = _searched(ids, vectors, workers, grain)
            seconds[size, workers] = sum(done.seconds[name] for name in _SHARED)
            peaks[size] = max(done.peaks[name] for name in _SHARED)
            hit, true = recall(ids, vectors, done.pairs, Bounds(lower=_SEARCH.bounds.lower))
            shares.append(hit / max(1, true))
            pairs.append(done.pairs)
            rows.append(
                [
                    f"{size:,}",
                    f"{workers}",
                    f"{done.cells:,}",
                    f"{done.chunks:,}",
                    f"{sum(done.seconds.values()):.1f}",
                    *(f"{done.seconds[name]:.1f} / {done.peaks[name] / 2**20:.0f}" for name in _NAMES),
                    f"{len(done.pairs):,}",
                    f"{shares[-1]:.4f}",
                ]
            )
        same &= all(np.array_equal(getattr(pairs[0], name), getattr(pairs[1], name)) for name in ("i", "j", "cosine"))
    small, large = sizes
    growth = (peaks[large] - peaks[small]) / (4 * vectors.shape[1] * (large - small))
    gain = seconds[large, 1] / seconds[large, 2]
    return Result(
        "Neighbour search in passes, 512 numbers a vector, through the pool",
        ("N", "workers", "cells", "chunks", "s", *(f"{name} s / MiB" for name in _NAMES), "pairs", "recall"),
        rows,
        "Wall time from the first task that is handed out to the last that is done, pass by pass, and the peak "
        "resident set of the largest task of each, interpreter and libraries included; the start of Ray is not "
        f"counted. Clustered vectors, near-copies (cosine {_SEARCH.bounds.lower}), slabs of {grain.slab_mb:.0f} MB, "
        f"chunks of {grain.chunk_mb:.0f} MB. Settle: all pairs as one.",
        [
            (f"recall {min(shares):.4f}, asked 0.99", min(shares) >= 0.99),
            ("one and two workers find the same pairs and cosines", same),
            (f"place and compare: two workers {gain:.2f} times one, asked 1.6", gain >= 1.6),
            (f"place and compare: a task grows by {growth:.3f} bytes a byte of vectors, asked < 0.05", growth < 0.05),
        ],
    )


@dataclass(frozen=True, slots=True)
class _Done:
    """What a search took and found; peaks in bytes, by pass."""

    seconds: dict[str, float]
    peaks: dict[str, int]
    cells: int
    chunks: int
    pairs: Pairs


def _searched(ids: list[str], vectors: np.ndarray, workers: int, grain: TaskSizes) -> _Done:
    url = str(folder() / "waves")
    shutil.rmtree(url, ignore_errors=True)
    Dataset(url, create=True)
    context = _desk(url, grain)
    for part, start in enumerate(range(0, len(ids), _PART_ROWS)):
        some = slice(start, start + _PART_ROWS)
        result = begin(context.scratch, _SEARCH.name, part, [(marks_of(ids[some], part=part), vectors[some])])
        context.scratch.sign("begin", f"part-{part:06d}", dict(result))
    seconds = {}
    with WorkerPool(_Job(url, grain), Pool(workers=workers)) as pool_of_workers:
        pool_of_workers.run("start", [Task(f"{number}") for number in range(workers)], notes=context.dataset.new_run())
        for one_pass in _WAVES:
            tasks = [Task(order.name, (one_pass.name, order.args), order.weight) for order in one_pass.plan(context)]
            tasks.sort(key=lambda task: -task.weight)
            began = time.monotonic()
            pool_of_workers.run(one_pass.name, tasks, notes=context.dataset.new_run())
            seconds[one_pass.name] = time.monotonic() - began
    peaks = {
        one_pass.name: max(result["bytes"] for result in context.scratch.results(f"{_PEAKS}-{one_pass.name}").values())
        for one_pass in _WAVES
    }
    rows, pairs, _ = found(context, _SEARCH)
    done = _Done(
        seconds,
        peaks,
        context.scratch.result("centroids", _SEARCH.name)["cells"],
        len(context.scratch.result("chunk", _SEARCH.name)["chunks"]),
        by_row(rows, pairs, _PART_ROWS),
    )
    shutil.rmtree(url)
    return done


def _settle(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    return {"pairs": len(found(context, _SEARCH)[1])}


_WAVES = (
    *search_passes(lambda context: [_SEARCH], ("begin",)),
    Pass("settle", "pair", lambda context: [PlannedTask("all")], _settle),
)
_NAMES = tuple(one_pass.name for one_pass in _WAVES)


def _desk(url: str, grain: TaskSizes) -> StageContext:
    return StageContext(Dataset(url), CurationRun(replace(Curation(), grain=grain), {}, ()), BY_NAME["dedup"], "state")


@dataclass(frozen=True, slots=True)
class _Job:
    url: str
    grain: TaskSizes

    def start(self) -> "_Worker":
        return _Worker(_desk(self.url, self.grain))


class _Worker:
    """Does tasks of passes, and notes the peak of each."""

    def __init__(self, context: StageContext) -> None:
        self._desk = context

    def run(self, task: Task, watch: Watch) -> None:
        if task.payload is None:
            return
        name, args = task.payload
        one_pass = next(one_pass for one_pass in _WAVES if one_pass.name == name)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of this task, not of those before it
        result = one_pass.work(self._desk, args, watch)
        if result is not None:
            self._desk.scratch.sign(name, task.unit, result)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        self._desk.scratch.sign(f"{_PEAKS}-{name}", task.unit, {"bytes": int(peak[1]) * 1024 if peak else 0})
