"""SA-1B unpacked: a folder of sa_<id>.jpg beside sa_<id>.json, as trainers keep them.

Its files are listed as the headers of a tar are, so that `sa1b` pairs and reads both in one way.
"""

import posixpath
from collections.abc import Callable

from refloom.ingest import tar
from refloom.ingest.files import PictureFile, is_junk, passed_over
from refloom.ingest.source import Link, Problem
from refloom.schemas.storage import Folder

UNIT_PAIRS = 12_000
"""Pictures in a unit: a tar of SA-1B has about 11,200."""
_PICTURES = (".jpg", ".jpeg", ".png")


def holds_pairs(folder: Folder) -> bool:
    """Whether pictures lie in a folder with records beside them."""
    names = [posixpath.splitext(name) for name in folder.names() if not is_junk(name)]
    records = {stem for stem, extension in names if extension.lower() == ".json"}
    return any(stem in records and extension.lower() in _PICTURES for stem, extension in names)


def index(folder: Folder) -> tuple[int, tar.Index]:
    """Bytes of the pictures and records of a folder, and their names as if they were members of a tar."""
    members = []
    for name in filter(_is_half, folder.names()):
        try:
            size = folder.size(name)
        except OSError:  # a link that leads nowhere: reading it says so
            size = 0
        members.append(tar.Member(name, 0, size, "file", True))
    return sum(member.size for member in members), tar.Index(tuple(members), False, None)


def notes(folder: Folder) -> list[str]:
    """What a person should know of the files that are neither picture nor record."""
    return passed_over([name for name in folder.names() if not _is_half(name)], folder.url)


def _is_half(name: str) -> bool:
    return not is_junk(name) and name.lower().endswith((*_PICTURES, ".json"))


def loader(folder: Folder, name: str | None, half: Callable[[], Problem]) -> Callable[[], bytes]:
    """Gives the bytes of a file, or raises what `half` says of one that is not there.

    Args:
        folder: of the pairs.
        name: of a picture or record; None where the pair lacks it.
        half: why a half of a pair is alone.
    """

    def load() -> bytes:
        if name is None:
            raise half()
        return PictureFile(folder, name, "").load()

    return load


def linker(folder: Folder, root: str, name: str | None) -> Callable[[], Link] | None:
    """Gives the place of a file for --link; None where there is none."""
    return None if name is None else PictureFile(folder, name, root).linker
