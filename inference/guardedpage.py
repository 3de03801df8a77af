"""The guard of `refloom ui`, in front of gradio: who is answered, and what the page may load."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from refloom.schemas.guard import HEADERS, Guard

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Gradio writes its settings into the page as a script, hence `unsafe-inline`; nothing is loaded from elsewhere."""
NO_DOCS: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
"""What FastAPI is told, so that it serves no page about its interface."""
_CLOSED = ("openapi", "docs", "redoc", "proxy=", "vibe-", "undo-vibe-", "dev", "monitoring", "runs", "run-history")
"""How parts of addresses begin that gradio has and the page has no use for: editing its code, proxying, histories."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class GuardedPage:
    """An ASGI application behind a guard.

    Args:
        app: that answers.
        guard: that says to whom.
    """

    def __init__(self, app: App, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            refusal = self._guard.refusal(headers)
        except ValueError:
            refusal = "not an address"
        if refusal is None and any(part.startswith(_CLOSED) for part in str(scope["path"]).split("/")[1:3]):
            await _refuse(scope["type"], "there is no such thing here", send, status=404)
            return
        if refusal is not None:
            await _refuse(scope["type"], refusal, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*_without(message.get("headers", [])), *_HEADERS]
            await send(message)

        await self._app(scope, receive, send_guarded)


_HEADERS = [
    (name.lower().encode(), value.encode()) for name, value in {**HEADERS, "Content-Security-Policy": _POLICY}.items()
]
_OWN = {name for name, _ in _HEADERS}


def _without(headers: Any) -> list[tuple[bytes, bytes]]:
    """What the application sends, without what the guard says better."""
    return [(name, value) for name, value in headers if name.lower() not in _OWN]


async def _refuse(kind: str, why: str, send: Send, *, status: int = 403) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
