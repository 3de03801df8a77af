"""Exports that workers write together: a part for each unit of work, committed by itself, joined at the end in order.

    OUT/export.parts/<unit>.jsonl    what the unit wrote, a record a line
    OUT/export.parts/<unit>.json     counts, and what the page shows of it; written last: the unit is done

A stopped export does again only what has no such file, or counts failures. The folder goes when the export is whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from refloom.ingest.engine.pool import Job, Pool, Status, Task, run
from refloom.schemas import strict
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.sharing.export.folder import Written

_FOLDER = "export.parts"
_RUN = f"{_FOLDER}/run"
Record = dict[str, Any]


class Part:
    """What one unit of work has written; used by its worker.

    Args:
        folder: of the export.
        unit: its name.
    """

    def __init__(self, folder: Folder, unit: str) -> None:
        self.folder, self._unit = folder, unit
        self._lines: list[bytes] = []
        self.written: Written = Counter()
        self.shown: list[Record] = []

    def add(self, record: Record) -> None:
        """One record more."""
        self._lines.append(orjson.dumps(record) + b"\n")

    def commit(self) -> None:
        """Say that the unit is done."""
        self.folder.write(f"{_FOLDER}/{self._unit}.jsonl", b"".join(self._lines))
        about = {"written": dict(sorted(self.written.items())), "shown": self.shown}
        self.folder.write(f"{_FOLDER}/{self._unit}.json", orjson.dumps(about))


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an export, in order; used by the driver.

    Attributes:
        folder: of the export.
        units: their names.
    """

    folder: Folder
    units: tuple[str, ...]

    def work(
        self, job: Job, tasks: Sequence[Task], pool: Pool, show: Callable[[Status], None] | None
    ) -> tuple[Written, list[Record]]:
        """Do the tasks that are not done yet.

        Args:
            job: makes workers that commit a `Part` for each task.
            tasks: one for each unit.
            pool: workers.
            show: told how far it is.

        Returns:
            Counts of all units, and what they show, in order.
        """
        names = set(self.folder.names(_FOLDER))
        due = [task for task in tasks if f"{task.unit}.json" not in names or _failed(self._about(task.unit))]
        run("export", job, due, pool=pool, notes=self.folder.below(_RUN), on_status=show)
        written: Written = Counter()
        shown = []
        for unit in self.units:
            about = self._about(unit)
            written.update(about["written"])
            shown += about["shown"]
        return written, shown

    def records(self, unit: str) -> Iterator[Record]:
        """What a unit wrote."""
        with self.folder.open(f"{_FOLDER}/{unit}.jsonl") as file:
            for line in file:
                yield orjson.loads(line)

    def remove(self) -> None:
        """Nothing of them is needed any more."""
        self.folder.remove_tree(_FOLDER)

    def _about(self, unit: str) -> Record:
        """A unit's counts; a note that is not sound counts as a failure, so that the unit is done again."""
        try:
            about: Any = strict.loads(self.folder.read(f"{_FOLDER}/{unit}.json"))
        except ValueError:
            about = None
        sound = isinstance(about, dict) and isinstance(about.get("shown"), list)
        if not sound or misfit(about.get("written"), {"*": int}) is not None:
            return {"written": {"failed: damaged note": 1}, "shown": []}
        found: Record = about
        return found


def _failed(about: Record) -> bool:
    return any(word.startswith("failed") for word in about["written"])
