"""A small Hub with one repository in memory: the routes that the client library calls to push files, and no others."""

import hashlib
import json
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "secret"
REPOSITORY = "me/it"


class Hub(ThreadingHTTPServer):
    """One repository in memory.

    Attributes:
        kind: model or dataset.
        files: path to bytes of what is committed.
        large: sha256 to bytes of what was uploaded.
        sent: number of uploads by sha256.
        commits: paths of each commit.
        created: what was said of the repository when it was made.
        squashed: number of times that the history was forgotten.
        fail_at: number of the commit that answers with an error, once.
        token: what may write.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.kind = kind
        self.files: dict[str, bytes] = {}
        self.lfs: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.sent: Counter[str] = Counter()
        self.commits: list[list[str]] = []
        self.created: list[dict[str, Any]] = []
        self.squashed = 0
        self.fail_at: int | None = None
        self.token = TOKEN

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def page(self) -> str:
        """Where the repository is seen."""
        return f"{self.url}/datasets/{REPOSITORY}" if self.kind == "dataset" else f"{self.url}/{REPOSITORY}"

    @property
    def route(self) -> str:
        """What the paths of the repository's requests begin with."""
        return f"/api/{self.kind}s/{REPOSITORY}"


class _Answer(BaseHTTPRequestHandler):
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
            assert self.path.startswith(f"{self.server.route}/tree/main"), self.path
            self._answer([self._entry(path, data) for path, data in sorted(self.server.files.items())])

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob}
        if path in self.server.lfs:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def do_PUT(self) -> None:
        digest, data = self.path.rsplit("/", 1)[1], self._body()
        assert hashlib.sha256(data).hexdigest() == digest
        self.server.large[digest] = data
        self.server.sent[digest] += 1
        self._answer({})

    def do_POST(self) -> None:
        body, server = self._body(), self.server
        if self.path.endswith("/api/validate-yaml"):
            self._answer({"errors": [], "warnings": []})
        elif not self._may():
            return
        elif self.path.endswith("/api/repos/create"):
            server.created.append(json.loads(body))
            self._answer({"url": server.page})
        elif self.path.startswith(f"{server.route}/preupload/"):
            self._answer({"files": [self._mode(one["path"]) for one in json.loads(body)["files"]]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._object(one) for one in json.loads(body)["objects"]]})
        elif self.path.startswith(f"{server.route}/commit/"):
            self._commit(body)
        elif self.path.startswith(f"{server.route}/super-squash/"):
            server.squashed += 1
            self._answer({})
        else:
            self._answer({"error": self.path}, 404)

    def _mode(self, path: str) -> dict[str, Any]:
        large = path.endswith((".parquet", ".safetensors"))
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

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
        self._answer({"commitUrl": f"{server.page}/commit/{oid}", "commitOid": oid, "success": True})


@contextmanager
def small_hub(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that answers while the block runs.

    Args:
        kind: of its one repository, model or dataset.
        monkeypatch: sets the client library to the protocol that this Hub speaks.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # it speaks LFS only
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    server = Hub(kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
