"""A run keeps what it was trained on: which dataset, which of its tags, and fingerprints of the samples."""

import json
import shutil
from pathlib import Path

import pytest
from commands import run
from traindata import recipe, settings

from refloom.schemas import copies
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.sharing.datasets.tag import tag
from refloom.training.api import train
from refloom.training.data.index import Index
from refloom.training.run import trainedon


def test_a_run_on_a_tag_says_which_and_its_fingerprints(models: Path, url: str, tmp_path: Path) -> None:
    data = shutil.copytree(url, tmp_path / "data")
    made = tag(data, "v1")
    sources = f"data.sources={json.dumps([{'url': str(data), 'tag': 'v1'}])}"
    one = recipe("ip_adapter", models, url, "steps=1", sources)
    train(one, tmp_path / "run")
    (found,) = trainedon.read(tmp_path / "run")
    assert found["step"] == 0
    assert found["sources"] == [
        {
            "dataset": str(data),
            "tag": "v1",
            "split": "train",
            "fingerprint": Index(str(data), tag="v1").fingerprint,
            "samples": made.tables["samples"]["fingerprint"],
        }
    ]
    assert ("training run", str(tmp_path / "run")) in {
        (one["kind"], one["place"]) for one in copies.noted(Folder(str(data)))
    }
    with pytest.raises(Refused, match="has no tag v2"):
        train(recipe("ip_adapter", models, url, "steps=1", sources.replace("v1", "v2")), tmp_path / "other")


def test_features_of_a_tag_lie_beside_those_of_the_dataset(models: Path, url: str, tmp_path: Path, capsys) -> None:
    data = shutil.copytree(url, tmp_path / "data")
    tag(data, "v1")
    words = ["--recipe", "debug/ip_adapter", "--dry-run"]
    for one in settings("ip_adapter", models, url):
        words += ["--set", one]
    for place, more in ((data, ["--tag", "v1"]), (data / "tags/v1", [])):
        answer = run(capsys, "cache", place, *words, *more)
        assert answer.code == 0
        assert f"nothing was written to {data}/features/debug-ip_adapter.v1" in answer.out
    assert run(capsys, "cache", data, *words, "--tag", "v2").code == 2
    assert f"nothing was written to {data}/features/debug-ip_adapter\n" in run(capsys, "cache", data, *words).out


def test_what_a_run_goes_on_with_is_kept_from_its_step_on(tmp_path: Path) -> None:
    def source(name: str) -> dict[str, str | None]:
        return {"dataset": name, "tag": None, "split": "train", "fingerprint": "f", "samples": "s"}

    def steps() -> list[tuple[int, str]]:
        return [(one["step"], one["sources"][0]["dataset"]) for one in trainedon.read(tmp_path)]

    trainedon.keep(tmp_path, 0, [source("a")])
    trainedon.keep(tmp_path, 10, [source("a")])
    assert steps() == [(0, "a")]
    trainedon.keep(tmp_path, 20, [source("b")])
    trainedon.keep(tmp_path, 20, [source("b")])
    assert steps() == [(0, "a"), (20, "b")]
    trainedon.keep(tmp_path, 5, [source("a")])  # back to an earlier checkpoint: another branch
    assert steps() == [(0, "a")]
    trainedon.keep(tmp_path, 0, [source("c")])
    assert steps() == [(0, "c")]
    (tmp_path / trainedon.FILE).write_text('[{"step": "x"}]')
    assert trainedon.read(tmp_path) == []
