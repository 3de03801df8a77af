"""A disk that takes nothing more from a chosen change on: what a process leaves that was killed there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

_CHANGES = ("replace", "link", "remove", "unlink", "rename")


class Cut(BaseException):
    """Nothing is written any more; no part of the code catches this."""


@contextmanager
def cut(place: Path, after: int) -> Iterator[list[str]]:
    """Let `after` names below a folder appear or go, and none later; yields those that did. `runs/` does not count."""
    done: list[str] = []

    def counting(name: str, real: Any) -> Any:
        def change(*paths: Any, **more: Any) -> Any:
            path = os.fspath(paths[-1])
            if str(path).startswith(f"{place}{os.sep}") and "runs" not in Path(path).relative_to(place).parts:
                if len(done) >= after:
                    raise Cut(f"{name} {path}")
                done.append(f"{name} {path}")
            return real(*paths, **more)

        return change

    changed = {name: counting(name, getattr(os, name)) for name in _CHANGES}
    with patch.multiple(os, **changed):
        yield done


def cuts(place: Path, run: Any, count: int, *, only_every: int = 1) -> Iterator[tuple[int, bool]]:
    """Runs that are cut after 0, 1, 2, ... changes until one is not; yields the number and whether it was cut.

    Args:
        place: the folder.
        run: does it anew, on a place in the state before.
        count: most changes to expect.
        only_every: leave out the numbers between.
    """
    for after in range(0, count, only_every):
        try:
            with cut(place, after):
                run()
        except Cut:
            yield after, True
        else:
            yield after, False
            return
    raise AssertionError(f"more than {count} changes")
