"""A small Hub with one model repository in memory: the routes that the client library calls to push files."""

import hashlib
import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "secret"


class ModelHub(ThreadingHTTPServer):
    """Attributes: `files`, path to bytes of what is committed; `created`, what was said of the repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: ModelHub
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

    def do_PUT(self) -> None:
        digest, data = self.path.rsplit("/", 1)[1], self._body()
        assert hashlib.sha256(data).hexdigest() == digest
        self.server.large[digest] = data
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "no"}, 401)
        elif self.path.endswith("/api/repos/create"):
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/me/it"})
        elif "/preupload/" in self.path:
            modes = {
                one["path"]: "lfs" if one["path"].endswith(".safetensors") else "regular"
                for one in json.loads(body)["files"]
            }
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            self._answer({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.server.url}/storage/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/api/models/me/it/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = b64decode(entry["value"]["content"])
                elif entry["key"] == "lfsFile":
                    self.server.files[entry["value"]["path"]] = self.server.large[entry["value"]["oid"]]
            self._answer(
                {"commitUrl": f"{self.server.url}/me/it/commit/{1:040x}", "commitOid": f"{1:040x}", "success": True}
            )
        else:
            self._answer({"error": self.path}, 404)


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    server = ModelHub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
