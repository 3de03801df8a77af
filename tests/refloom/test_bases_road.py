"""The bases of toys from nothing: commands that a user could type, of which a second run finds all done."""

from pathlib import Path

import pytest

from refloom import cli
from refloom.curation.config import Curation
from refloom.demo import bases, demo
from refloom.schemas import settings
from refloom.training.recipes import book
from refloom.training.run import checkpoint


def go(out: Path) -> list[demo.Step]:
    """Go the road as if every run did its work."""
    seen = []
    for step in bases.road(out, 40):
        seen.append(step)
        options = cli.build_parser().parse_args(step.words)
        if step.words[0] == "train" and not step.done:
            (Path(options.out) / checkpoint.ADAPTER).mkdir(parents=True)
            steps = book.load(options.config, options.overrides).steps
            checkpoint.write(Path(options.out), steps, lambda folder: None, book.load(options.config).checkpoints)
    return seen


def test_every_command_parses_and_the_second_time_all_runs_are_done(tmp_path: Path) -> None:
    first = go(tmp_path)
    assert [step.words[0] for step in first] == [
        "sample-data",
        "ingest",
        "ingest",
        "curate",
        *["train"] * len(bases.RUNS),
    ]
    trains = [step for step in go(tmp_path) if step.words[0] == "train"]
    assert all(step.done for step in trains)
    assert not any(step.done for step in first)


def test_pipelines_are_trained_on_the_vae_that_was_trained_before(tmp_path: Path) -> None:
    recipes = {}
    for step in go(tmp_path):
        if step.words[0] == "train":
            options = cli.build_parser().parse_args(step.words)
            recipes[options.config] = book.load(options.config, options.overrides)
    vae = recipes["base/toys/vae"]
    for name in ("base/toys/sdxl", "base/toys/sd"):
        one = recipes[name]
        assert one.models.vae == str(tmp_path / "vae" / checkpoint.ADAPTER / "vae")
        assert (one.adapter.vae_channels, one.adapter.vae_layers) == (vae.adapter.vae_channels, vae.adapter.vae_layers)
        assert one.data.sources[0].kinds == ("video",)


def test_settings_of_curation_are_there() -> None:
    values: dict[str, object] = {}
    settings.apply(values, list(bases.CURATION))
    built = settings.build(Curation, values)
    assert built.split.validation_share == 0
    assert built.split.follow_source


def test_how_long_it_takes_is_said_of_every_run() -> None:
    assert {bases.recipe_name(run) for run in bases.RUNS} == {
        name for name in book.names() if name.startswith("base/toys/")
    }
    for run in bases.RUNS:
        recipe = book.load(bases.recipe_name(run))
        assert bases.hours(run) * 3600 * run.rate == pytest.approx(recipe.steps * recipe.batch.samples)
