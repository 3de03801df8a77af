"""Every method trains on cross samples alone, the same twice, and is compared on those that are held out."""

import math
from pathlib import Path

import pytest
from loading import write_samples
from traindata import cross, recipe

from refloom.training.run import log as run_log
from refloom.training.run.loop import train
from refloom.training.watch.heldout import compare

RECIPES = ("easyref/1-alignment", "easyref/3-multi", "ezigen", "ip_adapter", "mip/sdxl", "ms_diffusion")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("cross") / "data", 2, 4, cross, held_out=1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_cross_samples_is_taken(name: str, models: Path, url: str, tmp_path: Path) -> None:
    more = ("data.kinds=[cross]", "view.captions=any", "steps=1", "log_every=1", "checkpoints.every=1")
    train(recipe(name, models, url, *more), tmp_path / "run")
    (line,) = run_log.read(tmp_path / "run")
    assert math.isfinite(line["loss"])
    assert line["gradient_norm"] > 0


def test_two_runs_are_equal_and_their_adapter_is_compared_on_held_out_cross_samples(
    models: Path, url: str, tmp_path: Path
) -> None:
    one = recipe("ms_diffusion", models, url, "data.kinds=[cross]", "steps=1", "log_every=1", "optimizer.lr=1e-2")
    adapters = [train(one, tmp_path / name) for name in ("one", "two")]
    logs = [[line["loss"] for line in run_log.read(tmp_path / name)] for name in ("one", "two")]
    assert logs[0] == logs[1]
    files = [sorted(folder.glob("*.safetensors"))[0].read_bytes() for folder in map(Path, adapters)]
    assert files[0] == files[1]
    found = compare(one, str(adapters[0]), timesteps=(900,))
    assert found.samples == 4
    assert found.difference != 0
