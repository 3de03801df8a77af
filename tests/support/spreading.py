"""What each of two processes does in tests of training with several.

accelerate launch spreading.py STRATEGY WORK OUT
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from traindata import CUP, RECIPES, recipe

from refloom.schemas.errors import JobStopped, Refused
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, flops
from refloom.training.run.loop import train
from refloom.training.run.objective import Diffusion
from refloom.training.run.step import TrainingStep

SETTINGS = (
    "steps=4",
    "batch.micro=1",
    "log_every=1",
    "checkpoints.every=2",
    "objective.noise_offset=0.05",
    "optimizer.schedule=cosine",
    "optimizer.lr=1e-3",
    "optimizer.lrs={layers.down_blocks: 5e-4}",
    "optimizer.clip=0.02",
    "view.dropout={text: 0.2, image: 0.2, both: 0.2}",
)
"""Some weights frozen, two rates, gradients that are clipped, all that is drawn."""
AVERAGE = "ema=0.9"
EVERY = (
    "steps=2",
    "batch.samples=4",
    "batch.micro=1",
    "log_every=1",
    "checkpoints.every=2",
    "trackers=[]",
    "view.dropout={text: 0.3, image: 0.4, both: 0.2}",
)
"""Many references are left out, so that a process may not need all that is trained."""


PICTURES = (
    "steps=4",
    "batch.micro=2",
    "checkpoints.every=4",
    "optimizer.lr=1e-2",
    "validation.every=2",
    "validation.samples=2",
    "validation.steps=2",
    "validation.guidance_scale=3",
    "validation.side_px=64",
)


def spread_recipe(work: Path, *more: str) -> Recipe:
    return recipe("mip/sdxl", work / "models", str(work / "samples"), *SETTINGS, *more)


def averaged(strategy: str) -> tuple[str, ...]:
    """ZeRO-3 keeps no average."""
    return () if strategy == "zero3" else (AVERAGE,)


def pictured(work: Path, run: Path) -> None:
    """A run with three cases to make pictures of."""
    prompt = {"prompt": "a cup", "references": [{"images": [str(work / "models" / CUP)], "phrase": "cup"}]}
    prompts = f"validation.prompts={json.dumps([prompt])}"
    train(recipe("mip/sdxl", work / "models", str(work / "samples"), *PICTURES, prompts), run)


def every(work: Path, out: Path) -> None:
    """A few steps of every recipe."""
    with uncounted():
        for name in RECIPES:
            train(recipe(name, work / "models", str(work / "samples"), *EVERY), out / name)


@contextmanager
def uncounted() -> Iterator[None]:
    """Without counting operations, which takes a pass more and sees the first examples once more."""
    counted = flops.of_micro_batch
    flops.of_micro_batch = lambda *_: 0
    try:
        yield
    finally:
        flops.of_micro_batch = counted


class Seen:
    """What the training step was given, by every process: of each forward pass, samples and a sum of their pixels."""

    def __init__(self) -> None:
        self.examples: list[list[Any]] = []
        self._forward = TrainingStep.forward

    def __enter__(self) -> "Seen":
        def forward(step: TrainingStep, examples: Any, conditioned: Any) -> torch.Tensor:
            self.examples += [[one.position, one.sample_id, int(one.target.sum()), str(one.drops)] for one in examples]
            return self._forward(step, examples, conditioned)

        TrainingStep.forward = forward  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        TrainingStep.forward = self._forward  # type: ignore[method-assign]


def straight(work: Path, run: Path, more: tuple[str, ...]) -> None:
    """Four steps, and what they saw."""
    with uncounted(), Seen() as seen:
        train(spread_recipe(work, *more), run)
    file = run / f"seen-{PartialState().process_index}.json"
    file.write_text(json.dumps(seen.examples), "utf-8")


def without_finite_losses(work: Path, run: Path, more: tuple[str, ...]) -> None:
    """A step as it should be, then losses that are not numbers in one of the processes."""
    found, calls = Diffusion.weights, []  # one to count operations, then two in each step

    def sometimes(self: Diffusion, timesteps: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        bad = len(calls) > 3 and PartialState().process_index == 1
        return found(self, timesteps) * (float("nan") if bad else 1.0)

    Diffusion.weights = sometimes  # type: ignore[method-assign]
    try:
        train(spread_recipe(work, *more, "steps=9", "max_bad_steps=2", "checkpoints.every=1"), run)
    except JobStopped as stopped:
        (run / f"stopped-{PartialState().process_index}").write_text(str(stopped), "utf-8")
    finally:
        Diffusion.weights = found  # type: ignore[method-assign]


def whole(strategy: str, work: Path, out: Path) -> None:
    """A run, how it goes on, and how it ends when it must; then every recipe, and pictures while a run goes on."""
    more = averaged(strategy)
    straight(work, out / "straight", more)
    half = checkpoint.complete(out / "straight")[0].path
    train(spread_recipe(work, *more), out / "again", resume=str(half))
    train(spread_recipe(work, *more), out / "of-one", resume=str(checkpoint.complete(work / "alone")[0].path))
    without_finite_losses(work, out / "bad", more)
    try:
        train(spread_recipe(work, "batch.samples=3"), out / "uneven")
    except Refused as refused:
        (out / f"refused-{PartialState().process_index}").write_text(str(refused), "utf-8")
    every(work, out / "every")
    if strategy == "ddp":
        pictured(work, out / "pictured")


if __name__ == "__main__":
    whole(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
