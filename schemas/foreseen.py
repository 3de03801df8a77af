"""What the system says where something cannot be done, as one of our errors; and one line for what nobody foresaw.

Errors of stores and full disks are turned where they arise: see `refloom.schemas.storage`.
"""

import errno
import os
import tempfile
import time
import traceback

from refloom.schemas.errors import JobStopped, RefloomError, Refused
from refloom.schemas.wording import shown

UNFORESEEN = 4
"""Exit code of an error in refloom itself, or of one that nobody foresaw: neither done, nor refused, nor resumable."""
CLOSED_PIPE = 141
"""Exit code where whoever read what is printed has gone, as a shell gives it to a program that SIGPIPE ended."""

_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST)
_REMEDIES = {
    errno.EFBIG: "a limit on the size of files is reached: raise it (`ulimit -f`), or give a disk that holds larger "
    "files, and run the same command again, it resumes",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n`) and run the same command again, it resumes",
    errno.ENFILE: "too many files are open on this machine: close some programs and run the same command again",
    errno.ENOMEM: "free some memory and run the same command again, it resumes",
    errno.EIO: "the disk or the way to it is damaged: check it, then run the same command again, it resumes",
    errno.ESTALE: "the folder was mounted anew: run the same command again, it resumes",
    errno.ENODEV: "the disk has gone: put it back and run the same command again, it resumes",
    errno.ENXIO: "the disk has gone: put it back and run the same command again, it resumes",
    errno.EAGAIN: "the machine has no room for another process just now: run the same command again, it resumes",
}


def foreseen(error: BaseException) -> RefloomError | None:
    """One of our errors for what the system says; None for an error that is no fault of place, rights or machine."""
    if isinstance(error, RefloomError):
        return error
    if isinstance(error, MemoryError):
        return JobStopped("there is not enough memory: use fewer --workers, or smaller units, and run again to resume")
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Refused(
            f"the Python package {error.name} is not installed: install it with refloom's extras, as `make env` does"
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where, what = _place(error), error.strerror or type(error).__name__
    if error.errno in _LOCKED:
        return Refused(f"{where}: {what}; give a place that this user may read and write, or the right to this one")
    if error.errno in _NO_PLACE and error.filename is not None:
        return Refused(f"{where}: {what}; check the path")
    if error.errno in _REMEDIES:
        return JobStopped(f"{where}: {what}; {_REMEDIES[error.errno]}")
    return None


def _place(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return " and ".join(shown(name, 300) for name in names) or "what is written"


def unforeseen(error: BaseException) -> str:
    """One line about an error that nobody foresaw, and where its trace was kept."""
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {shown(lines[0], 200)}" if lines else type(error).__name__
    trace = "".join(traceback.format_exception(error))
    try:
        number, path = tempfile.mkstemp(".txt", time.strftime("refloom-error-%Y%m%d-%H%M%S-"))
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
    except OSError as problem:
        return f"an error that was not foreseen ({said}); its trace could not be kept ({problem.strerror})"
    return f"an error that was not foreseen ({said}); its trace is in {path}: report it with that file"
