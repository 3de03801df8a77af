"""Files that lie under another spelling than an annotation file gives.

What archives, browsers and file systems change on the way: NFC and NFD, `%20` for a space, the case of the extension.
A name that exists as it stands is always taken first; among several other spellings none is.
"""

import posixpath
import unicodedata
from collections import defaultdict
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from refloom.schemas.errors import Failed
from refloom.schemas.storage import Folder

_Names = dict[str, list[str]]
_LISTED: "WeakKeyDictionary[Folder, dict[tuple[str, bool], _Names]]" = WeakKeyDictionary()
"""What was listed of a folder, for as long as it is open: a unit asks for many names of few folders."""


def plain(name: str) -> str:
    """A name without what tools change in it: NFC, percent-decoded, its extension in lower case."""
    base, extension = posixpath.splitext(unicodedata.normalize("NFC", unquote(name, errors="surrogateescape")))
    return base + extension.lower()


def spelled(folder: Folder, name: str) -> str | None:
    """The path under which a file lies that is not there as `name`.

    Args:
        folder: of the source.
        name: relative and safe; there is no such file.

    Returns:
        A path that exists below the folder; None if there is none.

    Raises:
        Failed: `missing_file`, several files could be meant.
    """
    for form in dict.fromkeys((name, unquote(name, errors="surrogateescape"))):
        parts = form.split("/")
        if not all(parts) or ".." in parts or "." in parts:
            continue  # what `%2e%2e` or `%2F` hides
        place = ""
        for depth, part in enumerate(parts):
            found = _names(folder, place, folders=depth < len(parts) - 1).get(plain(part), [])
            exact = part if part in found else found[0] if len(found) == 1 else None
            if exact is None:
                if found:
                    raise Failed("missing_file", f"{name}: {len(found)} files could be meant, such as {found[0]}"[:200])
                break
            place = posixpath.join(place, exact)
        else:
            if place != name:  # a link that leads nowhere is listed
                return place
    return None


def exists(folder: Folder, name: str) -> bool:
    """Whether a file is there as it stands or in another spelling."""
    try:
        return folder.exists(name) or spelled(folder, name) is not None
    except Failed:
        return False


def _names(folder: Folder, below: str, *, folders: bool) -> _Names:
    """Names of the files or folders directly in a folder, by their plain spelling."""
    listed = _LISTED.setdefault(folder, {})
    if (below, folders) not in listed:
        found: _Names = defaultdict(list)
        for name in folder.folders(below) if folders else folder.names(below):
            found[plain(name)].append(name)
        listed[below, folders] = dict(found)
    return listed[below, folders]
