"""A run that goes on: from an earlier checkpoint, with other settings, after damage; told plainly, or refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from traindata import recipe, write_models, write_videos

from refloom import cli
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.schemas.errors import JobStopped, Refused
from refloom.training.methods import method
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint
from refloom.training.run import ema as average
from refloom.training.run import log as run_log
from refloom.training.run.loop import train
from refloom.training.watch import page

MORE = ("log_every=1", "checkpoints.every=1", "checkpoints.keep_last=4", "optimizer.lr=1e-2")
NAMED = "step-{:09d}"


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    folder = tmp_path_factory.mktemp("work")
    write_models(folder)
    url = write_videos(folder / "samples")
    return lambda *more: recipe("ip_adapter", folder, url, *MORE, *more)


@pytest.fixture(scope="module")
def ended(make: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that was gone back from, to step 2, and ended with the third."""
    run = tmp_path_factory.mktemp("ended") / "run"
    train(make("steps=4", "trackers=[tensorboard]"), run)
    told: list[str] = []
    again = make("steps=3", "trackers=[tensorboard]", "optimizer.lr=2e-2", "ema=0.5", "models.base=" + same_base(make))
    train(again, run, resume=str(run / "checkpoints" / NAMED.format(2)), note=told.append)
    (run / "told.json").write_text(json.dumps(told))
    return run


def same_base(make: Callable[..., Recipe]) -> str:
    """The same base by another path."""
    return make().models.base + "/"


def steps(run: Path) -> list[int]:
    return [one.step for one in checkpoint.complete(run)]


def test_everything_in_the_folder_is_of_the_branch_that_was_gone_back_to(ended: Path) -> None:
    assert steps(ended) == [1, 2, 3]
    assert [line["step"] for line in run_log.read(ended)] == [1, 2, 3]
    assert steps(ended / "aside" / "1") == [3, 4]
    assert [line["step"] for line in run_log.read(ended / "aside" / "1")] == [1, 2, 3, 4]
    ours, theirs = (weights.read_folder(at / "adapter") for at in (ended, ended / "aside" / "1"))
    kept = tensorfile.read_safetensors(ended / "checkpoints" / NAMED.format(3) / checkpoint.AVERAGE)
    assert all(bool((ours[name] == value).all()) for name, value in kept.items())
    assert any(bool((ours[name] != theirs[name]).any()) for name in kept)
    assert checkpoint.find(ended, "latest").step == 3


def test_the_tracker_shows_the_new_branch_alone(ended: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {file.parent for file in ended.rglob("events.out.tfevents.*") if file.parent.name == "tracker"}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("lr")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("lr")] == pytest.approx([1e-2, 1e-2, 2e-2])


def test_settings_that_have_changed_are_said_plainly(ended: Path) -> None:
    told = json.loads((ended / "told.json").read_text())
    assert any("ema is switched on at step 2: the average begins with the weights of that step" in one for one in told)
    (others,) = [one for one in told if "other settings" in one]
    assert "optimizer.lr: 0.01 -> 0.02" in others
    assert "models.base" in others
    assert "steps" not in others.partition("settings: ")[2]  # of a constant rate it changes nothing
    assert any("what came after step 2 is set aside" in one for one in told)


def test_an_average_that_begins_late_forgets_where_it_began_as_one_that_begins_at_first(ended: Path) -> None:
    state = checkpoint.complete(ended)[-1].state()
    assert state["average_since"] == 2
    import torch

    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    late = average.MovingAverage({"weight": module.weight}, 0.99, since=1000)
    module.weight.data.fill_(1.0)
    late.update(1000)
    assert late.averages["weight"].item() == pytest.approx(0.9)


