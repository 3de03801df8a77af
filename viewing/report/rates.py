"""How fast the last runs were: reads `runs/<run>/run.json`, the one place of a dataset where clocks may stand."""

import json
import math
from dataclasses import dataclass
from typing import Any

from refloom.schemas.dataset import Dataset

_LAST = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run.

    Attributes:
        name: its folder, which begins with its date.
        command: what was done.
        seconds: how long it took.
        items: pictures or samples begun.
        bytes: read of pictures.
        workers: processes; 0 for the driver's own.
    """

    name: str
    command: str
    seconds: float
    items: int
    bytes: int
    workers: int

    def to_json(self) -> dict[str, Any]:
        """With the rates, which are null where no time was taken."""
        per_second = 1 / self.seconds if self.seconds > 0 else None
        return {
            "run": self.name,
            "command": self.command,
            "seconds": self.seconds,
            "items": self.items,
            "bytes": self.bytes,
            "workers": self.workers,
            "items_per_second": None if per_second is None else self.items * per_second,
            "bytes_per_second": None if per_second is None else self.bytes * per_second,
        }


def runs(dataset: Dataset) -> list[Run]:
    """The last runs that left a record, the newest first; a record that cannot be read is passed over."""
    found: list[Run] = []
    for name in reversed(dataset.folder.folders("runs")):
        if len(found) == _LAST:
            break
        try:
            run = _read(name, dataset.folder.read(f"runs/{name}/run.json"))
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError):
            continue
        found.append(run)
    return found


def _read(name: str, record: bytes) -> Run:
    """One record; what it says beyond these fields is left to others."""
    value = json.loads(record)
    seconds = float(value["seconds"])
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} seconds")
    return Run(name, str(value["command"]), seconds, int(value["items"]), int(value["bytes"]), int(value["workers"]))
