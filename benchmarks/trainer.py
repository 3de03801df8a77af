"""A step of the trainer against a bare forward, backward and optimiser step of the same modules; checkpoints' size."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import smallbase
from benchmarks.allocator import keep_memory
from benchmarks.data import folder
from benchmarks.table import Result
from refloom.training.data.loader import Loader
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, optimizer
from refloom.training.run import log as run_log
from refloom.training.run.frozen import load_frozen
from refloom.training.run.loop import train

_ASKED = 1.03
_ROWS = 32
_LINE = 3
"""Steps of a line of the log."""


def run(quick: bool) -> Result:
    """Wall time of a step of both, in turn, and bytes of a checkpoint; in a process of its own, for its allocator."""
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(_run, quick).result()


def _run(quick: bool) -> Result:
    rounds, steps = (1, 6) if quick else (5, 15)
    kept = keep_memory()
    root = folder() / "cache"
    models, samples = smallbase.models(root / "models"), smallbase.samples(root / f"samples-{_ROWS}", _ROWS)
    settings = (f"steps={steps}", f"log_every={_LINE}", "checkpoints.every=1000000", "data.threads=1", "trackers=[]")
    recipe = smallbase.recipe(models, samples, *settings)
    ratios, times = [], []
    for _ in range(rounds):
        with TemporaryDirectory() as place:
            adapter = train(recipe, Path(place) / "run")
            # the first line has warm-up in it
            ours = statistics.median(line["seconds_per_step"] for line in run_log.read(adapter.parent)[1:])
            saved, least = _sizes(adapter.parent, recipe)
        bare = _bare(recipe, steps)
        ratios.append(ours / bare)
        times.append((ours, bare))
    ratio = statistics.median(ratios)
    ours, bare = (statistics.median(column) for column in zip(*times, strict=True))
    table = [
        ["trainer, ms a step", f"{ours * 1e3:.0f}", f"{ratio:.3f}"],
        ["bare, ms a step", f"{bare * 1e3:.0f}", ""],
        ["checkpoint, MiB", f"{saved / 2**20:.1f}", f"{saved / least:.4f}"],
        ["trained tensors and two moments of each, MiB", f"{least / 2**20:.1f}", ""],
    ]
    return Result(
        "Trainer: IP-Adapter plus on an SDXL-shaped base",
        ("what", "value", "of the bare one"),
        table,
        f"Batches of {smallbase.BATCH} at {smallbase.SIDE} px, fp32, all cores; wall time, medians of {rounds} rounds "
        "in turn, models loaded anew in each"
        + (", in a process that keeps the memory it has" if kept else "")
        + ". The trainer loads, clips, guards, and writes its log and page every "
        f"{_LINE} steps; the bare loop has its batches in memory and does none of this.",
        [
            (f"{ratio:.3f} times the bare step, asked {_ASKED}", ratio <= _ASKED),
            (f"a checkpoint is {saved / least:.4f} of what is trained, asked 1.01", saved / least <= 1.01),
        ],
    )


def _bare(recipe: Recipe, steps: int) -> float:
    """Median seconds of a step without anything around it."""
    method, device = METHODS[recipe.method], torch.device("cpu")
    with Loader(recipe.data.sources, recipe.view, recipe.loading) as loader, ExitStack() as attached:
        batches = [next(loader).examples for _ in range(steps)]
        pipe, vision = load_frozen(recipe, device)
        adapter: Any = method.make(recipe, pipe)
        attached.callback(adapter.detach)
        adapter.image_encoder = vision
        adamw = optimizer.build(optimizer.tune(adapter, recipe.tuned), recipe.optimizer)
        loss_of, found = method.step(adapter, recipe), []
        for examples in batches:
            start = time.perf_counter()
            with ExitStack() as conditioned:
                loss_of(examples, conditioned).backward()
            adamw.step()
            adamw.zero_grad()
            found.append(time.perf_counter() - start)
    return statistics.median(found[_LINE:])


def _sizes(run_folder: Path, recipe: Recipe) -> tuple[int, int]:
    """Bytes of the last checkpoint, and of what is trained with AdamW's two moments."""
    saved = checkpoint.complete(run_folder)[-1].path
    files = [file for file in saved.rglob("*") if file.is_file() and file.stat().st_nlink == 1]
    named = optimizer.tune(METHODS[recipe.method].shapes(recipe), recipe.tuned)
    return sum(file.stat().st_size for file in files), 12 * sum(one.numel() for one in named.values())
