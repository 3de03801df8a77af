"""Giving work to a model that may fail, so that a failure costs the item that caused it and no other."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from refloom.ingest.engine.watch import Watch
from refloom.schemas.errors import Failed, JobStopped, RefloomError

Item = TypeVar("Item")
Result = TypeVar("Result")

_DEVICE_LOST = "AcceleratorError"
"""torch's name for what a GPU says after which it says nothing else: no later call of this process can succeed."""


def unforeseen(watch: Watch, item_id: str, error: Exception) -> Failed:
    """Turn an error that nobody foresaw into the failure of one item; the traceback goes to the run's folder.

    Raises:
        RefloomError: it is one, and no item's fault: a full disk, a lost lease.
        JobStopped: the GPU cannot go on; every further item would fail.
    """
    if isinstance(error, RefloomError):
        raise error
    if type(error).__name__ == _DEVICE_LOST:
        said = str(error).splitlines()[0]
        raise JobStopped(f"the GPU cannot go on after {item_id} ({said}); run again to resume") from error
    return watch.unexpected(item_id, error)


def in_parts(
    run: Callable[[list[Item]], Sequence[Result]], items: list[Item], give_up: Callable[[Item, Exception], Failed]
) -> list[Result | Failed]:
    """Results of a batch; where it fails, of its halves, down to the items that cannot be done.

    Args:
        run: items to their results, in order; an item's result does not depend on its neighbours.
        items: N of them, from 0.
        give_up: what an item's own error makes of it; may raise.
    """
    if not items:
        return []
    try:
        return list(run(items))
    except RefloomError:
        raise
    except Failed as problem:
        if len(items) == 1:
            return [problem]
    except Exception as error:
        if len(items) == 1:
            return [give_up(items[0], error)]
    middle = len(items) // 2  # outside the handler: what the failed attempt held in memory lives as long as its error
    return [*in_parts(run, items[:middle], give_up), *in_parts(run, items[middle:], give_up)]
