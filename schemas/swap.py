"""A new folder in the place of an old one: until the new one is whole, the old one lies there, whole.

Both are on one local file system. Where the system can exchange two names (Linux), there is no moment without one of
them; elsewhere the old one lies beside its place, as `.NAME.old`, for as long as a rename takes.
"""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from refloom.schemas.errors import Refused
from refloom.schemas.storage import link, sync

_HERE = -100
_EXCHANGE = 2
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


@contextmanager
def replacing(place: str | Path, keep: Callable[[str], bool] = lambda name: False) -> Iterator[Path]:
    """A new folder to fill, which takes its place when the block ends; if the block raises, nothing has changed.

    Args:
        place: of the folder; a link is followed; there need not be one.
        keep: whether a file that lies directly in the old folder, by its name, is taken along.

    Raises:
        Refused: the folder beside cannot be made.
    """
    place = Path(os.path.realpath(place))
    fresh = beside(place, "new")
    remove(fresh)  # of a run that was killed
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise Refused(f"{fresh} cannot be made ({error.strerror}): give a place to write to") from error
    try:
        yield fresh
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.is_file() and keep(file.name) and not (fresh / file.name).exists():
                link(file, fresh / file.name)
        take_place(fresh, place)
    finally:
        remove(fresh)


def beside(place: Path, what: str) -> Path:
    """Where a folder lies that is to be, or was, in a place; hidden, and on the same file system."""
    return place.with_name(f".{place.name}.{what}")


def take_place(fresh: Path, place: Path) -> None:
    """Put a folder into a place; what was there is removed afterwards.

    Raises:
        Refused: the place cannot be exchanged, such as where another file system begins.
    """
    old = beside(place, "old")
    if old.exists() and not place.exists():  # a run was killed between two renames
        os.rename(old, place)
    remove(old)
    sync(fresh)
    try:
        if not place.exists():
            os.rename(fresh, place)
        elif _exchanged(fresh, place):
            os.rename(fresh, old)
        else:
            os.rename(place, old)
            os.rename(fresh, place)
    except OSError as error:
        raise Refused(f"{place} cannot be replaced ({error.strerror}): give another folder") from error
    sync(place.parent)
    remove(old)


def remove(path: Path) -> None:
    """Remove a folder or file and everything below it; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
