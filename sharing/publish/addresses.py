"""Where each picture's bytes lie, so that they need not be carried from the first pass to the second.

Pictures are stored in Parquet as they are, without codec (docs/dataset.md): each lies in its file as one run of bytes
behind its length. It is found by looking for it, in order, in the bytes of its column chunk, and what was found is
compared; nothing here knows how Parquet lays out its pages.
"""

import os
from collections import OrderedDict
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.storage import Folder

PICTURES_FIELD = "_pictures"
"""Beside a row's own columns: one entry for every picture of it, in order."""

ADDRESS = pa.struct(
    [
        pa.field("place", pa.int32()),  # index into `Places`; -1 for bytes that are withheld
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),  # of the bytes that are published
        pa.field("stored", pa.int64()),  # of the bytes that lie there
        pa.field("sha256", pa.string()),  # of the bytes that lie there; null where nobody asked
        pa.field("published_sha256", pa.string()),  # of those that are published; null where they are the same
        pa.field("path", pa.string()),
    ]
)
ADDRESSES = pa.list_(ADDRESS)

WITHHELD = -1
"""The place of bytes that are not published: nobody knows how to take the metadata out of them."""

_HEAD = 64
_OPEN_FILES = 64


class Places:
    """Files that hold pictures, by number, read at offsets; a few are kept open."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._files: list[tuple[Folder, str]] = []
        self._open: OrderedDict[int, IO[bytes]] = OrderedDict()

    def number(self, folder: Folder, file: str) -> int:
        """The number of a file; the same one for the same file."""
        key = (folder.url, file)
        if key not in self._numbers:
            self._numbers[key] = len(self._files)
            self._files.append((folder, file))
        return self._numbers[key]

    def name(self, place: int) -> str:
        """The file of a number, for messages."""
        return self._files[place][1]

    def size(self, place: int) -> int:
        """Bytes of a file; OSError if it is gone."""
        folder, file = self._files[place]
        return folder.size(file)

    def to_json(self) -> list[list[str]]:
        """Folder and file of every number."""
        return [[folder.url, file] for folder, file in self._files]

    @classmethod
    def from_json(cls, listed: list[list[str]]) -> "Places":
        """The inverse of `to_json`."""
        places = cls()
        folders: dict[str, Folder] = {}
        for url, file in listed:
            places.number(folders.setdefault(url, Folder(url)), file)
        return places

    def fill(self, place: int, offset: int, into: memoryview) -> None:
        """Read bytes straight to where they are wanted.

        Args:
            place: number of the file.
            offset: of the first byte.
            into: as long as what is wanted.

        Raises:
            JobStopped: the file is gone or shorter than it was.
        """
        try:
            file = self._opened(place)
            if self._files[place][0].is_local:
                read = os.preadv(file.fileno(), [into], offset)
            else:
                file.seek(offset)
                data = file.read(len(into))
                read = len(data)
                into[:read] = data
        except OSError as error:
            raise JobStopped(f"{self.name(place)} cannot be read ({error}): put it back and run again") from error
        if read != len(into):
            raise JobStopped(f"{self.name(place)} is shorter than it was: put it back and run again")

    def _opened(self, place: int) -> IO[bytes]:
        if place not in self._open:
            folder, file = self._files[place]
            self._open[place] = open(folder.at(file), "rb", buffering=0) if folder.is_local else folder.open(file)  # noqa: SIM115  closed below
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(place)
        return self._open[place]

    def close(self) -> None:
        """Close what is open."""
        for file in self._open.values():
            file.close()
        self._open.clear()


def chunk_of(reader: pq.ParquetFile, group: int, column: str) -> tuple[int, int]:
    """Offset and length of the column chunk of a leaf, e.g. `image.bytes`, in its file."""
    metadata = reader.metadata.row_group(group)
    for index in range(metadata.num_columns):
        found = metadata.column(index)
        if found.path_in_schema == column:
            return found.dictionary_page_offset or found.data_page_offset, found.total_compressed_size
    raise KeyError(column)


def locate(values: pa.Array, chunk: pa.Buffer, start: int, where: str) -> list[int]:
    """Offsets in the file of N pictures.

    Args:
        values: binary (N,), in the order of the file, without null.
        chunk: the bytes of their column chunk.
        start: offset of the chunk in the file.
        where: the file, for messages.

    Raises:
        Refused: they do not lie there as they are; the file was written by something else.
    """
    offsets, cursor = [], 0
    for value in values:
        data = value.as_buffer()
        head = data.size.to_bytes(4, "little") + _part(data, 0, _HEAD).to_pybytes()
        while True:
            cursor = _find(head, chunk, cursor)
            if cursor < 0:
                raise Refused(f"{where}: pictures are not stored as they are; refloom did not write this file")
            if data.equals(_part(chunk, cursor + 4, data.size)):
                break
            cursor += 1
        offsets.append(start + cursor + 4)
        cursor += 4 + data.size
    return offsets


def _part(buffer: pa.Buffer, start: int, length: int) -> pa.Buffer:
    """What there is of `length` bytes, without a copy."""
    return buffer.slice(start, max(0, min(length, buffer.size - start)))


def _find(head: bytes, chunk: pa.Buffer, cursor: int) -> int:
    """Where `head` first comes at or behind `cursor`, -1 if nowhere; mostly at once, or behind the head of a page."""
    window = len(head)
    while cursor < chunk.size:
        found: int = _part(chunk, cursor, window).to_pybytes().find(head)
        if found >= 0:
            return cursor + found
        if cursor + window >= chunk.size:
            break
        window *= 8
    return -1
