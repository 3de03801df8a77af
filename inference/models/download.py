"""One file over HTTP, which goes on where it stopped."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refloom.inference.models.remote import ENDPOINT_VARIABLE
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.wording import size

_TIMEOUT_S = 30.0
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_YES = ("1", "ON", "YES", "TRUE")
_RESUMES = "run the same command again, it resumes"
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def download(
    url: str,
    part: Path,
    *,
    most_bytes: int,
    on_hub: bool = False,
    show: Callable[[int, int | None], None] | None = None,
) -> str | None:
    """Bring a file to `part`; goes on with what lies there of the very same file, which its ETag tells.

    Args:
        url: of the file, http or https.
        part: where it is written; the ETag is kept beside it while it is not whole.
        most_bytes: that it may have.
        on_hub: whether the address is of a Hub, which the user's token is for and which says the sha256 of large files.
        show: told how many bytes of how many are there.

    Returns:
        The sha256 that the Hub has for it, if it says so.

    Raises:
        Refused: there is no such file, or it is larger than it may be.
        JobStopped: the network or the server fails; the same call goes on.
    """
    import httpx2

    if on_hub and (named := next((name for name in _OFFLINE if os.environ.get(name, "0").upper() in _YES), None)):
        raise Refused(
            f"{named} is set, which forbids asking a Hub: unset it, or give --from a folder that holds the files"
        )
    try:
        with httpx2.Client(follow_redirects=True, timeout=_TIMEOUT_S) as client:
            return _go_on(client, url, part, most_bytes, on_hub, show or (lambda done, total: None))
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
        raise JobStopped(_unreachable(url, on_hub)) from error
    except httpx2.HTTPError as error:
        raise JobStopped(
            f"{url} stopped at {size(part.stat().st_size if part.exists() else 0)} ({type(error).__name__}): {_RESUMES}"
        ) from error
    except httpx2.InvalidURL as error:
        raise Refused(f"{url} is no address: {error}") from error


def _unreachable(url: str, on_hub: bool) -> str:
    mirror = f", or set {ENDPOINT_VARIABLE} to a mirror" if on_hub else ""
    host = url.partition("://")[2].partition("/")[0]
    return (
        f"{host} cannot be reached, is there a network? Run the same command again where there is one; or bring {url} "
        f"here and give its folder with --from{mirror}"
    )


def _go_on(
    client: Any, url: str, part: Path, most_bytes: int, on_hub: bool, show: Callable[[int, int | None], None]
) -> str | None:
    kept = part.with_name(f"{part.name}.etag")
    held = part.stat().st_size if part.exists() and kept.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "refloom"}
    if on_hub and (token := _token()):
        headers["Authorization"] = f"Bearer {token}"
    if held:
        headers |= {"Range": f"bytes={held}-", "If-Range": kept.read_text()}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416 and held:  # all of it is there, or more: only its hash could tell
            kept.unlink()
            held = -1
        else:
            _check_answer(response, url, on_hub)
            if response.status_code != 206 or _begins_at(response) != held:
                held = 0
            length = response.headers.get("Content-Length", "")
            total = held + int(length) if length.isdigit() else None
            _check_room(url, part, total, held, most_bytes)
            etag = response.headers.get("ETag", "")
            if not held:
                kept.unlink(missing_ok=True)
            if etag.startswith('"'):  # a weak one does not promise the same bytes
                kept.write_text(etag)
            with part.open("ab" if held else "wb") as file:
                for data in response.iter_raw():
                    file.write(data)
                    held += len(data)
                    if held > most_bytes:
                        raise Refused(
                            f"{url} answers more than {size(most_bytes)}, more than the model has: nothing was kept"
                        )
                    show(held, total)
            if total is not None and held != total:
                raise JobStopped(f"{url} ended at {size(held)} of {size(total)}: {_RESUMES}")
            kept.unlink(missing_ok=True)
            return _said_by_hub(response) if on_hub else None
    return _go_on(client, url, part, most_bytes, on_hub, show)


def _begins_at(response: Any) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _check_answer(response: Any, url: str, on_hub: bool) -> None:
    code = response.status_code
    if code in (200, 206):
        return
    if code in _BUSY:
        raise JobStopped(f"{url} is not to be had just now ({code}): {_RESUMES}")
    token = ", or log in with `hf auth login`" if on_hub and code in (401, 403) else ""
    raise Refused(f"{url} cannot be had ({code}): give another place with --from{token}")


def _check_room(url: str, part: Path, total: int | None, held: int, most_bytes: int) -> None:
    if total is None:
        return
    if total > most_bytes:
        raise Refused(f"{url} has {size(total)}, more than the model has: nothing was fetched")
    if (free := shutil.disk_usage(part.parent).free) < total - held:
        raise JobStopped(
            f"{url} has {size(total - held)} to come and {part.parent} has {size(free)} free: free some, and again"
        )


def _said_by_hub(response: Any) -> str | None:
    """The Hub's answer, which points to where the bytes lie, names their sha256; small files have another hash."""
    for answer in [*response.history, response]:
        if found := _SHA256.fullmatch(answer.headers.get("X-Linked-ETag", "")):
            return found[1]
    return None


def _token() -> str | None:
    from huggingface_hub import get_token

    token: str | None = get_token()
    return token
