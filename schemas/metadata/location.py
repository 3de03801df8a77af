"""Whether a picture's file says where it was taken: GPS in Exif, places in XMP and IPTC. Which place is not told."""

import re
import struct

import numpy as np

from refloom.schemas import headers
from refloom.schemas.errors import Rejected
from refloom.schemas.metadata.pieces import CannotStrip, Piece, without_mark
from refloom.schemas.metadata.stripping import take_apart

_GPS_DIRECTORY = 0x8825
_GPS_PLACES = frozenset({2, 4, 20, 22, 28})
"""Latitude and longitude, of the camera and of what it points at; the name of an area."""
_IN_XMP = re.compile(
    rb"GPS(?:Dest)?L(?:at|ong)itude|GPSAreaInformation|photoshop:(?:City|State|Country)|"
    rb"Iptc4xmpCore:(?:Location|CountryCode)|Iptc4xmpExt:Location(?:Created|Shown)"
)
_IN_TEXT = re.compile(rb"(?i)gps.?(?:dest)?l(?:at|ong)itude|\bgeo:l(?:at|on)|exif:GPSL")
_IPTC_PLACES = (26, 27, 90, 92, 95, 100, 101)
"""Datasets of record 2: content location, city, sublocation, state, country."""
_IN_IPTC = re.compile(b"\x1c\x02[" + re.escape(bytes(_IPTC_PLACES)) + b"]..", re.DOTALL)
_MARKS = (b"Exif\x00", b"http://ns.adobe.com/", b"8BIM", b"GPSL", b"geo:l")
_NO_SCAN = np.isin(np.arange(256), [0xD8, 0xD9, *range(0xE0, 0xF0), 0xFE])
"""Second bytes of markers of what is no part of a picture's scans: another picture, its end, segments, comments."""
_DEEPEST = 3


def has_location(data: bytes) -> bool | None:
    """Whether a file says where its picture was taken; None where nobody here can tell.

    Args:
        data: a picture's file.
    """
    return _has_location(data, _DEEPEST)


def _has_location(data: bytes, depth: int) -> bool | None:
    if data[:3] == b"\xff\xd8\xff" and not _may_say(data):
        return False  # most pictures of data sets, in a hundredth of the time
    try:
        pieces = take_apart(data, headers.read(data)).dropped
    except (CannotStrip, Rejected):
        return None
    except Exception:  # whatever a decoder trips over costs this answer and not the picture
        return None
    blocks = [piece.data for piece in pieces if piece.kind == "exif"]
    joined = [b"".join(blocks)] if len(blocks) > 1 else []  # one block in two segments
    return any(_is_located(block) for block in (*blocks, *joined)) or any(_says(piece, depth) for piece in pieces)


def _may_say(data: bytes) -> bool:
    """Whether a JPEG holds anything that could speak of a place. Where only scans follow its tables these are searched.

    In the data of a scan a 0xFF is followed by 0 or by the mark of a restart, so any other pair is a segment.
    """
    start = data.find(b"\xff\xda")
    tables = data[: start if start >= 0 else len(data)]
    if any(mark in tables for mark in _MARKS):
        return True
    rest = np.frombuffer(data, np.uint8)[len(tables) :]  # a quarter of the time of a search for each mark
    others = int(np.count_nonzero(_NO_SCAN[rest[np.flatnonzero(rest[:-1] == 0xFF) + 1]]))
    is_plain = others == 1 and data.endswith(b"\xff\xd9")
    return not is_plain and any(mark in data for mark in _MARKS)


def _says(piece: Piece, depth: int) -> bool:
    if piece.kind == "xmp":
        return bool(_IN_XMP.search(piece.data) or _IN_TEXT.search(piece.data))
    if piece.kind == "iptc":
        return bool(_IN_IPTC.search(piece.data) or _IN_XMP.search(piece.data)) or _in_photoshop(piece.data)
    if piece.kind == "text":
        return bool(_IN_TEXT.search(piece.data))
    if piece.kind == "picture" and depth:
        start = piece.data.find(b"\xff\xd8\xff")
        return start >= 0 and bool(_has_location(piece.data[start:], depth - 1))
    return False


def _in_photoshop(data: bytes) -> bool:
    """Whether Photoshop's resources hold an Exif block with a place."""
    position = data.find(b"8BIM")
    while position >= 0:
        if data[position + 4 : position + 6] in (b"\x04\x22", b"\x04\x23"):
            start = next((at for mark in (b"II*\x00", b"MM\x00*") if (at := data.find(mark, position)) >= 0), -1)
            if start >= 0 and _is_located(data[start:]):
                return True
        position = data.find(b"8BIM", position + 4)
    return False


def _is_located(block: bytes) -> bool:
    """Whether a TIFF block has a directory of GPS with a place."""
    tiff = without_mark(block)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return False
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        for _ in range(2):  # the picture's directory, and its thumbnail's
            tags, start = _directory(tiff, order, start)
            if _GPS_DIRECTORY in tags and not _GPS_PLACES.isdisjoint(_directory(tiff, order, tags[_GPS_DIRECTORY])[0]):
                return True
            if not start:
                break
    except struct.error:
        return False
    return False


def _directory(tiff: bytes, order: str, start: int) -> tuple[dict[int, int], int]:
    """Tag to value or offset of one directory, and where the next one is."""
    (count,) = struct.unpack_from(order + "H", tiff, start)
    entries = [struct.unpack_from(order + "HHII", tiff, start + 2 + 12 * at) for at in range(count)]
    end = start + 2 + 12 * count
    after = struct.unpack_from(order + "I", tiff, end)[0] if end + 4 <= len(tiff) else 0
    return {tag: value for tag, _, _, value in entries}, after
