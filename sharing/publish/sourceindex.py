"""A copy of a source that somebody has: a folder of pictures, tars among them, or a refloom dataset. Finds pictures by
their names; whether they are the right ones is told by their sha256, elsewhere.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from refloom.ingest.files import picture_names, stem
from refloom.ingest.tar import read_index
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.ids import encode
from refloom.schemas.storage import Folder
from refloom.sharing.publish.addresses import PICTURES_FIELD, Places
from refloom.sharing.publish.rows import Origin, hash_ids, listed

Candidate = tuple[int, int, int]
"""Place, offset and length of bytes that may be a picture's; length -1 for a whole file."""


class LocalCopy(Protocol):
    """Finds pictures in somebody's copy of a source."""

    places: Places

    def candidates(self, image_id: str, path: str | None) -> Iterator[Candidate]:
        """Where the bytes of a picture may lie, the likeliest first."""


def open_copy(url: str) -> LocalCopy:
    """A folder or a dataset, whichever lies there.

    Raises:
        Refused: nothing lies there.
    """
    folder = Folder(url)
    if folder.exists("dataset.json"):
        return DatasetCopy(Dataset(url))
    if not folder.exists():
        raise Refused(f"{url} is not there: give a folder of pictures, of SA-1B tars, or a refloom dataset")
    return FolderCopy(folder)


class DatasetCopy:
    """The pictures of a refloom dataset, by id."""

    def __init__(self, dataset: Dataset) -> None:
        self.places = Places()
        origin = Origin(dataset, self.places, hashes=False, strips=False, on_bytes=lambda count: None)
        hashes, found = [np.empty(0, np.uint64)], [np.empty((0, 3), np.int64)]
        for files in listed(dataset, ("images",)):
            for batch in origin.batches(files):
                entries = [row[0] for row in batch.column(PICTURES_FIELD).to_pylist()]
                hashes.append(hash_ids(batch.column("image_id").to_pylist()))
                rows = [(one["place"], one["offset"], one["length"]) for one in entries]
                found.append(np.array(rows, np.int64).reshape(-1, 3))
        together = np.concatenate(hashes)
        order = np.argsort(together, kind="stable")
        self._hashes, self._found = together[order], np.concatenate(found)[order]

    def candidates(self, image_id: str, path: str | None) -> Iterator[Candidate]:
        """The row of that id."""
        key = hash_ids([image_id])[0]
        position = int(np.searchsorted(self._hashes, key))
        if position < len(self._hashes) and self._hashes[position] == key:
            place, offset, length = self._found[position].tolist()
            yield place, offset, length


class FolderCopy:
    """Pictures below a folder and in the plain tars there, by name.

    A file fits a picture if its path ends with the path that the publication knows, or without its extension with the
    parts of the id behind the source: `ytvis/v1/00005` is `.../v1/00005.jpg`, `sa1b/12` is `sa_12.jpg`.
    """

    def __init__(self, folder: Folder) -> None:
        self.places = Places()
        self._named: dict[str, list[tuple[str, Candidate]]] = defaultdict(list)
        pictures, others = picture_names(folder)
        for name in pictures:
            self._add(name, (self.places.number(folder, name), 0, -1))
        for name in others:
            if name.endswith(".tar"):
                self._add_tar(folder, name)

    def _add_tar(self, folder: Folder, name: str) -> None:
        index = read_index(folder, name)
        if index.gzip:
            raise Refused(f"{name} is compressed, so its members cannot be read at will: unpack it with gunzip")
        place = self.places.number(folder, name)
        for member in index.members:
            if member.kind == "file" and member.whole:
                self._add(posixpath.normpath(member.name), (place, member.offset, member.size))

    def _add(self, name: str, where: Candidate) -> None:
        parts = encode(name).split("/")
        self._named[posixpath.splitext(parts[-1])[0]].append(("/".join(parts), where))

    def candidates(self, image_id: str, path: str | None) -> Iterator[Candidate]:
        """Files whose names fit, those that fit best first."""
        source, _, own = image_id.partition("/")
        wanted = [own, *([encode(path)] if path else [])]
        above, slash, last = own.rpartition("/")  # `sa1b/<set>/12` where sets of one numbering are told apart
        if source in ("sa1b", "subject10k") and not last.startswith("sa_"):
            wanted.append(f"{above}{slash}sa_{last}")
        keys = dict.fromkeys(key for name in wanted for key in (stem_of(name), posixpath.basename(name)))
        fitting = [(-_common(name, wanted), name, where) for key in keys for name, where in self._named.get(key, [])]
        for _, _, where in sorted(fitting):
            yield where


def stem_of(path: str) -> str:
    """File name without its extension."""
    return posixpath.splitext(posixpath.basename(stem(path) if path.endswith("/") else path))[0]


def _common(name: str, wanted: list[str]) -> int:
    """How many parts from the end a file's path has in common with the best of the wanted paths."""
    best = 0
    for other in wanted:
        count = 0
        for mine, theirs in zip(reversed(name.split("/")), reversed(other.split("/")), strict=False):
            if count == 0 and posixpath.splitext(mine)[0] in (theirs, posixpath.splitext(theirs)[0]):
                count = 1
            elif mine == theirs:
                count += 1
            else:
                break
        best = max(best, count)
    return best
