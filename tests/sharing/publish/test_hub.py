"""Pushing, against a small Hub made here: the real client library, the routes it calls, a failure in the middle."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from publishing import arguments, publishable
from smallhub import Hub, small_hub

from refloom.cli.publish import publish as publish_command
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.sharing.publish.hub import push
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish

OPTIONS = Publish(tables=("all",), shard_bytes=64 << 10)


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the client library's own


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    with small_hub("dataset", monkeypatch) as made:
        yield made


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Not to be changed: the tests of publications share it."""
    return publishable(tmp_path_factory)


@pytest.fixture(scope="module")
def published(made, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "published"
    publish(Dataset(str(made)), str(out), OPTIONS)
    return out


def public_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".refloom" not in path.parts
    }


def send(hub: Hub, published: Path, **options: Any) -> Any:
    return push(str(published), "me/it", endpoint=hub.url, token=hub.token, **options)


def test_everything_arrives_in_small_commits_with_the_manifest_last(hub, published):
    done = send(hub, published, files_a_commit=3)
    assert hub.files == public_files(published)
    assert done.sent == len(hub.files)
    assert done.there == 0
    assert max(map(len, hub.commits)) <= 3
    assert hub.commits[-1][-1] == "MANIFEST.json"
    assert hub.created[0]["visibility"] == "private"
    assert hub.created[0]["type"] == "dataset"
    assert hub.squashed == 0


def test_a_second_push_sends_nothing(hub, published):
    send(hub, published)
    before = len(hub.commits)
    done = send(hub, published)
    assert (done.sent, done.there) == (0, len(hub.files))
    assert len(hub.commits) == before


def test_a_push_that_fails_in_the_middle_goes_on_with_what_is_missing(hub, published):
    hub.fail_at = 2
    with pytest.raises(JobStopped, match="run the same command again"):
        send(hub, published, files_a_commit=2)
    there = set(hub.files)
    assert len(there) == 4
    assert "MANIFEST.json" not in there
    first = len(hub.commits)
    done = send(hub, published, files_a_commit=2)
    assert hub.files == public_files(published)
    assert done.there == 4
    again = {path for commit in hub.commits[first:] for path in commit}
    assert again.isdisjoint(there)
    assert set(hub.sent.values()) == {1}  # not even the files of the failed commit were sent twice


def test_a_new_publication_replaces_the_old_one(hub, published, made, tmp_path):
    send(hub, published)
    publish(Dataset(str(made)), str(tmp_path / "fewer"), Publish(takedown=("coco/000000000001",)))
    done = send(hub, tmp_path / "fewer", forget_history=True)
    assert hub.files == public_files(tmp_path / "fewer")
    assert done.removed > 0
    assert hub.squashed == 1


def test_what_cannot_be_pushed_is_refused_before_anything_is_sent(hub, published, tmp_path):
    damaged = Path(shutil.copytree(published, tmp_path / "damaged"))
    file = next((damaged / "data/objects").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Refused, match=r"is not the file that MANIFEST\.json names"):
        send(hub, damaged)
    with pytest.raises(Refused, match="no finished publication"):
        send(hub, tmp_path)
    assert not hub.created
    hub.token = "another"
    with pytest.raises(Refused, match="cannot be written to"):
        push(str(published), "me/it", endpoint=hub.url, token="secret")


def test_a_hub_that_is_not_there_stops_the_push(published):
    with pytest.raises(JobStopped, match="the push to me/it stopped"):
        push(str(published), "me/it", endpoint="http://127.0.0.1:9", token="secret")


def test_the_command_publishes_and_pushes(hub, made, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    options = arguments(Dataset(str(made)), tmp_path / "out", push="me/it", endpoint=hub.url)
    assert publish_command(options) == 0
    assert "files sent, 0 were there already" in capsys.readouterr().out
    assert hub.files == public_files(tmp_path / "out")
