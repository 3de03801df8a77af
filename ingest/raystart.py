"""What Ray needs of this machine before it starts: a folder that it can write to, with a path short enough for sockets.

Nothing here imports ray.
"""

import os
import sys
import tempfile
from pathlib import Path

from refloom.schemas.errors import Refused

_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes of the path of a Unix socket."""
_BELOW = len("/ray/session_2026-12-31_23-59-59_123456_1234567/sockets/plasma_store")
"""What Ray puts behind its folder."""


def folder() -> tuple[str, str]:
    """Where Ray keeps its sockets and logs on this machine, and the name of the variable that says so."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        if name in os.environ and (name == "RAY_TMPDIR" or sys.platform.startswith("linux")):
            return os.environ[name], name
    return ("/tmp", "RAY_TMPDIR") if os.name == "posix" else (tempfile.gettempdir(), "RAY_TMPDIR")


def check_folder() -> None:
    """Refuse a folder that Ray cannot use, with words that Ray has not.

    Raises:
        Refused: the path is too long for a socket, or nothing can be written there.
    """
    place, variable = folder()
    remedy = "set RAY_TMPDIR to a short path on a local disk, such as /tmp, or use --workers 0, which needs no Ray"
    longest = _LONGEST_SOCKET - _BELOW
    if len(os.fsencode(os.path.abspath(place))) > longest:
        raise Refused(
            f"{place} ({variable}) is too long for the sockets of Ray, which has room for {longest} bytes: {remedy}"
        )
    above = Path(os.path.abspath(place))
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise Refused(f"{place} ({variable}) cannot be written to, and Ray puts its sockets there: {remedy}")
