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

from refloom.schemas import swap
from refloom.schemas.errors import Refused
from refloom.schemas.parquet import File
from refloom.schemas.storage import Folder
from refloom.sharing.publish.shards import Shard
from refloom.sharing.publish.spill import load_json, save_json

PRIVATE = ".refloom"
"""Not part of the publication: never pushed, may be deleted once it is complete."""

MANIFEST = "MANIFEST.json"
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
            raise Refused(f"{dest} is not empty and no publication of refloom's: give an empty or new folder")
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
        """The MANIFEST.json of a finished publication whose files are all there, or None."""
        manifest: dict[str, Any] | None = load_json(self.root / MANIFEST)
        if manifest is None:
            return None
        return manifest if all(self._is_there(one["path"], one["bytes"]) for one in manifest["files"]) else None

    def done(self, shard: Shard) -> File | None:
        """The file of a shard that was finished earlier."""
        record = load_json(self._record(shard))
        if record is None:
            return None
        file = File(**record)
        return file if self._is_there(file.path, file.bytes) else None

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
        wanted = {shard.path for shard in shards}
        for path in sorted((self.root / "data").rglob("*")):
            if path.is_file() and str(path.relative_to(self.root)) not in wanted:
                path.unlink()

    def clean(self, *, again: bool = False) -> None:
        """Throw away what only the making needed; with `again`, what is done stays on record for another run."""
        for name in ("spill",) if again else ("spill", "done"):
            shutil.rmtree(self.root / PRIVATE / name, ignore_errors=True)
