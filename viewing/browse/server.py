"""The local page: a server for one dataset, for the browser of the person who started it.

It reads no path from an address (ids are looked up in the index), and answers to no name but those of this machine, so
that a page from elsewhere cannot read a dataset through the visitor's browser. Pages load nothing from elsewhere and
run no script but this one's. It answers GET and HEAD only, unless it was started for labelling: then it also takes
judgements, as json with a word that only its own page knows.
"""

import json
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from refloom.schemas import guard, strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import RefloomError, Refused
from refloom.schemas.pages.markup import Html, tag
from refloom.schemas.shapes import misfit
from refloom.viewing.browse import grid, labelpage
from refloom.viewing.browse import layout as frame
from refloom.viewing.browse import pages as detail
from refloom.viewing.browse.drawings import thumbnail
from refloom.viewing.browse.index import Index, build
from refloom.viewing.browse.labelling import ORDERS, Labelling
from refloom.viewing.browse.library import Kept, Library
from refloom.viewing.browse.query import VIEWS, Query
from refloom.viewing.tile import picture as shown

_KEPT_TILES = 1500
_MAX_ADDRESS = 4096
_DRAWING_AT_ONCE = 4
_MAX_JUDGEMENT = 2048
_JUDGEMENT = {"object_id": str, "score": (int, None), "flags": [str]}
_MOST_COMING = 32
TOKEN = "X-Refloom-Token"
"""The header with the word that a page sends along with a judgement: a page from elsewhere cannot know it."""
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
    "/label.css": ("refloom.viewing.browse", "label.css", "text/css"),
    "/label.js": ("refloom.viewing.browse", "label.js", "text/javascript"),
}


class Browser(ThreadingHTTPServer):
    """Serves one dataset.

    Args:
        dataset: in any state; what is written to it later is not seen.
        host: to listen on.
        port: 0 takes a free one.
        label: whether objects can be judged, on the page `/label`.
        labeller: who judges, or None.

    Attributes:
        name: of the dataset, for titles.
        index, library: what it answers from.
        guard: says to whom it answers.
        labelling: what judges objects; None where nobody does.
        token: that a judgement must come with.

    Raises:
        Refused: labels cannot be written, or there is nothing to judge.
    """

    daemon_threads = True

    def __init__(
        self,
        dataset: Dataset,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        label: bool = False,
        labeller: str | None = None,
    ) -> None:
        self.index: Index = build(dataset)
        self.library = Library(dataset, self.index)
        self.labelling = Labelling.of(dataset, self.library, labeller) if label else None
        self.token = secrets.token_urlsafe(24)
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

    def do_POST(self) -> None:
        """Take a judgement."""
        self.close_connection = True  # what is refused is not read
        if self.server.labelling is None or self.path != "/label":
            return self._send(HTTPStatus.METHOD_NOT_ALLOWED, "nothing is written here")
        try:
            refusal = self._refusal()
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return self._send(HTTPStatus.BAD_REQUEST, "not a request")
        if refusal is not None:
            return self._send(HTTPStatus.FORBIDDEN, refusal)
        # compared as bytes: a header may hold letters that compare_digest does not take as text
        if not secrets.compare_digest(
            self.headers.get(TOKEN, "").encode("utf-8", "replace"), self.server.token.encode()
        ):
            return self._send(HTTPStatus.FORBIDDEN, "this page is of an earlier start of the server: reload it")
        if self.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            return self._send(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a judgement is json")
        if not 0 < length <= _MAX_JUDGEMENT:
            return self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "no judgement is so long")
        self._judge(self.server.labelling, self.rfile.read(length))
        return None

    def _judge(self, labelling: Labelling, body: bytes) -> None:
        try:
            said = strict.loads(body)
            if (wrong := misfit(said, _JUDGEMENT)) is not None:
                raise ValueError(wrong)
            progress = labelling.judge(said["object_id"], said["score"], tuple(said["flags"]))
        except ValueError as error:
            return self._send(HTTPStatus.BAD_REQUEST, f"not a judgement: {error}")
        except Refused as error:
            return self._send(HTTPStatus.CONFLICT, " ".join(str(error).split()))
        except (RefloomError, OSError) as error:
            return self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot be written: {' '.join(str(error).split())}")
        if progress is None:
            return self._send(HTTPStatus.NOT_FOUND, "there is no such object to judge")
        return self._send(HTTPStatus.OK, json.dumps(progress), "application/json")

    def _refusal(self) -> str | None:
        """Why this request is not answered; None where it is. Raises ValueError for what is no request."""
        return self.server.guard.refusal([(name.lower(), value) for name, value in self.headers.items()])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing for requests."""

    def _answer(self) -> None:
        try:
            refusal = self._refusal()
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
        route, kind = _ROUTES.get(address.path), _KINDS.get(address.path, "text/html")
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
        return self._send(HTTPStatus.OK, body, kind)

    def _send(self, status: HTTPStatus, body: str | bytes, kind: str = "text/plain") -> None:
        data = body if isinstance(body, bytes) else body.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind if isinstance(body, bytes) else f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "private, max-age=600" if self.path.startswith(_KEPT) else "no-store")
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


def _label(server: Browser, parameters: Parameters) -> str | None:
    return None if server.labelling is None else labelpage.page(server.name, server.labelling, server.token)


def _coming(server: Browser, parameters: Parameters) -> str | None:
    if server.labelling is None:
        return None
    order = parameters.get("order", [""])[0]
    start, count = (_number(parameters.get(name, [""])[0]) for name in ("from", "count"))
    cards = server.labelling.coming(order if order in ORDERS else ORDERS[0], start, min(count, _MOST_COMING))
    return json.dumps({"cards": cards, "progress": server.labelling.progress()})


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _cut_out(server: Browser, parameters: Parameters) -> bytes | None:
    if server.labelling is None:
        return None
    with server.drawing:
        return server.labelling.cut_out(parameters.get("id", [""])[0])


def _row(server: Browser, view: str, parameters: Parameters) -> int | None:
    identity = parameters.get("id", [""])[0]
    return server.index.listings[view].find(identity) if view in VIEWS and identity else None


_ROUTES: dict[str, Callable[[Browser, Parameters], str | bytes | None]] = {
    "/": _home,
    "/grid": _grid,
    "/tile": _tile,
    "/picture": _picture,
    "/group": _group,
    "/sample": _sample,
    "/label": _label,
    "/label/next": _coming,
    "/label/cutout": _cut_out,
}
_KINDS = {"/label/next": "application/json", "/label/cutout": "image/jpeg"}
_KEPT = ("/tile", "/label/cutout")
"""What a browser may keep for a while."""
