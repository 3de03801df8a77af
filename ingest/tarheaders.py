"""The headers of a tar that a stranger made, one after another, with every length that the tar claims checked first.

    header   512 bytes: name, size, checksum, kind, prefix (POSIX ustar; older tars have no prefix)
    L, K     the body is the name, or the target of a link, of the member behind it (GNU)
    x, X, g  the body is lines of `length key=value`: path and size of the member behind it (pax); g is of all members
    S        a sparse file: more headers may follow at once (GNU)

Nothing is taken into memory but names: bodies of members are skipped, bodies of headers have a limit, and so have their
number before one member, the members, the bytes of all names, and what a compressed tar may grow to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from gzip import GzipFile
from typing import IO

BLOCK_BYTES = 512
MAX_HEADER_BODY_BYTES = 1 << 20
"""Of one long name or one pax header; those of real tars have a few hundred bytes."""
MAX_CHAIN = 16
"""Headers that say something of one member; real tars have up to three."""
MAX_SPARSE_BLOCKS = 1 << 16
MAX_MEMBERS = 2_000_000
MAX_NAMES_BYTES = 256 << 20
MAX_INFLATION = 100
"""Pictures do not shrink and their records shrink 5 to 20 times; a tar that grows more than this is a bomb."""
SMALLEST_INFLATION_BYTES = 16 << 20
"""What any compressed tar may grow to: a small one is mostly its own padding."""

_SKIP_BYTES = 1 << 16
_BODYLESS = frozenset(b"123456")
"""Links, devices, folders and pipes have no body, whatever size they claim."""
_FILES = frozenset(b"\x000")
_LONG = frozenset(b"LK")
_PAX = frozenset(b"xX")


class Damaged(Exception):
    """The headers cannot be read on; the text says why, in a few words that are the same for ever."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as its headers describe it.

    Attributes:
        name: as it stands there, of a folder without the slash at the end; bytes that are not UTF-8 are surrogates.
        offset: where its bytes begin, from the start of the (unpacked) tar.
        size: bytes.
        kind: "file", "folder", or "other" for links, devices, pipes and sparse files.
    """

    name: str
    offset: int
    size: int
    kind: str


class Blocks:
    """A tar read forward; counts what was read.

    Args:
        file: open at the start of the tar.
        end: bytes of a plain tar; None of one that can only be read through.
        limit: bytes after which a tar without an end is a bomb.

    Attributes:
        read_bytes: how many bytes were taken out of `file`, skipped ones included where it cannot seek.
    """

    def __init__(self, file: IO[bytes] | GzipFile, end: int | None, limit: int | None = None) -> None:
        self._file, self._end, self._limit = file, end, limit
        self.position = self.read_bytes = 0

    def take(self, count: int) -> bytes:
        """The next bytes; fewer where the tar ends."""
        data = b"".join(self._pieces(count))
        self.position += len(data)
        return data

    def skip(self, count: int) -> bool:
        """Pass over bytes; False where the tar ends before."""
        if self._end is not None:
            self.position += count
            if self.position <= self._end:
                self._file.seek(self.position)
            return self.position <= self._end
        passed = sum(len(piece) for piece in self._pieces(count))
        self.position += passed
        return passed == count

    def _pieces(self, count: int) -> Iterator[bytes]:
        while count:
            piece = self._file.read(min(count, _SKIP_BYTES))
            self.read_bytes += len(piece)
            if self._limit is not None and self.read_bytes > self._limit:
                raise Damaged("it grows beyond reason when it is unpacked")
            if not piece:
                return
            count -= len(piece)
            yield piece


def walk(blocks: Blocks) -> Iterator[Entry]:
    """The members in order. The caller may take bytes of a member, no more than it has, before it asks for the next.

    Raises:
        Damaged: at the first header that is not sound, or where one of the limits is passed. Nothing at all is `not a
            tar`.
        OSError, EOFError, zlib.error: the file itself cannot be read on.
    """
    members = names = 0
    while (entry := _member(blocks, is_first=not members)) is not None:
        members += 1
        names += len(entry.name)
        if members > MAX_MEMBERS:
            raise Damaged(f"it has more than {MAX_MEMBERS:,} members")
        if names > MAX_NAMES_BYTES:
            raise Damaged("its names alone fill the memory")
        yield entry
        if not blocks.skip(_padded(entry.offset + entry.size) - blocks.position):
            return


def _padded(offset: int) -> int:
    return -(-offset // BLOCK_BYTES) * BLOCK_BYTES


def _member(blocks: Blocks, *, is_first: bool) -> Entry | None:
    """The next member with all that the headers before it say; None at the end."""
    name: str | None = None
    size: int | None = None
    is_sparse = False
    for link in range(MAX_CHAIN + 1):
        header = blocks.take(BLOCK_BYTES)
        if not header or header.count(0) == len(header):
            if link:
                raise Damaged("it ends between a header and its member")
            return None
        if len(header) < BLOCK_BYTES or not _sums_up(header):
            raise Damaged("not a tar" if is_first and not link else "a header is damaged")
        kind, own_size = header[156], _number(header[124:136])
        if kind in _LONG:
            body = _body(blocks, own_size)
            name = _text(body) if kind == ord("L") and name is None else name
        elif kind in _PAX:
            facts = _pax(_body(blocks, own_size))
            if name is None and b"path" in facts:
                name = _text(facts[b"path"])
            if size is None and b"size" in facts:
                size = _whole(facts[b"size"])
            is_sparse = is_sparse or any(key.startswith(b"GNU.sparse.") for key in facts)
        elif kind == ord("g"):
            _body(blocks, own_size)
        else:
            return _entry(blocks, header, name, own_size if size is None else size, is_sparse)
    raise Damaged(f"more than {MAX_CHAIN} headers in a row for one member")


def _entry(blocks: Blocks, header: bytes, name: str | None, size: int, is_sparse: bool) -> Entry:
    kind = header[156]
    if name is None:
        name = _text(header[:100])
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
        name = f"{prefix}/{name}" if prefix else name
    if kind == ord("S"):
        _skip_sparse_map(blocks, is_extended=header[482] != 0)
    is_folder = kind == ord("5") or (kind == 0 and name.endswith("/"))
    is_file = kind in _FILES or kind == ord("7")
    what = "folder" if is_folder else "file" if is_file and not is_sparse else "other"
    has_body = kind not in _BODYLESS and not is_folder
    return Entry(name.rstrip("/") if is_folder else name, blocks.position, size if has_body else 0, what)


def _skip_sparse_map(blocks: Blocks, *, is_extended: bool) -> None:
    for _ in range(MAX_SPARSE_BLOCKS):
        if not is_extended:
            return
        block = blocks.take(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise Damaged("it ends inside the map of a sparse file")
        is_extended = block[504] != 0
    raise Damaged("the map of a sparse file has no end")


def _body(blocks: Blocks, size: int) -> bytes:
    """The body of a header, which is all of a tar that is ever taken into memory here."""
    if size > MAX_HEADER_BODY_BYTES:
        raise Damaged(f"a header with a body of {size} bytes")
    body = blocks.take(size)
    if len(body) < size or not blocks.skip(_padded(size) - size):
        raise Damaged("it ends inside a header")
    return body


def _sums_up(header: bytes) -> bool:
    """Whether the checksum is right, which some tars make of signed bytes."""
    try:
        claimed = _number(header[148:156])
    except Damaged:
        return False
    rest = header[:148] + header[156:]
    unsigned = sum(rest) + 8 * ord(" ")
    return claimed == unsigned or claimed == unsigned - 256 * sum(byte > 127 for byte in rest)


def _number(field: bytes) -> int:
    """A number of a header: octal text, or big-endian behind a set first bit where eight digits do not do."""
    if field[0] == 0x80:
        return _in_range(int.from_bytes(field[1:], "big"))
    if field[0] & 0x80:
        raise Damaged("a header with a negative or impossible size")
    digits = field.split(b"\0")[0].strip()
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise Damaged("a header with a size that is no number")
    return int(digits, 8)


def _whole(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise Damaged("a header with a size that is no number")
    return _in_range(int(value))


def _in_range(value: int) -> int:
    if value >= 1 << 62:  # no file is that large, and 64 bits hold no sum of two such
        raise Damaged("a header with a negative or impossible size")
    return value


def _pax(body: bytes) -> dict[bytes, bytes]:
    """The records of a pax header, `length key=value` and a line end each; the length counts the whole record."""
    facts: dict[bytes, bytes] = {}
    position = 0
    while position < len(body) and body[position]:
        space = body.find(b" ", position, position + 12)
        digits = body[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        equals = body.find(b"=", space, end)
        if equals < 0 or end > len(body) or body[end - 1 : end] != b"\n":
            raise Damaged("a pax header that is no list of records")
        facts[body[space + 1 : equals]] = body[equals + 1 : end - 1]
        position = end
    return facts


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
