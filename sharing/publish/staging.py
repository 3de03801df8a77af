"""The folder that a publication is made in: whose it is, what is done already, and what may be thrown away.

DEST/.refloom/state.json      what it is made of; another state is refused
DEST/.refloom/spill/          rows between the passes; gone when the publication is complete
DEST/.refloom/done/           one json a finished file: rows, bytes, sha256

With --replace the new publication is made in `.DEST.next`, beside DEST, and takes its place when it is whole.
"""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refloom.schemas import strict, swap
from refloom.schemas.damage import digest
from refloom.schemas.errors import Refused
from refloom.schemas.parquet import File
from refloom.schemas.publication import MANIFEST
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import TEMPORARY, Folder
from refloom.sharing.publish.shards import Shard
from refloom.sharing.publish.spill import load_json, save_json

PRIVATE = ".refloom"
"""Not part of the publication: never pushed, may be deleted once it is complete."""

_FILES = {"files": [{"path": str, "sha256": str}]}
_DONE = {"path": str, "rows": int, "bytes": int, "sha256": str}
_OURS = ("data", "README.md", "croissant.json", MANIFEST, PRIVATE)


class Workbench:
    """A destination, opened for one state of one input.

    Args:
        dest: a local folder.
        identity: what the output depends on, json.
        replace: throw away a publication of another state that lies there.

    Raises:
        Refused: not a local folder, somebody else's, or of another state without `replace`.
    """

    def __init__(self, dest: str, identity: dict[str, Any], *, replace: bool = False) -> None:
        self.folder = Folder(dest)
        if not self.folder.is_local:
            raise Refused(f"{dest} is no local folder: publish to one, then push or copy it")
        self.root = self._place = Path(self.folder.root)
        state = load_json(self.root / PRIVATE / "state.json")
        there = self.folder.names("") + self.folder.folders("")
        if there and state is None:
            if MANIFEST not in there or not set(there) <= set(_OURS):
                raise Refused(f"{dest} is not empty and no publication of refloom's: give an empty or new folder")
            if not replace:
                raise Refused(
                    f"{dest} holds a publication that does not say what it was made of (its {PRIVATE} is gone or "
                    "damaged): --replace makes it anew"
                )
            state = {}
        if state is not None and state != identity:
            if not replace:
                names = sorted(name for name in {*state, *identity} if state.get(name) != identity.get(name))
                raise Refused(
                    f"{dest} holds a publication of another state (other {', '.join(names)}): "
                    "give a new folder, or --replace to throw that one away"
                )
            foreign = sorted(set(there) - set(_OURS))
            if foreign:
                raise Refused(f"{self.root} also holds {foreign[0]}, which is not refloom's: move it away first")
            self.root = swap.beside(Path(os.path.realpath(self._place)), "next")
            self.folder = Folder(str(self.root))
            if load_json(self.root / PRIVATE / "state.json") != identity:
                swap.remove(self.root)
        self.spill = self.root / PRIVATE / "spill"
        save_json(self.root / PRIVATE / "state.json", identity)

    def take_place(self) -> None:
        """Put a publication that is whole into its place, where another one lay until now."""
        if self.root != self._place:
            swap.take_place(self.root, Path(os.path.realpath(self._place)))

    @property
    def complete(self) -> dict[str, Any] | None:
        """The MANIFEST.json of a finished publication whose files are all there with their bytes, or None.

        What else lies below data/ is removed: readers of the folder would take it for a part.
        """
        try:
            manifest = strict.object_in((self.root / MANIFEST).read_bytes())
        except (OSError, ValueError):
            return None
        if misfit(manifest, _FILES) is not None or any(
            digest(self.folder, one["path"]) != one["sha256"] for one in manifest["files"]
        ):
            return None
        self._keep({one["path"] for one in manifest["files"]})
        return manifest

    def done(self, shard: Shard) -> File | None:
        """The file of a shard that was finished earlier."""
        record = load_json(self._record(shard))
        if misfit(record, _DONE) is not None:
            return None
        file = File(**{name: record[name] for name in _DONE})
        return file if file.path == shard.path and self._is_there(file.path, file.bytes) else None

    def finish(self, shard: Shard, file: File) -> None:
        """Note that a file is finished."""
        save_json(self._record(shard), asdict(file))

    def _record(self, shard: Shard) -> Path:
        return self.root / PRIVATE / "done" / (shard.path.replace("/", ".") + ".json")

    def _is_there(self, path: str, size: int) -> bool:
        file = self.root / path
        return file.is_file() and file.stat().st_size == size

    def sweep(self, shards: list[Shard]) -> None:
        """Remove what a killed run left below data/ and belongs to no shard."""
        self._keep({shard.path for shard in shards})

    def _keep(self, wanted: set[str]) -> None:
        for path in sorted((self.root / "data").rglob("*")):
            if path.is_file() and path.relative_to(self.root).as_posix() not in wanted:
                path.unlink()
        for path in self.root.glob(f"*{TEMPORARY}"):
            path.unlink()

    def clean(self, *, again: bool = False) -> None:
        """Throw away what only the making needed; with `again`, what is done stays on record for another run."""
        for name in ("spill",) if again else ("spill", "done"):
            shutil.rmtree(self.root / PRIVATE / name, ignore_errors=True)
