"""Whether and where the progress of a job is shown: nowhere, on the terminal, or by a caller's own function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from refloom.ingest.engine.progress import Stages
from refloom.ingest.engine.tasks import Status

OnStatus = Callable[[Status], None]
Show = Callable[[str, str], OnStatus]
"""Makes the display of some tasks from their title and what they count; it is told a `Status` a few times a second."""


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
    with Stages() as stages:
        yield stages
