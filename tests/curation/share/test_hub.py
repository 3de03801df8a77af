"""Pushing, against a small Hub made here: the real client library, the routes it calls, a failure in the middle."""

import hashlib
import json
import shutil
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from publishing import arguments, build

from curation.share.command import publish as publish_command
from curation.share.hub import push
from curation.share.options import Publish
from curation.share.publication import publish
from schemas.dataset import Dataset
from schemas.errors import JobStopped, Refused

OPTIONS = Publish(tables=("all",), shard_bytes=64 << 10)


class Hub(ThreadingHTTPServer):
    """One repository in memory.

    Attributes:
        files: path to bytes of what is committed.
        large: sha256 to bytes of what was uploaded.
        sent: number of uploads by sha256.
        commits: paths of each commit.
        fail_at: number of the commit that answers with an error, once.
        token: what may write; None refuses everything.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.lfs: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.sent: Counter[str] = Counter()
        self.commits: list[list[str]] = []
        self.created: list[dict[str, Any]] = []
        self.squashed = 0
        self.fail_at: int | None = None
        self.token = "secret"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """The routes that the library calls for a dataset repository."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, value: Any, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _may(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.server.token}":
            return True
        self._answer({"error": "no"}, 401)
        return False

    def do_GET(self) -> None:
        if self._may():
            assert "/api/datasets/me/it/tree/main" in self.path, self.path
            self._answer([self._entry(path, data) for path, data in sorted(self.server.files.items())])

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if path in self.server.lfs:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def do_PUT(self) -> None:
        digest = self.path.rsplit("/", 1)[1]
        data = self._body()
        assert hashlib.sha256(data).hexdigest() == digest
        self.server.large[digest] = data
        self.server.sent[digest] += 1
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/api/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif not self._may():
            return
        elif self.path.endswith("/api/repos/create"):
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/datasets/me/it"})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".parquet") else "regular" for name in names}
            self._answer(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
            )
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._object(one) for one in json.loads(body)["objects"]]})
        elif "/commit/" in self.path:
            self._commit(body)
        elif "/super-squash/" in self.path:
            self.server.squashed += 1
            self._answer({})
        else:
            self._answer({"error": self.path}, 404)

    def _object(self, one: dict[str, Any]) -> dict[str, Any]:
        if one["oid"] in self.server.large:
            return one
        return one | {"actions": {"upload": {"href": f"{self.server.url}/storage/{one['oid']}", "header": {}}}}

    def _commit(self, body: bytes) -> None:
        server = self.server
        if server.fail_at == len(server.commits):
            server.fail_at = None
            self._answer({"error": "the disk of the Hub is full"}, 507)
            return
        paths = []
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                server.files[value["path"]] = b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                server.files[value["path"]] = server.large[value["oid"]]
                server.lfs.add(value["path"])
            elif entry["key"] == "deletedFile":
                del server.files[value["path"]]
            if entry["key"] != "header":
                paths.append(value["path"])
        server.commits.append(paths)
        oid = f"{len(server.commits):040x}"
        self._answer({"commitUrl": f"{server.url}/datasets/me/it/commit/{oid}", "commitOid": oid, "success": True})


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the client library's own


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the small Hub speaks LFS only
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return Path(build(tmp_path_factory.mktemp("hub"), count=6).url)


@pytest.fixture(scope="module")
def published(made) -> Path:
    publish(Dataset(str(made)), str(made.parent / "published"), OPTIONS)
    return made.parent / "published"


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
