"""What was made of a dataset elsewhere: publications, exports, features, pages. A takedown names them, for they hold
the pictures too.

    runs/copies/<sha256 of the place, 16 digits>.json   kind, place, and what it takes to make it again
"""

import hashlib
import json
from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.storage import Folder
from refloom.schemas.storeerrors import is_denied, is_unavailable

_FOLDER = "runs/copies"


def note(folder: Folder, kind: str, place: str, **about: Any) -> None:
    """Remember a copy; a dataset that can only be read remembers none.

    Args:
        folder: the dataset.
        kind: publication, export, features, page or training run.
        place: absolute path or URL.
        about: plain values; those of an earlier note of the place stay where nothing else is said.
    """
    path = f"{_FOLDER}/{hashlib.sha256(f'{kind} {place}'.encode()).hexdigest()[:16]}.json"
    value = {**(_read(folder, path) or {}), "kind": kind, "place": place, **about}
    try:
        folder.write(path, strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n")
    except (OSError, Refused, JobStopped):
        return
    except Exception as error:
        if not (is_denied(error) or is_unavailable(error)):
            raise


def noted(folder: Folder) -> list[dict[str, Any]]:
    """All copies that are remembered, by kind and place."""
    found = [_read(folder, f"{_FOLDER}/{name}") for name in folder.names(_FOLDER) if name.endswith(".json")]
    return sorted((one for one in found if one), key=lambda one: (one["kind"], one["place"]))


def _read(folder: Folder, path: str) -> dict[str, Any] | None:
    """A note, or None where there is none that this can read."""
    try:
        value = json.loads(folder.read(path))
    except (OSError, ValueError):
        return None
    sound = isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("kind", "place"))
    return value if sound else None
