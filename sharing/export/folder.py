"""Where an export goes: a folder that is new, ours and unfinished, or finished; safe and unique names in it.

OUT/export.begun.json    while it is written: its format, settings, and what it is made of
OUT/export.json          when it is whole, and written last: the same and what was written
"""

import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Container
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
import psutil

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import TEMPORARY, Folder, HashingFile

_DONE = "export.json"
_BEGUN = "export.begun.json"
_COPY_BYTES = 1 << 20
_MAX_NAME = 160
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff<>:"|?*\\\u2028\u2029]')
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})

Written = Counter[str]
"""What an export wrote, by the word for it; words that begin with `failed` are failures."""


class Place:
    """The output folder of one export.

    Args:
        url: a local path or an fsspec URL.
        settings: what the output depends on, dataset included; another export is never mixed with it.
    """

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        self._folder = Folder(url)
        self._settings = settings
        self._is_new = False

    @property
    def url(self) -> str:
        """As it was given."""
        return self._folder.url

    def claim(self) -> Written | None:
        """Take the folder; what an earlier run wrote there, if it finished the same export.

        Raises:
            Refused: something else is in the folder.
        """
        done = self._marker(_DONE)
        if done is not None or self._marker(_BEGUN) is not None:
            self._sweep()
        if done is not None:
            self._same(done, "the finished export")
            written = done.get("written")
            return Counter(written if misfit(written, {"*": int}) is None else {})
        begun = self._marker(_BEGUN)
        if begun is not None:
            self._same(begun, "an unfinished export")
        elif self._folder.names() or self._folder.folders():
            raise Refused(f"{self.url} is not empty and holds no export: give a new or empty folder")
        self._is_new = begun is None
        self._folder.write(_BEGUN, _text(self._settings))
        return None

    def leave(self) -> None:
        """Take back a claim under which nothing was written, so that a folder of a refused export is free again."""
        if self._is_new and self._folder.names() == [_BEGUN] and not self._folder.folders():
            self._folder.remove(_BEGUN)

    def _sweep(self) -> None:
        """Remove files that an earlier run was killed over, while it wrote them."""
        if not self._folder.is_local:
            return  # an upload that was not ended is nowhere to be seen
        for path in Path(self._folder.root).rglob(f"*{TEMPORARY}"):
            owner = path.name.removesuffix(TEMPORARY).rpartition(".")[2]
            if path.is_file() and not (owner.isdigit() and int(owner) != os.getpid() and psutil.pid_exists(int(owner))):
                path.unlink(missing_ok=True)

    def _marker(self, name: str) -> dict[str, Any] | None:
        try:
            value = strict.loads(self._folder.read(name))
        except FileNotFoundError:
            return None
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Refused(f"{self.url}/{name} is damaged: give a new or empty folder")
        return value

    def _same(self, found: dict[str, Any], what: str) -> None:
        wanted = json.loads(_text(self._settings))
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        if differing:
            raise Refused(f"{self.url} holds {what} with another {', '.join(differing)}: give a new or empty folder")

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file."""
        self._folder.write(path, data)

    def create(self, path: str) -> AbstractContextManager[HashingFile]:
        """A file that appears when the block ends."""
        return self._folder.create(path)

    def finish(self, written: Written) -> None:
        """Say that the export is whole; one with failures is not, so that the next run tries them again."""
        if any(word.startswith("failed") for word in written):
            return
        self._folder.write(_DONE, _text(self._settings | {"written": dict(sorted(written.items()))}))
        self._folder.remove(_BEGUN)


def _text(value: dict[str, Any]) -> bytes:
    return strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


class _Either:
    """What is in one of two sets, which are not copied for it."""

    def __init__(self, one: Container[str], other: Container[str]) -> None:
        self._one, self._other = one, other

    def __contains__(self, key: object) -> bool:
        return key in self._one or key in self._other


class Names:
    """Names of files below one folder: safe on every file system, none twice, none both a file and a folder."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, wanted: str) -> str:
        """A name that nobody has, as close to the wanted one as can be."""
        *folders, last = safe(wanted).split("/")
        for depth, folder in enumerate(folders):
            folders[depth] = self._free([*folders[:depth]], folder, "", self._files)
        stem, dot, extension = last.rpartition(".")
        if not stem:
            stem, dot, extension = last, "", ""
        name = self._free(folders, stem, dot + extension, _Either(self._files, self._folders))
        parts = [*folders, name]
        whole = "/".join(parts).casefold().split("/")
        self._files.add("/".join(whole))
        self._folders.update("/".join(whole[:end]) for end in range(1, len(whole)))
        return "/".join(parts)

    @staticmethod
    def _free(folders: list[str], stem: str, end: str, taken: Container[str]) -> str:
        """The name itself, or with the first number behind its stem that makes it nobody's."""
        name, number = stem + end, 1
        while "/".join([*folders, name]).casefold() in taken:
            number += 1
            name = f"{stem}-{number}{end}"
        return name


def safe(path: str) -> str:
    """A relative path that no file system minds and that does not leave its folder; good paths stay as they are."""
    parts = [_part(part) for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", ".")]
    return "/".join(parts) or "_"


def _part(part: str) -> str:
    clean = _UNSAFE.sub("_", part)
    if clean == ".." or clean.endswith((".", " ")) or clean.partition(".")[0].lower() in _RESERVED:
        clean = f"{clean.rstrip('. ')}_"
    if len(clean.encode()) > _MAX_NAME:
        stem, dot, extension = clean.rpartition(".")
        end = f"{dot}{extension}" if 0 < len(extension.encode()) < 16 else ""
        digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        kept = (stem if end else clean).encode()[: _MAX_NAME - 32].decode("utf-8", "ignore")
        clean = f"{kept}-{digest}{end}"
    return clean


def flat(text: str) -> str:
    """An id as one part of a path: `coco/000000000139` to `coco_000000000139`."""
    return safe(text.replace("/", "_").replace("#", "_").replace("@", "_"))


class JsonList:
    """A json list that is written to a temporary file as it grows, so that it need not fit into memory."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.length = 0

    def __enter__(self) -> "JsonList":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, value: Any) -> None:
        """Append a value."""
        self._file.write((b",\n" if self.length else b"\n") + orjson.dumps(value))
        self.length += 1

    def copy_to(self, sink: HashingFile) -> None:
        """Write the whole list."""
        sink.write(b"[")
        self._file.seek(0)
        while part := self._file.read(_COPY_BYTES):
            sink.write(part)
        self._file.seek(0, 2)
        sink.write(b"\n]")


def write_object(place: Place, path: str, members: dict[str, Any]) -> None:
    """Write a json object whose members are plain values or `JsonList`s."""
    with place.create(path) as sink:
        sink.write(b"{")
        for number, (key, value) in enumerate(members.items()):
            sink.write((b",\n" if number else b"\n") + orjson.dumps(key) + b": ")
            if isinstance(value, JsonList):
                value.copy_to(sink)
            else:
                sink.write(orjson.dumps(value))
        sink.write(b"\n}\n")
