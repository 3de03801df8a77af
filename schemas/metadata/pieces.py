"""What the formats share: what was taken out, that something cannot be, and an Exif block that says one thing."""

import struct
from dataclasses import dataclass

_ORIENTATION = 0x0112


class CannotStrip(Exception):
    """A file that cannot be taken apart safely, so that nobody knows what would be left in it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that was taken out.

    Attributes:
        kind: exif (a TIFF block), xmp, iptc (Photoshop's resources or bare records), text, picture (files behind the
            picture), other.
        data: its bytes.
    """

    kind: str
    data: bytes


@dataclass(slots=True)
class Apart:
    """A file taken apart.

    Attributes:
        kept: pieces of the file that stay, in order.
        dropped: what does not.
    """

    kept: list[bytes]
    dropped: list[Piece]


def exif(orientation: int) -> bytes:
    """A TIFF block of one directory with the orientation alone, 26 bytes."""
    entry = struct.pack("<HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    return b"II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def says_orientation_alone(block: bytes, orientation: int) -> bool:
    """Whether a TIFF block is one directory with this orientation, and not a byte more."""
    tiff = without_mark(block)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) != 26 or tiff[22:] != b"\x00" * 4:
        return False
    start, count, tag, kind, number = struct.unpack_from(order + "IHHHI", tiff, 4)
    value = struct.unpack_from(order + ("H" if kind == 3 else "I"), tiff, 18)[0]
    rest = tiff[20:22] if kind == 3 else b""
    whole = (start, count, tag, number, value) == (8, 1, _ORIENTATION, 1, orientation)
    return whole and kind in (3, 4) and not any(rest)


def without_mark(data: bytes) -> bytes:
    """A TIFF block without the letters that JPEG puts in front of it."""
    return data.removeprefix(b"Exif\x00\x00")
