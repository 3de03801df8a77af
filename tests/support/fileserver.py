"""A small server of files: whole or from a byte on, with ETags; also in the manner of a Hub, which points elsewhere."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves what `files` holds.

    Attributes:
        files: path, with its first slash, to bytes. `/OWNER/NAME/resolve/main/FILE` answers as a Hub does: with the way
            to the bytes, and their sha256 if they are large.
        large: from so many bytes on a file is large to the Hub.
        linked: sha256 that the Hub says instead of the true one.
        codes: path to the code of an answer that is no file.
        cut_after: bytes after which the next answer's connection ends, once.
        has_etags, has_ranges: what the server can do.
        asked: method, path and headers of every request for bytes.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.large = 1000
        self.linked: str | None = None
        self.codes: dict[str, int] = {}
        self.cut_after: int | None = None
        self.has_etags = self.has_ranges = True
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        server = self.server
        if self.path in server.codes:
            self._head(server.codes[self.path], {"Content-Length": "0"})
            return
        if "/resolve/" in self.path and self.path in server.files:
            data = server.files[self.path]
            headers = {"Location": f"/bytes{self.path}", "Content-Length": "0"}
            if len(data) >= server.large:
                headers["X-Linked-ETag"] = f'"{server.linked or hashlib.sha256(data).hexdigest()}"'
            server.asked.append((self.path, dict(self.headers)))
            self._head(302, headers)
            return
        server.asked.append((self.path, dict(self.headers)))
        found = server.files.get(self.path.removeprefix("/bytes"))
        if found is None:
            self._head(404, {"Content-Length": "0"})
            return
        self._send(found)

    def _send(self, data: bytes) -> None:
        server = self.server
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": etag} if server.has_etags else {}
        start, code = 0, 200
        asked = self.headers.get("Range")
        if asked and server.has_ranges and self.headers.get("If-Range") in (None, etag):
            start, code = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(data):
                self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._head(code, headers | {"Content-Length": str(len(data) - start)})
        if server.cut_after is not None:
            self.wfile.write(data[start : start + server.cut_after])
            server.cut_after = None
            self.close_connection = True
            return
        self.wfile.write(data[start:])


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A server that answers while the block runs."""
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
