"""Whether and where the progress of a job is shown: nowhere, on the terminal, or by a caller's own function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from refloom.ingest.engine.progress import Progress
from refloom.ingest.engine.tasks import Status

OnStatus = Callable[[Status], None]
Show = Callable[[str, str], OnStatus]
"""Makes the display of some tasks from their title and what they count; it is told a `Status` a few times a second."""


class Lines:
    """A line on the terminal for each title; titles with the same first word are passes of one work and share it."""

    def __init__(self) -> None:
        self._last: tuple[str, Progress] | None = None

    def __call__(self, title: str, item: str) -> OnStatus:
        """The display of what comes next."""
        work = title.split()[0]
        if self._last is not None and self._last[0] == work:
            self._last[1].turn(title, item)
            return self._last[1]
        self.close()
        self._last = work, Progress(title, item)
        return self._last[1]

    def close(self) -> None:
        """Leave the last line behind."""
        if self._last is not None:
            self._last[1].close()
            self._last = None


@contextmanager
def showing(show: bool | Show) -> Iterator[Show | None]:
    """The display that a caller asked for.

    Args:
        show: True for the terminal, False for none, or the caller's own.
    """
    if not isinstance(show, bool):
        yield show
        return
    if not show:
        yield None
        return
    lines = Lines()
    try:
        yield lines
    finally:
        lines.close()
