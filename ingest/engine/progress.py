"""Progress of a job on the terminal: one line that is redrawn, or a line now and then where nobody watches."""

import sys
import time
from typing import TextIO

from refloom.ingest.engine.pool import Status

_PLAIN_EVERY_S = 10.0


class Progress:
    """Prints how far a job is, at what rate, and how long it will still take.

    Args:
        title: what the job does.
        item: what an item of work is called.
        stream: where to print; stderr by default.
    """

    def __init__(self, title: str, item: str = "image", stream: TextIO | None = None) -> None:
        self._title, self._item = title, item
        self._stream = stream or sys.stderr
        self._redraws = self._stream.isatty()
        self._printed_at = 0.0
        self._last: Status | None = None

    def turn(self, title: str, item: str) -> None:
        """Go on with the next tasks of the same work, on the same line."""
        self._title, self._item = title, item

    def __call__(self, status: Status) -> None:
        """Show a status."""
        self._last = status
        if self._redraws:
            print(f"\r\033[K{line(self._title, self._item, status)}", end="", file=self._stream, flush=True)
        elif time.monotonic() - self._printed_at > _PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            print(line(self._title, self._item, status), file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the last line behind."""
        if self._redraws:
            print(file=self._stream, flush=True)
        elif self._last is not None:
            print(line(self._title, self._item, self._last), file=self._stream, flush=True)


def line(title: str, item: str, status: Status) -> str:
    """The progress line of a status."""
    elapsed = max(time.monotonic() - status.started, 1e-3)
    begun = status.tally["begun"]
    rejected = sum(count for name, count in status.tally.items() if name.endswith(".rejected"))
    failed = sum(count for name, count in status.tally.items() if name.endswith(".failed"))
    # a unit under work counts by the items it has begun, so that the time left does not wait for whole units
    done = max(status.weight_done, min(begun, status.weight))
    left = elapsed * (status.weight - done) / done if done else None
    parts = [
        f"{title:8}",
        f"{status.done}/{status.units} units",
        f"{begun:,} {item}s",
        f"{_short(begun / elapsed)} {item}s/s",
        f"{status.tally['bytes'] / elapsed / 1e6:,.1f} MB/s",
        f"{rejected:,} rejected",
        *([f"{failed:,} failed"] if failed else []),
        *([f"{status.restarts} workers restarted"] if status.restarts else []),
        *(["the store refuses, trying again"] if status.refused else []),
        "done" if status.done == status.units else f"{duration(left)} left",
    ]
    return "  ".join(parts)


def _short(rate: float) -> str:
    """Whole numbers, and two digits of what is slow."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def duration(seconds: float | None) -> str:
    """`75` to `1 min 15 s`."""
    if seconds is None:
        return "? "
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
