"""The demo's road after the dataset: every command is one of the command line, and none is done twice."""

import json
from pathlib import Path

import pytest

from refloom import cli
from refloom.demo import demo
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Checkpoints
from refloom.training.run import checkpoint
from refloom.training.watch import validation

CASE = {
    "prompt": "a cup: red",
    "height": 64,
    "width": 48,
    "references": [{"phrase": "cup", "boxes": [[0.1, 0.2, 0.5, 1.0]], "images": ["cases/0-1.jpg"]}],
}


def finish(run: Path, steps: int, *, exported: bool = True) -> None:
    checkpoint.write(run, steps, lambda folder: (folder / "weights").touch(), Checkpoints())
    if exported:
        (run / checkpoint.ADAPTER).mkdir(exist_ok=True)
    (run / validation.FOLDER).mkdir(exist_ok=True)
    (run / validation.FOLDER / validation.CASES).write_text(json.dumps([CASE]))


def walk(out: Path, method: str) -> list[demo.Step]:
    """Go the road as if every command did its work."""
    seen = []
    for step in demo.road(out, method):
        seen.append(step)
        options = cli.build_parser().parse_args(step.words)
        if step.words[0] == "generate":
            Path(options.out).mkdir(parents=True, exist_ok=True)
            (Path(options.out) / "settings.json").touch()
        elif options.preview:
            Path(options.preview).touch()
        elif not step.done:
            recipe = book.load(options.config, options.overrides)
            finish(Path(options.out), recipe.steps)
    return seen


@pytest.mark.parametrize("method", demo.ROADS)
def test_every_command_is_one_and_the_second_time_all_are_done(method: str, tmp_path: Path) -> None:
    out = tmp_path / "a demo"
    first = walk(out, method)
    assert not any(step.done for step in first)
    trained = [step.words for step in first if step.words[0] == "train" and "--out" in step.words]
    bases, (half, whole) = trained[:-2], trained[-2:]
    assert all(one[2].startswith("base/tiny/") for one in bases)
    assert "--resume" not in half
    assert whole[-2:] == ["--resume", "latest"]
    options = cli.build_parser().parse_args(whole)
    recipe = book.load(options.config, options.overrides)
    assert recipe.method == method
    assert recipe.data.sources[0].url == str(out / "dataset")
    assert recipe.validation.due(recipe.steps // 2, last=False)
    made = cli.build_parser().parse_args(first[-1].words)
    assert made.prompts == ["a cup: red"]
    assert made.references == [f"{out}/runs/{method}/validation/cases/0-1.jpg:cup:0.1,0.2,0.5,1"]
    assert all(step.done for step in walk(out, method))


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    base = tmp_path / "base" / "sdxl"
    finish(base, 10)
    step = next(demo.road(tmp_path, "mip"))
    assert (step.done, step.words[-2:]) == (False, ["--resume", "latest"])
    finish(base, 500)
    assert next(demo.road(tmp_path, "mip")).done
    (base / checkpoint.ADAPTER).rmdir()
    assert not next(demo.road(tmp_path, "mip")).done, "its last weights were not exported"
