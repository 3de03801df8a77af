"""Every debug recipe, trained once for twenty steps: its losses are those that were written down, and what it tunes
changes and nothing else does.

What changes the losses changes what is trained: data, draws, noise, conditions, gradients or the optimiser. When that
is wanted, write them anew from the folder of the repository, and say why in the commit:

    PYTHONPATH=.:tests/support python tests/training/test_golden_losses.py
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from places import GOLDEN
from traindata import RECIPES, recipe, write_models, write_videos

from refloom.inference.adapters import kinds
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, optimizer
from refloom.training.run import log as run_log
from refloom.training.run.loop import train
from refloom.training.watch import page

FILE = GOLDEN / "losses.json"
RELATIVE = 1e-3
"""Other processors and libraries round otherwise; a step that is trained differently moves losses by more."""

STEPS = 20
FASTER = ("optimizer.lr=1e-2", "optimizer.clip=null")
"""So that the losses of twenty steps tell apart what is trained."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A recipe that was trained, its run, and the log of it."""

    recipe: Recipe
    run: Path
    lines: list[dict[str, Any]]

    @property
    def losses(self) -> list[float]:
        return [round(line["loss"], 6) for line in self.lines]


def trained_of(name: str, models: Path, url: str, run: Path) -> Trained:
    often = ("log_every=1", "checkpoints.every=10", "batch.micro=4")
    once = ("gradient_checkpointing=false",) if name == "easyref/3-multi" else ()  # easyref/2-single computes twice
    one = recipe(name, models, url, f"steps={STEPS}", *often, *once, *FASTER)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(page, "write", lambda _: None)  # for every line of the log it would take as long as a step
        train(one, run)
    return Trained(one, run, run_log.read(run))


@pytest.fixture(scope="module", params=RECIPES)
def trained(
    request: pytest.FixtureRequest, models: Path, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    return trained_of(request.param, models, url, tmp_path_factory.mktemp("golden") / "run")


def test_losses_are_those_that_were_written_down(trained: Trained, request: pytest.FixtureRequest) -> None:
    written = json.loads(FILE.read_text("utf-8"))[request.node.callspec.params["trained"]]
    assert len(trained.losses) == STEPS
    assert trained.losses == pytest.approx(written, rel=RELATIVE)


def test_what_is_tuned_changes_and_nothing_else_does(trained: Trained) -> None:
    folder = trained.run / checkpoint.ADAPTER
    adapter = kinds.from_pretrained(folder)  # with no conversion
    assert adapter.kind == trained.recipe.method
    tuned = set(optimizer.tune(adapter, trained.recipe.tuned))
    saved = [one.path / checkpoint.ADAPTER for one in checkpoint.complete(trained.run)]
    first, last = (weights.read_folder(one) for one in saved)
    moved = {key for key in last if not torch.equal(first[key], last[key])}
    assert moved - tuned == set()
    assert tuned - moved == set()
    assert {path.name for path in folder.glob("*.safetensors")} == {weights.WEIGHTS_FILE}  # one file to give away
    assert (
        set(tensorfile.read_safetensors(saved[-1] / weights.WEIGHTS_FILE)) == tuned
    )  # checkpoints cost what is trained
    assert kinds.from_pretrained(saved[-1]).kind == trained.recipe.method
    assert [line["step"] for line in trained.lines] == list(range(1, STEPS + 1))
    assert all(0 < line["loss"] < 4 for line in trained.lines)
    assert all(line["gradient_norm"] > 0 for line in trained.lines)


def write() -> None:
    """All of them, from this working tree."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_models(root / "models")
        url = write_videos(root / "samples")
        found = {name: trained_of(name, root / "models", url, root / name).losses for name in RECIPES}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    write()
