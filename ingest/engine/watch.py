"""Watching one attempt at one unit: which item is under work, for how long, and how far it has come.

Before native code touches an item its id is noted outside the process, so that a process that dies leaves the name of
what it died on. An item that takes longer than the limit ends the process, even inside native code that holds the
interpreter lock, and leaves a stack dump.
"""

import faulthandler
import os
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO

from refloom.schemas.errors import Failed
from refloom.schemas.storage import Folder, make_folder

ITEM_TIMEOUT_S = 300.0
_NOTE_BYTES = 4096
_REPORT_EVERY_S = 0.5
_REARM_EVERY_S = 1.0

Tally = Counter[str]
"""What a unit has done so far: `<kind>.<verdict>` to number of items, `begun` items of work, and `bytes`."""


class Watch:
    """One attempt at one unit; use as a context.

    Args:
        unit: name of the unit.
        notes: folder of the run; notes are written at once where it is local, and elsewhere from the second attempt
            on, because a write to an object store costs more than most items.
        attempt: 1 for the first.
        skip: item id to the `FAILED` reason to give it without another try.
        report: called now and then with the tally.
        timeout_s: longest time for one item before the process ends itself; 0 for no limit.
    """

    def __init__(
        self,
        unit: str,
        notes: Folder | None = None,
        *,
        attempt: int = 1,
        skip: Mapping[str, str] | None = None,
        report: Callable[[str, Tally], None] | None = None,
        timeout_s: float = ITEM_TIMEOUT_S,
    ) -> None:
        self.unit, self._notes, self._attempt = unit, notes, attempt
        self._skip = dict(skip or {})
        self._report = report or (lambda unit, tally: None)
        self._timeout_s = timeout_s
        self._note_file: int | None = None
        self._stack_file: IO[str] | None = None
        self._armed_at = self._reported_at = 0.0
        self.tally: Tally = Counter()

    def __enter__(self) -> "Watch":
        if self._notes is not None and self._notes.is_local:
            make_folder(self._notes.root)
            self._note_file = os.open(self._notes.at(note_name(self.unit)), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            self._stack_file = open(self._notes.at(stack_name(self.unit)), "w")
        else:
            self._stack_file = tempfile.TemporaryFile("w")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._note_file is not None:
            os.close(self._note_file)
        if self._stack_file is not None:
            self._stack_file.close()
        if self._notes is not None and kind is None:
            self._notes.remove(note_name(self.unit))
            self._notes.remove(stack_name(self.unit))

    @property
    def again(self) -> bool:
        """Whether an attempt before this one did not finish the unit.

        Work that is begun ahead of the item that is noted, or put off until several items can be done together, is then
        done item by item, so that the note names what a process dies of.
        """
        return self._attempt > 1

    def begin(self, item_id: str) -> None:
        """Say that work on an item begins; ends the item before.

        Raises:
            Failed: the item killed its worker in earlier attempts and is not tried again.
        """
        if item_id in self._skip:
            raise Failed(self._skip[item_id])
        self.tally["begun"] += 1
        note = item_id.encode("utf-8", "surrogateescape")[:_NOTE_BYTES]
        if self._note_file is not None:
            os.pwrite(self._note_file, note.ljust(_NOTE_BYTES, b"\0"), 0)
        elif self._notes is not None and self._attempt > 1:
            self._notes.write(note_name(self.unit), note)
        now = time.monotonic()
        if self._timeout_s and self._stack_file is not None and now - self._armed_at > _REARM_EVERY_S:
            self._armed_at = now
            faulthandler.dump_traceback_later(self._timeout_s + _REARM_EVERY_S, exit=True, file=self._stack_file)
        self._report_now_and_then(now)

    def _report_now_and_then(self, now: float) -> None:
        if now - self._reported_at > _REPORT_EVERY_S:
            self._reported_at = now
            self._report(self.unit, self.tally)

    def advance(self, count: int) -> None:
        """Count work that is not done item by item; nothing is timed."""
        self.tally["begun"] += count
        self._report_now_and_then(time.monotonic())

    def verdict(self, kind: str, verdict: str, count: int = 1) -> None:
        """Count settled items, for progress."""
        self.tally[f"{kind}.{verdict}"] += count

    def read_bytes(self, count: int) -> None:
        """Count input, for progress."""
        self.tally["bytes"] += count

    def unexpected(self, item_id: str, error: Exception) -> Failed:
        """Turn an error that nobody foresaw into the failure of one item; the traceback goes to the run's folder."""
        if self._notes is not None:
            name = f"{self.unit}.error-{self.tally['errors']}.txt"
            text = f"{item_id}\n\n{''.join(traceback.format_exception(error))}"
            self._notes.write(name, text.encode("utf-8", "backslashreplace"))
        self.tally["errors"] += 1
        if isinstance(error, MemoryError):
            return Failed("out_of_memory")
        return Failed("internal_error", type(error).__name__)


def note_name(unit: str) -> str:
    """The file that holds the item under work."""
    return f"{unit}.at"


def stack_name(unit: str) -> str:
    """The file that a stack dump goes to when an item takes too long."""
    return f"{unit}.stack"


def last_words(notes: Folder, unit: str) -> tuple[str | None, bool]:
    """Which item a dead attempt was working on, as far as it is known, and whether it ran out of time."""

    def content(name: str) -> bytes:
        try:
            return notes.read(name)
        except FileNotFoundError:
            return b""

    note = content(note_name(unit)).rstrip(b"\0").decode("utf-8", "surrogateescape")
    return note or None, b"Timeout" in content(stack_name(unit))
