"""Which command ingested what, so that a damaged unit can be read again from its source by the same words.

runs/commands.json    ingest key to {folder, arguments}: where and with what `refloom` was called last
runs/curation.json    the settings of the last curation, which its manifests hold too
"""

import shlex
from collections.abc import Sequence
from typing import Any

from refloom.schemas import strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import unit_key
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder

RECORD = "runs/commands.json"
_SHAPE = {"*": {"folder": str, "arguments": [str]}}
SETTINGS = "runs/curation.json"
_PASSING = ("--dry-run", "--replace", "--retry-failed")
"""Options that change what is done now and not what comes of it."""


def record(folder: Folder, keys: Sequence[str], arguments: Sequence[str], place: str) -> None:
    """Remember the arguments of an ingest.

    Args:
        folder: the dataset.
        keys: ingest keys that the command stands for.
        arguments: as they were given.
        place: the folder that relative paths among them begin in.
    """
    kept = [argument for argument in arguments if argument not in _PASSING]
    found = read(folder) | {key: {"folder": place, "arguments": kept} for key in keys}
    folder.write(RECORD, strict.dumps(found, indent=1, sort_keys=True).encode() + b"\n")


def read(folder: Folder) -> dict[str, Any]:
    """What is remembered; nothing where there is no sound record."""
    try:
        found = strict.loads(folder.read(RECORD))
    except (OSError, ValueError):
        return {}
    return found if misfit(found, _SHAPE) is None else {}


def record_settings(folder: Folder, settings: dict[str, Any]) -> None:
    """Remember the settings of a curation."""
    folder.write(SETTINGS, strict.dumps(settings, indent=1, sort_keys=True).encode() + b"\n")


def settings(folder: Folder) -> dict[str, Any]:
    """The settings of the last curation; nothing where there is no sound record."""
    try:
        return strict.object_in(folder.read(SETTINGS))
    except (OSError, ValueError):
        return {}


def again(dataset: Dataset, units: Sequence[str]) -> list[str]:
    """What to run to have damaged units of ingest again, as sentences: one a command."""
    known = read(dataset.folder)
    lines: dict[str, None] = {}
    for unit in units:
        manifest = dataset.manifest("ingest", unit)
        keys = [manifest.key] if manifest else [key for key in known if unit.startswith(f"{unit_key(key)}-")]
        told = known.get(max(keys, key=len, default=""))
        if told is None:
            of = f" (key {keys[0]})" if keys else ""
            lines[f"ingest the source of {unit}{of} again with the `refloom ingest` that was used first"] = None
        else:
            words = shlex.join(["refloom", *told["arguments"]])
            lines[f"ingest it again with `cd {shlex.quote(told['folder'])} && {words}`"] = None
    return list(lines)
