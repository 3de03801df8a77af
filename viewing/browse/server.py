"""The local page: a read-only server for one dataset, for the browser of the person who started it.

It answers GET and HEAD only, reads no path from an address (ids are looked up in the index), and answers to no name but
those of this machine, so that a page from elsewhere cannot read a dataset through the visitor's browser. Pages load
nothing from elsewhere and run no script but this one's.
"""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from refloom.schemas import guard
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import RefloomError
from refloom.schemas.pages.markup import Html, tag
from refloom.viewing.browse import grid
from refloom.viewing.browse import layout as frame
from refloom.viewing.browse import pages as detail
from refloom.viewing.browse.drawings import thumbnail
from refloom.viewing.browse.index import Index, build
from refloom.viewing.browse.library import Kept, Library
from refloom.viewing.browse.query import VIEWS, Query
from refloom.viewing.tile import picture as shown

_KEPT_TILES = 1500
_MAX_ADDRESS = 4096
_DRAWING_AT_ONCE = 4
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    **guard.HEADERS,
}
_FILES = {
    "/theme.css": ("refloom.schemas.pages", "theme.css", "text/css"),
    "/report.css": ("refloom.viewing.report", "page.css", "text/css"),
    "/browse.css": ("refloom.viewing.browse", "browse.css", "text/css"),
    "/browse.js": ("refloom.viewing.browse", "browse.js", "text/javascript"),
}


class Browser(ThreadingHTTPServer):
    """Serves one dataset.

    Args:
        dataset: in any state; what is written to it later is not seen.
        host: to listen on.
        port: 0 takes a free one.

    Attributes:
        name: of the dataset, for titles.
        index, library: what it answers from.
        guard: says to whom it answers.
    """

    daemon_threads = True

    def __init__(self, dataset: Dataset, host: str = "127.0.0.1", port: int = 0) -> None:
        self.index: Index = build(dataset)
        self.library = Library(dataset, self.index)
        self.name = dataset.url.rstrip("/").rsplit("/", 1)[-1] or "dataset"
        self.tiles: Kept[Html] = Kept(_KEPT_TILES)
        self.drawing = threading.Semaphore(_DRAWING_AT_ONCE)
        self.guard = guard.Guard(host)
        if ":" in host:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.guard.host, self.guard.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in mid-answer is no error."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Browser
    protocol_version = "HTTP/1.1"
    server_version = "refloom"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing for requests."""

    def _answer(self) -> None:
        try:
            refusal = self.server.guard.refusal([(name.lower(), value) for name, value in self.headers.items()])
            address = urlsplit(self.path)
            parameters = parse_qs(address.query, max_num_fields=32)
        except ValueError:
            return self._send(HTTPStatus.BAD_REQUEST, "not an address")
        if refusal is not None:
            return self._send(HTTPStatus.FORBIDDEN, refusal)
        if len(self.path) > _MAX_ADDRESS:
            return self._send(HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long")
        if address.path in _FILES:
            package, name, kind = _FILES[address.path]
            return self._send(HTTPStatus.OK, resources.files(package).joinpath(name).read_text("utf-8"), kind)
        if address.path == "/favicon.ico":
            return self._send(HTTPStatus.NO_CONTENT, "")
        route = _ROUTES.get(address.path)
        try:
            body = route(self.server, parameters) if route is not None else None
        except RefloomError as error:
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except OSError as error:  # a part of the dataset was taken away
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"the dataset cannot be read: {type(error).__name__}")
        if body is None:
            missing = tag(
                "main", {"class": "detail"}, tag("h1", {}, "Not found"), tag("p", {}, "There is no such thing here.")
            )
            page = frame.page(self.server.name, "Not found", frame.top(self.server.name), missing)
            return self._send(HTTPStatus.NOT_FOUND, page, "text/html")
        return self._send(HTTPStatus.OK, body, "text/html")

    def _send(self, status: HTTPStatus, body: str, kind: str = "text/plain") -> None:
        data = body.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "private, max-age=600" if "/tile" in self.path[:6] else "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


Parameters = dict[str, list[str]]


def _home(server: Browser, parameters: Parameters) -> str:
    query = Query.parse(parameters)
    index = server.index
    bar = frame.top(server.name, frame.tabs(index, query))
    found = grid.results(index, query)
    noscript = tag(
        "noscript", {}, tag("p", {"class": "soft"}, "Pictures are drawn by a script, which is switched off.")
    )
    return frame.page(server.name, "", bar, tag("main", {"class": "home"}, frame.form(index, query), noscript, found))


def _grid(server: Browser, parameters: Parameters) -> str:
    query = Query.parse(parameters)
    return tag("div", {}, frame.tabs(server.index, query), grid.results(server.index, query))


def _tile(server: Browser, parameters: Parameters) -> str | None:
    view = parameters.get("view", [""])[0]
    row = _row(server, view, parameters)
    if row is None:
        return None

    def draw() -> Html:
        with server.drawing:
            return thumbnail(server.library, view, row) or shown("not found")

    return server.tiles.get((view, row), draw)


def _picture(server: Browser, parameters: Parameters) -> str | None:
    row = _row(server, "pictures", parameters)
    show = parameters.get("show", [""])[0]
    return None if row is None else detail.picture_page(server.library, server.name, row, show)


def _group(server: Browser, parameters: Parameters) -> str | None:
    row = _row(server, "groups", parameters)
    return None if row is None else detail.group_page(server.library, server.name, row)


def _sample(server: Browser, parameters: Parameters) -> str | None:
    row = _row(server, "samples", parameters)
    return None if row is None else detail.sample_page(server.library, server.name, row)


def _row(server: Browser, view: str, parameters: Parameters) -> int | None:
    identity = parameters.get("id", [""])[0]
    return server.index.listings[view].find(identity) if view in VIEWS and identity else None


_ROUTES: dict[str, Callable[[Browser, Parameters], str | None]] = {
    "/": _home,
    "/grid": _grid,
    "/tile": _tile,
    "/picture": _picture,
    "/group": _group,
    "/sample": _sample,
}
