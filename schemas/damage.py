"""What is damaged in a dataset, so that its unit is due: files that are gone, cut, or noted as others than committed.

Files are looked at, not read, when a run begins. `verify` reads them all and notes here what it finds, in

runs/damaged.json    files: path in the dataset; manifests: path to the sha256 of the bytes that are wrong

What is noted is read again before it is believed, so that a note which is out of date costs nothing.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from refloom.schemas import strict
from refloom.schemas.manifest import Manifest
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder

NOTE = "runs/damaged.json"
_SHAPE = {"files": [str], "manifests": {"*": str}}


@dataclass(slots=True)
class Damage:
    """Looks at the files of units.

    Attributes:
        folder: the dataset.
    """

    folder: Folder
    _sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    _noted: dict[str, Any] | None = None

    def look(self, manifests: Iterable[Manifest]) -> None:
        """List the folders that hold the files of many units, instead of asking for each file."""
        for directory in sorted({file.path.rpartition("/")[0] for one in manifests for file in one.files}):
            self._sizes[directory] = self.folder.sizes(directory)

    def forget(self) -> None:
        """Look again from now on."""
        self._sizes, self._noted = {}, None

    def of(self, manifest: Manifest) -> str | None:
        """What is wrong with the first damaged file of a unit; None if nothing is, as far as a look can tell."""
        noted = self._read_note()
        for file in manifest.files:
            size = self._size(file.path)
            if size != file.bytes:
                return f"{file.path} is gone" if size is None else f"{file.path} has {size:,} bytes, not {file.bytes:,}"
            if file.path in noted["files"] and digest(self.folder, file.path) != file.sha256:
                return f"{file.path} has other bytes than were committed"
        path = Manifest.path(manifest.stage, manifest.unit)
        if path in noted["manifests"] and digest(self.folder, path) == noted["manifests"][path]:
            return f"{path} says other things than its files"
        return None

    def _size(self, path: str) -> int | None:
        directory, _, name = path.rpartition("/")
        if directory in self._sizes:
            return self._sizes[directory].get(name)
        try:
            return self.folder.size(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _read_note(self) -> dict[str, Any]:
        if self._noted is None:
            try:
                found = strict.loads(self.folder.read(NOTE))
            except (OSError, ValueError):
                found = None
            self._noted = found if misfit(found, _SHAPE) is None else {"files": [], "manifests": {}}
        return self._noted


def note(folder: Folder, files: Iterable[str], manifests: Iterable[str]) -> None:
    """Write down what is damaged; nothing damaged removes the note."""
    found: dict[str, Any] = {
        "files": sorted(set(files)),
        "manifests": {path: digest(folder, path) for path in sorted(set(manifests)) if folder.exists(path)},
    }
    if found["files"] or found["manifests"]:
        folder.write(NOTE, strict.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
    elif folder.exists(NOTE):
        folder.remove(NOTE)


def digest(folder: Folder, path: str) -> str | None:
    """The sha256 of a file; None where it cannot be read."""
    running = hashlib.sha256()
    try:
        with folder.open(path) as file:
            while data := file.read(8 << 20):
                running.update(data)
    except OSError:
        return None
    return running.hexdigest()
