"""The first twenty losses of every debug recipe are those that were written down.

What changes them changes what is trained: data, draws, noise, conditions, gradients or the optimiser. When that is
wanted, write them anew from the folder of the repository, and say why in the commit:

    PYTHONPATH=.:tests/support python tests/training/test_golden_losses.py
"""

import json
import tempfile
from pathlib import Path

import pytest
from places import GOLDEN
from traindata import RECIPES, recipe, write_models, write_videos

from training import journal
from training.loop import train

FILE = GOLDEN / "losses.json"
RELATIVE = 1e-3
"""Other processors and libraries round otherwise; a step that is trained differently moves losses by more."""

FASTER = ("optimizer.lr=1e-2", "optimizer.clip=null")
"""So that the losses of twenty steps tell apart what is trained."""


def losses(name: str, models: Path, url: str, run: Path) -> list[float]:
    train(recipe(name, models, url, "steps=20", "log_every=1", "checkpoints.every=20", *FASTER), run)
    return [round(line["loss"], 6) for line in journal.read(run)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_videos(tmp_path_factory.mktemp("data") / "samples")


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_those_that_were_written_down(name: str, models: Path, url: str, tmp_path: Path) -> None:
    found = losses(name, models, url, tmp_path / "run")
    assert len(found) == 20
    assert found == pytest.approx(json.loads(FILE.read_text("utf-8"))[name], rel=RELATIVE)


def write() -> None:
    """All of them, from this working tree."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_models(root / "models")
        url = write_videos(root / "samples")
        found = {name: losses(name, root / "models", url, root / name) for name in RECIPES}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    write()
