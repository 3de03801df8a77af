"""Headers of tars as strangers make them, and files that count what is read of them."""

import io
import tarfile
from functools import cache
from pathlib import Path

BLOCK = 512


def header(name: bytes, size: int | bytes, kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """One header with a true checksum; a size of bytes stands as it is."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(BLOCK)
    block[:100] = name.ljust(100, b"\0")[:100]
    block[100:108] = block[108:116] = block[116:124] = b"0000644\0"
    block[124:136] = field.ljust(12, b"\0")[:12]
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """The data of a member up to the next block."""
    return data + b"\0" * (-len(data) % BLOCK)


def member(name: str, data: bytes, kind: bytes = b"0") -> bytes:
    """A header and its data."""
    return header(name.encode(), len(data), kind) + padded(data)


def base256(value: int) -> bytes:
    """A size as large tars have it: 0x80 and eleven bytes, or two's complement for a negative one."""
    return value.to_bytes(12, "big", signed=True) if value < 0 else b"\x80" + value.to_bytes(11, "big")


def sparse(name: str, extended: int) -> bytes:
    """The header of a sparse file whose map goes on for some blocks, or for ever with -1."""
    block = bytearray(header(name.encode(), 0, b"S", b"ustar  \0"))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = bytearray(BLOCK)
    more[504] = 1
    last = bytes(BLOCK)
    return bytes(block) + bytes(more) * max(0, extended - 1) + (last if extended >= 0 else bytes(more) * 70_000)


@cache
def hostile_middles() -> dict[str, bytes]:
    """What may lie between two sound members, by name."""
    return {
        "a size of 2**80": header(b"big.jpg", base256(1 << 80)),
        "a negative size": header(b"neg.jpg", base256(-512)),
        "a size that is no number": header(b"odd.jpg", b"12x45"),
        "a name of 2**40 bytes": header(b"././@LongLink", base256(1 << 40), b"L"),
        "a name of negative length": header(b"././@LongLink", base256(-1), b"L"),
        "5,000 names in a row": member("././@LongLink", b"a.jpg\0", b"L") * 5000,
        "5,000 pax headers in a row": member("pax", b"13 path=a.jpg\n"[:13] + b"\n", b"x") * 5000,
        "a pax body of 4 GB": header(b"pax", 4 << 30, b"x"),
        "a pax body of 3 MB": member("pax", b"3000000 comment=" + b"a" * 2_999_983 + b"\n", b"x"),
        "a pax record of no length": member("pax", b"0 path=a\n", b"x") + member("a.jpg", b""),
        "a pax record beyond its body": member("pax", b"999 path=a\n", b"x") + member("a.jpg", b""),
        "a pax record without an end": member("pax", b"9" * 400, b"x") + member("a.jpg", b""),
        "a negative pax size": member("pax", b"11 size=-9\n", b"x") + member("a.jpg", b"abc"),
        "a giant pax size": member("pax", b"35 size=99999999999999999999999999\n", b"x") + member("a.jpg", b"abc"),
        "global headers for ever": member("pax", b"11 comment=\n"[:11] + b"\n", b"g") * 5000,
        "a sparse map without an end": sparse("holes.jpg", -1),
        "sparse junk": sparse("holes.jpg", 3)[:-BLOCK] + b"\xff" * BLOCK + header(b"x", 0)[:100].ljust(BLOCK, b"\xfe"),
        "a damaged checksum": b"\x01" + header(b"x.jpg", 0)[1:],
        "noise": bytes(range(256)) * 8,
    }


class Counted(io.BytesIO):
    """Counts the calls and the bytes of reads, and the largest of them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = self.bytes = self.largest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.reads += 1
        self.bytes += len(data)
        self.largest = max(self.largest, size if size is not None and size >= 0 else 1 << 62)
        return data


def write(path: Path, *parts: bytes) -> Path:
    """A tar of these parts and the two empty blocks of its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts) + bytes(2 * BLOCK))
    return path


def as_tarfile(data: bytes) -> list[tuple[str, int, int, str]]:
    """Name, offset, size and kind of every member as Python's tarfile sees it."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        for item in tar:
            kind = "file" if item.isreg() and not item.issparse() else "folder" if item.isdir() else "other"
            found.append((item.name, item.offset_data, item.size if item.isreg() else 0, kind))
    return found