REFUSED = {
    "steps=2": r"step-000000003 is of step 3, beyond steps=2: set steps to 3 or more",
    "steps=5 seed=1": "begun with other settings",
    "steps=5 tuned=[layers]": "optimiser is of other parameters",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_is_refused_has_changed_nothing(setting: str, ended: Path, make: Callable[..., Recipe]) -> None:
    def listed() -> dict[str, bytes]:
        files = [file for file in ended.rglob("*") if file.is_file() and "runs" not in file.parts]
        return {str(file): file.read_bytes() for file in files}

    before = listed()
    with pytest.raises(Refused, match=REFUSED[setting]):
        train(make("ema=0.5", *setting.split()), ended, resume="latest")
    with pytest.raises(Refused, match=REFUSED[setting].replace("3", "[13]").replace("beyond", ".*")):
        train(make("ema=0.5", *setting.split()), ended, resume=str(ended / "checkpoints" / NAMED.format(3)))
    assert listed() == before


def test_another_runs_checkpoint_is_not_mixed_into_a_run(
    ended: Path, make: Callable[..., Recipe], tmp_path: Path
) -> None:
    train(make("steps=1"), tmp_path / "other")
    with pytest.raises(Refused, match=r"holds another run than .*: give another --out"):
        train(make("steps=4"), ended, resume=str(tmp_path / "other" / "checkpoints" / NAMED.format(1)))


def test_damage_is_passed_over_by_the_command_which_names_it(
    make: Callable[..., Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from refloom.training.recipes import book

    run, file = tmp_path / "run", tmp_path / "mine.yaml"
    file.write_text(book.dump(make("steps=2", "ema=0.5")))
    words = ["train", "--config", str(file), "--out", str(run)]
    assert cli.main(words) == 0
    last = run / "checkpoints" / NAMED.format(2) / checkpoint.OPTIMIZER
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    capsys.readouterr()
    assert cli.main([*words, "--resume", "latest", "--set", "ema=null"]) == 0
    said = capsys.readouterr().err
    assert "note: " in said
    assert f"{NAMED.format(2)} is damaged and passed over: {checkpoint.OPTIMIZER} has other bytes" in said
    assert "ema is switched off at step 1" in said
    assert checkpoint.find(run, "latest").step == 2
    assert steps(run / "aside" / "1") == [2]


@pytest.mark.parametrize("what", ["log", "page"])
def test_a_full_disk_under_the_log_or_the_page_stops_with_the_remedy(
    what: str, make: Callable[..., Recipe], tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def fill(line: dict[str, object]) -> None:
        place = run / {"log": run_log.FILE, "page": f"{page.FILE}.partial"}[what]
        place.unlink(missing_ok=True)
        place.symlink_to("/dev/full")

    with pytest.raises(JobStopped, match=r"no space left for .*--resume latest") as stopped:
        train(make("steps=3"), run, show=fill)
    assert stopped.value.exit_code == 3
    (run / run_log.FILE).unlink()
    (run / f"{page.FILE}.partial").unlink(missing_ok=True)
    if checkpoint.complete(run):
        train(make("steps=3"), run, resume="latest")
        assert steps(run)[-1] == 3


def test_a_log_is_strict_json_and_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    (tmp_path / run_log.FILE).write_text(
        '{"step": 1, "loss": NaN, "gradient_norm": Infinity}\n'
    )  # of an earlier refloom
    log = run_log.RunLog(tmp_path, 5, lambda line: None)
    log.add({"step": 2, "loss": float("nan"), "gradient_norm": 1.0, "lost": []})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    lines = [json.loads(line, parse_constant=refuse) for line in (tmp_path / run_log.FILE).read_text().splitlines()]
    assert lines[0] == {
        "step": 1,
        "loss": None,
        "gradient_norm": None,
        "not_finite": {"loss": "nan", "gradient_norm": "inf"},
    }
    assert lines[1]["loss"] is None
    assert lines[1]["not_finite"] == {"loss": "nan"}
    read = run_log.read(tmp_path)
    assert [str(line["loss"]) for line in read] == ["nan", "nan"]
    assert read[0]["gradient_norm"] == float("inf")
    assert all("not_finite" not in line for line in read)


STORES = ("s3://bucket/run", "memory://run", "hf://me/run", "simplecache::s3://bucket/run")


@pytest.mark.parametrize("url", STORES)
def test_a_run_on_a_store_is_refused_at_once_with_the_remedy(
    url: str,
    make: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(method, "load_frozen", lambda *_: pytest.fail("a model was loaded"))
    assert cli.main(["train", "--config", "debug/ip_adapter", "--out", url]) == 2
    said = capsys.readouterr().err
    assert f"a run of training is written to a local disk, not to {url}" in said
    assert "copy it to the store" in said
    with pytest.raises(Refused, match="written to a local disk"):
        train(make(), Path(url))  # whose slashes are drawn together
    assert os.listdir(tmp_path) == []


OUTPUTS = {
    "train --config debug/ip_adapter --preview": "the page of a preview",
    "convert ADAPTER": "a converted adapter",
    "demo": "the demo",
    "demo --method none": "the demo",
}


@pytest.mark.parametrize("words", OUTPUTS)
def test_what_writes_to_a_local_disk_refuses_stores(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main([*words.split(), "s3://bucket/out"])
    except SystemExit as wrong:
        code = int(str(wrong.code))
    said = capsys.readouterr().err
    assert code == 2
    assert f"{OUTPUTS[words]} is written to a local disk" in said, said
    assert os.listdir(tmp_path) == []
