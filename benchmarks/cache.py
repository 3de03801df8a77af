"""A training step with features that were kept against one that computes them, in one run; and their size on disk."""

from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from benchmarks import smallbase
from benchmarks.data import folder
from benchmarks.table import Result, paired
from refloom.ingest.engine.pool import Pool
from refloom.training.data.loader import Loader
from refloom.training.features import cache as features
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import optimizer
from refloom.training.run.frozen import ENCODERS, load_frozen
from refloom.training.run.preflight import features as known_features

_VARIANTS = 2
_ASKED = 1.2


def run(quick: bool) -> Result:
    """CPU time of a step with and without, their ratio, and bytes a sample."""
    rows, rounds = (16, 2) if quick else (64, 8)
    root = folder() / "cache"
    models, samples = smallbase.models(root / "models"), smallbase.samples(root / f"samples-{rows}", rows)
    kept = root / f"features-{rows}"
    summary, counts = features.cache(
        smallbase.recipe(models, samples), samples, str(kept), features.Options(variants=_VARIANTS), Pool(workers=0)
    )
    with ExitStack() as stack:
        plain = stack.enter_context(_steps(smallbase.recipe(models, samples, f"data.variants={_VARIANTS}")))
        cached = stack.enter_context(_steps(smallbase.recipe(models, samples, kept=kept)))
        without, with_, ratio = paired(plain, cached, rounds)
    size = sum(summary.units.values()) / counts.kept
    table = [
        ["computed in every step", f"{without:.2f}", f"{1 / without:.2f}", ""],
        ["kept", f"{with_:.2f}", f"{1 / with_:.2f}", f"{size / 2**10:.0f}"],
    ]
    return Result(
        "Feature cache: IP-Adapter plus on an SDXL-shaped base",
        ("features", "CPU s a step", "steps a CPU second", "KiB a sample on disk"),
        table,
        f"Batches of {smallbase.BATCH} at {smallbase.SIDE} px, fp32, one thread for models, forward, backward and "
        f"optimiser, loading included; CPU seconds, medians of {rounds} rounds in turn. UNet of widths "
        f"{smallbase.WIDTHS}, text states of SDXL's widths, a VAE and an image encoder of a few layers, random "
        f"weights; what a real base gains depends on its UNet and encoders. {_VARIANTS} variants of {counts.kept} "
        "samples of one picture and one caption, the same for all: texts are kept once a row group.",
        [(f"{ratio:.2f} times the steps, asked {_ASKED}", ratio >= _ASKED)],
    )


@contextmanager
def _steps(recipe: Recipe) -> Any:
    """One optimiser step of a recipe, as the loop does it, as a function."""
    stores = known_features(recipe)
    method, device = METHODS[recipe.method], torch.device("cpu")
    with Loader(recipe.data.sources, recipe.view, recipe.loading, stores=stores) as loader:
        pipe, vision = load_frozen(recipe, device, without=ENCODERS if stores else ())
        adapter: Any = method.make(recipe, pipe)
        adapter.image_encoder = vision
        adamw = optimizer.build(optimizer.tune(adapter, recipe.tuned), recipe.optimizer)
        loss_of = method.step(adapter, recipe)

        def step() -> None:
            with ExitStack() as conditioned:
                loss_of(next(loader).examples, conditioned).backward()
            adamw.step()
            adamw.zero_grad()

        yield step
        adapter.detach()
