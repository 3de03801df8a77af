"""The neighbour search as the stages run it: waves of tasks on a pool of workers."""

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
from refloom.curation.neighbours.passes import Search, begin, found, marks_of, search_waves
from refloom.curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS
from refloom.curation.neighbours.search import Bounds
from refloom.curation.passes.passes import Desk, Order, Wave
from refloom.curation.passes.scratch import Receipt
from refloom.curation.passes.sizes import Grain
from refloom.curation.stages import BY_NAME, Recipe
from refloom.ingest.engine.pool import Crew, Pool, Task, connect
from refloom.ingest.engine.watch import Watch
from refloom.schemas.dataset import Dataset

_PART_ROWS = 50_000
_SEARCH = Search("vectors", Bounds(lower=0.93, most=MOST_COPIES), NEAR_CELLS, EXACT_BELOW)
_GRAIN = Grain(slab_mb=100.0, chunk_mb=100.0, chunk_gflop=10.0)
_QUICK = Grain(slab_mb=10.0, chunk_mb=10.0, chunk_gflop=0.5)
"""Finer than the default, so that both sizes come in several slabs and chunks."""
_PEAKS = "peaks"
_SHARED = ("place", "compare")
"""The waves of many tasks; centroids, chunk and settle are one."""


def run(quick: bool) -> Result:
    """Seconds, peak memory of the largest task of each wave, and recall, for two sizes and one and two workers."""
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
        "Neighbour search in waves, 512 numbers a vector, through the pool",
        ("N", "workers", "cells", "chunks", "s", *(f"{name} s / MiB" for name in _NAMES), "pairs", "recall"),
        rows,
        "Wall time from the first task that is handed out to the last that is done, wave by wave, and the peak "
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
    """What a search took and found; peaks in bytes, by wave."""

    seconds: dict[str, float]
    peaks: dict[str, int]
    cells: int
    chunks: int
    pairs: Pairs


def _searched(ids: list[str], vectors: np.ndarray, workers: int, grain: Grain) -> _Done:
    url = str(folder() / "waves")
    shutil.rmtree(url, ignore_errors=True)
    Dataset(url, create=True)
    desk = _desk(url, grain)
    for part, start in enumerate(range(0, len(ids), _PART_ROWS)):
        some = slice(start, start + _PART_ROWS)
        receipt = begin(desk.scratch, _SEARCH.name, part, [(marks_of(ids[some], part=part), vectors[some])])
        desk.scratch.sign("begin", f"part-{part:06d}", dict(receipt))
    seconds = {}
    with Crew(_Job(url, grain), Pool(workers=workers)) as crew:
        crew.run("start", [Task(f"{number}") for number in range(workers)], notes=desk.dataset.new_run())
        for wave in _WAVES:
            tasks = [Task(order.name, (wave.name, order.args), order.weight) for order in wave.plan(desk)]
            tasks.sort(key=lambda task: -task.weight)
            began = time.monotonic()
            crew.run(wave.name, tasks, notes=desk.dataset.new_run())
            seconds[wave.name] = time.monotonic() - began
    peaks = {
        wave.name: max(receipt["bytes"] for receipt in desk.scratch.receipts(f"{_PEAKS}-{wave.name}").values())
        for wave in _WAVES
    }
    rows, pairs, _ = found(desk, _SEARCH)
    done = _Done(
        seconds,
        peaks,
        desk.scratch.receipt("centroids", _SEARCH.name)["cells"],
        len(desk.scratch.receipt("chunk", _SEARCH.name)["chunks"]),
        by_row(rows, pairs, _PART_ROWS),
    )
    shutil.rmtree(url)
    return done


def _settle(desk: Desk, args: dict[str, Any], watch: Watch) -> Receipt:
    return {"pairs": len(found(desk, _SEARCH)[1])}


_WAVES = (
    *search_waves(lambda desk: [_SEARCH], ("begin",)),
    Wave("settle", "pair", lambda desk: [Order("all")], _settle),
)
_NAMES = tuple(wave.name for wave in _WAVES)


def _desk(url: str, grain: Grain) -> Desk:
    return Desk(Dataset(url), Recipe(replace(Curation(), grain=grain), {}, ()), BY_NAME["dedup"], "state")


@dataclass(frozen=True, slots=True)
class _Job:
    url: str
    grain: Grain

    def start(self) -> "_Worker":
        return _Worker(_desk(self.url, self.grain))


class _Worker:
    """Does tasks of waves, and notes the peak of each."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def run(self, task: Task, watch: Watch) -> None:
        if task.payload is None:
            return
        name, args = task.payload
        wave = next(wave for wave in _WAVES if wave.name == name)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of this task, not of those before it
        receipt = wave.work(self._desk, args, watch)
        if receipt is not None:
            self._desk.scratch.sign(name, task.unit, receipt)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        self._desk.scratch.sign(f"{_PEAKS}-{name}", task.unit, {"bytes": int(peak[1]) * 1024 if peak else 0})
