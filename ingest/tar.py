"""Tars of other people: an index of their headers, and members by offset. Nothing is ever unpacked to a disk.

A plain tar is read by offset, in any order; a gzip tar can only be streamed.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from refloom.schemas.storage import Folder

MAX_MEMBER_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One header of a tar.

    Attributes:
        name: as it stands there.
        offset: where its bytes begin in the tar (in the unpacked stream of a gzip tar).
        size: bytes.
        kind: "file", "folder", or "other" for links, devices and pipes.
        whole: False if the tar ends before the member does.
    """

    name: str
    offset: int
    size: int
    kind: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Index:
    """All headers of a tar.

    Attributes:
        members: in order.
        gzip: whether the tar is compressed.
        problem: why the headers could not be read to the end; None for a sound tar.
    """

    members: tuple[Member, ...]
    gzip: bool
    problem: str | None


def read_index(folder: Folder, name: str) -> Index:
    """Read every header of a tar, and of a damaged one every header up to the damage.

    Raises:
        OSError: the file itself cannot be read.
    """
    size = folder.size(name)
    if size == 0:
        return Index((), False, "the file is empty")
    with folder.open(name) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        members, problem = _headers(file, compressed)
    end = None if compressed else size
    listed = tuple(
        Member(item.name, item.offset_data, item.size, _kind(item), end is None or item.offset_data + item.size <= end)
        for item in members
    )
    if compressed and problem and listed:
        listed = (*listed[:-1], Member(listed[-1].name, listed[-1].offset, listed[-1].size, listed[-1].kind, False))
    if problem is None and any(not member.whole for member in listed):
        problem = "the tar ends inside a member"
    return Index(listed, compressed, problem)


def _headers(file: IO[bytes], compressed: bool) -> tuple[list[tarfile.TarInfo], str | None]:
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(fileobj=file, mode="r|gz" if compressed else "r:", errors="surrogateescape") as tar:
            while (item := tar.next()) is not None:
                members.append(item)
                _forget(tar)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        return members, "not a tar" if not members else f"damaged after {members[-1].name!r} ({type(error).__name__})"
    return members, None


def _forget(tar: tarfile.TarFile) -> None:
    """Drop the headers that tarfile keeps of every member it has passed."""
    tar.__dict__["members"].clear()


def _kind(item: tarfile.TarInfo) -> str:
    if item.isreg() and not item.issparse():
        return "file"
    return "folder" if item.isdir() else "other"


def stream(folder: Folder, name: str) -> Iterator[tuple[str, int, bytes]]:
    """Name, offset and bytes of every regular file of a gzip tar, in order, up to the first damage."""
    with folder.open(name) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|gz", errors="surrogateescape") as tar:
                while (item := tar.next()) is not None:
                    _forget(tar)
                    if _kind(item) != "file" or item.size > MAX_MEMBER_BYTES:
                        continue
                    data = tar.extractfile(item)
                    if data is not None:
                        yield item.name, item.offset_data, data.read()
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OSError):
            return  # the index already says where the damage is
