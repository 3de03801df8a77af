"""Tars of other people: an index of their headers, and members by offset. Nothing is ever unpacked to a disk.

A plain tar is read by offset, in any order; a gzip tar can only be streamed.
"""

import gzip
import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import IO

from refloom.ingest import tarheaders
from refloom.schemas.storage import Folder

MAX_MEMBER_BYTES = 512 << 20
_MAX_PROBLEM_CHARACTERS = 300
_UNREADABLE = (OSError, EOFError, zlib.error)
"""What a damaged gzip file raises, and a disk."""


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

    What headers may claim and how many there may be is bounded by `ingest.tarheaders`; what passes a bound is damage.

    Raises:
        OSError: the file itself cannot be read.
    """
    size = folder.size(name)
    if size == 0:
        return Index((), False, "the file is empty")
    with folder.open(name) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        members, problem = _headers(file, size, compressed)
    if compressed and problem and members:
        members[-1] = replace(members[-1], whole=False)
    if problem is None and any(not member.whole for member in members):
        problem = "the tar ends inside a member"
    return Index(tuple(members), compressed, problem)


def _headers(file: IO[bytes], size: int, compressed: bool) -> tuple[list[Member], str | None]:
    members: list[Member] = []
    try:
        for entry in tarheaders.walk(_blocks(file, size, compressed)):
            whole = compressed or entry.offset + entry.size <= size
            members.append(Member(entry.name, entry.offset, entry.size, entry.kind, whole))
    except (tarheaders.Damaged, *_UNREADABLE) as error:
        if not members:
            return members, "not a tar" if not isinstance(error, tarheaders.Damaged) else str(error)
        why = str(error) if isinstance(error, tarheaders.Damaged) else type(error).__name__
        return members, f"damaged after {members[-1].name!r} ({why})"[:_MAX_PROBLEM_CHARACTERS]
    return members, None


def _blocks(file: IO[bytes], size: int, compressed: bool) -> tarheaders.Blocks:
    if not compressed:
        return tarheaders.Blocks(file, size)
    limit = max(tarheaders.SMALLEST_INFLATION_BYTES, tarheaders.MAX_INFLATION * size)
    return tarheaders.Blocks(gzip.GzipFile(fileobj=file, mode="rb"), None, limit)


def stream(folder: Folder, name: str, wanted: Container[int]) -> Iterator[tuple[str, int, bytes]]:
    """Name, offset and bytes of regular files of a gzip tar, in order, up to the first damage.

    Args:
        folder, name: of the tar.
        wanted: offsets of the members whose bytes are asked for; asked when a member comes.
    """
    size = folder.size(name)
    with folder.open(name) as file:
        blocks = _blocks(file, size, compressed=True)
        try:
            for entry in tarheaders.walk(blocks):
                if entry.kind != "file" or entry.size > MAX_MEMBER_BYTES or entry.offset not in wanted:
                    continue
                data = blocks.take(entry.size)
                if len(data) < entry.size:
                    return
                yield entry.name, entry.offset, data
        except (tarheaders.Damaged, *_UNREADABLE):
            return  # the index already says where the damage is
