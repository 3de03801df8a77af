"""The C library's allocator, made to keep what it has.

It gives the top of its heap back to the system and takes large blocks from there each time, and their pages are then
cleared anew: a tenth and more of a training step on a CPU, which one order of allocations meets and another does not.
Two loops of the same modules are only comparable without it.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of `mallopt`, see its manual page."""


def keep_memory() -> bool:
    """Do so for the rest of this process; False where the C library is not glibc."""
    if not sys.platform.startswith("linux") or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return False
    return all(library.mallopt(*option) == 1 for option in ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0)))
