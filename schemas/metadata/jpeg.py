"""JPEG: segments that decode the picture, JFIF without its thumbnail, Adobe's colour mark, the ICC profile.

Everything else goes: Exif, XMP and its extensions, Photoshop's resources, MPF, FPXR, JUMBF, comments, other APPn, and
what lies behind the end marker (MPO's other pictures, motion photos, trailers of makers).
ITU-T T.81 B.1; JFIF 1.02.
"""

import re

from refloom.schemas.metadata.pieces import Apart, CannotStrip, Piece, exif, says_orientation_alone

_SOI, _EOI, _SOS, _COM, _DQT, _DRI = 0xD8, 0xD9, 0xDA, 0xFE, 0xDB, 0xDD
_NEEDED = frozenset({*range(0xC0, 0xC8), *range(0xC9, 0xD0), _DQT, _DRI, 0xDC, 0xDE, 0xDF})
"""Frames, tables, restart intervals, number of lines, hierarchical progression."""
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Begins with one byte that is always the same, which is what a search of C's library can look for."""
_XMP = (b"http://ns.adobe.com/xap/1.0/\x00", b"http://ns.adobe.com/xmp/extension/\x00")
_ADOBE_BYTES = 12
_JFIF_BYTES = 14


def apart(data: bytes, orientation: int) -> Apart:
    """Take a JPEG apart.

    Args:
        data: the file, or a stream of a TIFF's strips or tables.
        orientation: 1..8, that is written down again where it is not 1.

    Raises:
        CannotStrip: segments leave the file, or a second picture begins inside the first.
    """
    if data[:2] != b"\xff\xd8":
        raise CannotStrip("no JPEG")
    found = Apart([b"\xff\xd8"], [])
    marked, is_said = 1, False
    position = 2
    while True:
        start = data.find(b"\xff", position)
        while 0 <= start < len(data) - 1 and data[start + 1] == 0xFF:
            start += 1
        if start < 0 or start + 2 > len(data):
            raise CannotStrip("the JPEG has no end marker")
        marker, position = data[start + 1], start + 2
        if marker == 0 or marker in _BARE:
            continue
        if marker == _EOI:
            found.kept.append(b"\xff\xd9")
            if position < len(data):
                found.dropped.append(Piece("picture", data[position:]))
            break
        if marker == _SOI:
            raise CannotStrip("a picture begins inside the JPEG")
        length = int.from_bytes(data[position : position + 2], "big")
        body, position = data[position + 2 : position + length], position + length
        if length < 2 or position > len(data):
            raise CannotStrip("a segment leaves the JPEG")
        kept = _kept(marker, body)
        if not is_said and marker == 0xE1 and says_orientation_alone(body, orientation):
            kept, is_said = body, True
        if kept is None:
            found.dropped.append(_piece(marker, body))
        else:
            found.kept.append(_segment(marker, kept))
            if kept != body:
                found.dropped.append(Piece("other", body))
            if marker == 0xE0 and len(found.kept) == 2:
                marked = 2  # Exif comes behind JFIF
        if marker == _SOS:
            after = _BEHIND_SCAN.search(data, position)
            if after is None:
                raise CannotStrip("the JPEG has no end marker")
            end = after.start()
            while end > position and data[end - 1] == 0xFF:  # a marker may be filled up in front
                end -= 1
            found.kept.append(data[position:end])
            position = end
    if orientation != 1 and not is_said:
        found.kept.insert(marked, _segment(0xE1, b"Exif\x00\x00" + exif(orientation)))
    return found


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _kept(marker: int, body: bytes) -> bytes | None:
    """What of a segment stays."""
    if marker in _NEEDED or marker == _SOS:
        return body
    if marker == 0xE0 and body.startswith(b"JFIF\x00"):
        if len(body) <= _JFIF_BYTES:
            return body
        return body[: _JFIF_BYTES - 2] + b"\x00\x00"  # without its thumbnail
    if marker == 0xE2 and body.startswith(b"ICC_PROFILE\x00"):
        return body
    if marker == 0xEE and body.startswith(b"Adobe"):
        return body[:_ADOBE_BYTES]
    return None


def _piece(marker: int, body: bytes) -> Piece:
    if marker == 0xE1 and body.startswith(b"Exif\x00"):
        return Piece("exif", body[6:])
    for mark in _XMP:
        if body.startswith(mark):
            return Piece("xmp", body)
    if marker == 0xED:
        return Piece("iptc", body)
    return Piece("text" if marker == _COM else "other", body)
