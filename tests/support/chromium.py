"""A headless Chromium that tests drive over its debugging pipe; nothing beyond the standard library is needed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_S = 300.0
_ANSWER_S = 120.0
"""This machine may have other work."""


class Tab:
    """One page; `errors` is what its console and its network complained about."""

    def __init__(self, pipe: "_Pipe", session: str) -> None:
        self._pipe, self._session = pipe, session
        self.errors: list[str] = pipe.errors
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._pipe.call(method, parameters, self._session)

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        self._call("Page.navigate", url=address)
        here = f"location.href.startsWith({json.dumps(address.split('#')[0])})"
        self.until(f"{here} && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression gives in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = _ANSWER_S) -> Any:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError, KeyError):  # between two pages there is nobody to ask
                if found := self.value(expression):
                    return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def type(self, text: str) -> None:
        """Type into what has the focus, key by key."""
        for letter in text:
            self._call("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self._call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def press(self, key: str) -> None:
        """Press a key that writes nothing: Enter, Escape, ArrowRight ..."""
        codes = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38}
        more = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=codes[key], **more)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=codes[key])

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click an element with the mouse, in its middle or at other shares of its width and height."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{element}.scrollIntoView({{block: 'center'}})")
        place = self.value(
            f"(() => {{ const b = {element}.getBoundingClientRect();"
            f" return [b.x + b.width * {x}, b.y + b.height * {y}]; }})()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            held = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **held)

    def upload(self, selector: str, files: list[str]) -> None:
        """Choose files in a file input."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", files=files, nodeId=node)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the page, pixels, and whether the person likes it dark."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])


class _Pipe:
    """Messages to and from the browser, each ended by a NUL."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._rest = b""
        self._number = 0
        self.errors: list[str] = []

    def call(self, method: str, parameters: dict[str, Any], session: str | None, seconds: float = _ANSWER_S) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while True:
            answer = self._read(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._note(answer)

    def _read(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._reader, 1 << 20)
            assert data, "the browser has gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, what = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(what["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.errors.append(str(what["args"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")


@contextlib.contextmanager
def tab() -> Iterator[Tab]:
    """A page in a browser of its own; the test skips where there is no Chromium, or none that starts."""
    program = next((found for found in map(shutil.which, _NAMES) if found), None)
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    to_browser, from_browser = os.pipe(), os.pipe()
    # the browser reads its descriptor 3 and writes its descriptor 4; ours are kept away from these numbers
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_browser[0], from_browser[1])]

    def place() -> None:
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars"]
        flags += ["--disable-dev-shm-usage", f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        browser = subprocess.Popen(
            [program, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4, *theirs),
            preexec_fn=place,
            start_new_session=True,
        )
        for end in (to_browser[0], from_browser[1], *theirs):
            os.close(end)
        pipe = _Pipe(from_browser[0], to_browser[1])
        try:
            try:
                target = pipe.call("Target.createTarget", {"url": "about:blank"}, None, _START_S)["targetId"]
                where = {"targetId": target, "flatten": True}
                session = pipe.call("Target.attachToTarget", where, None)["sessionId"]
            except (AssertionError, OSError) as error:
                pytest.skip(f"{program} does not start: {error}")
            yield Tab(pipe, session)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            for end in (from_browser[0], to_browser[1]):
                os.close(end)
