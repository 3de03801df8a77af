"""GIF, BMP, PNM and JPEG 2000, which hold little beside their pixels: comments, applications' blocks, boxes."""

import re
import struct
from collections.abc import Iterator

from refloom.schemas.metadata.pieces import Apart, CannotStrip, Piece

_GIF_PROFILE = b"ICCRGBG1012"
_GIF_XMP = b"XMP DataXMP"
_JP2_NEEDED = frozenset({b"jP  ", b"ftyp", b"jp2h", b"jp2c"})
_JP2_HEADER = frozenset({b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef", b"res "})
_PNM_RASTER = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*([^\s#]+)")
_LINKED = 0x4C494E4B
"""`LINK`: a BMP whose profile is the name of a file."""


def gif(data: bytes, orientation: int) -> Apart:
    """Take a GIF apart: pictures and what controls them stay; arguments and errors as of `jpeg.apart`."""
    if len(data) < 13 or data[:4] != b"GIF8" or orientation != 1:
        raise CannotStrip("no GIF")
    position = 13 + _palette(data[10])
    found = Apart([data[:position]], [])
    while True:
        start, mark = position, data[position : position + 1]
        if mark == b"\x3b":
            found.kept.append(mark)
            position += 1
            break
        if mark == b"\x2c" and len(data) > position + 10:
            position = _behind_blocks(data, position + 11 + _palette(data[position + 9]))
            found.kept.append(data[start:position])
        elif mark == b"\x21" and len(data) > position + 2:
            kind = data[position + 1]
            position = _behind_blocks(data, position + 2)
            block = data[start:position]
            name = block[3:14] if kind == 0xFF else b""
            if kind == 0xF9 or name == _GIF_PROFILE:
                found.kept.append(block)
            else:
                found.dropped.append(Piece("xmp" if name == _GIF_XMP else "text", block))
        else:
            raise CannotStrip("a GIF that does not end")
    if position < len(data):
        found.dropped.append(Piece("picture", data[position:]))
    return found


def _palette(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_blocks(data: bytes, position: int) -> int:
    while True:
        if position >= len(data):
            raise CannotStrip("a GIF that does not end")
        length = data[position]
        position += 1 + length
        if not length:
            return position


def bmp(data: bytes, orientation: int) -> Apart:
    """A BMP has no room for metadata but in the name of its profile's file, and behind its end."""
    if len(data) < 26 or data[:2] != b"BM" or orientation != 1:
        raise CannotStrip("no BMP")
    (size, header) = struct.unpack_from("<I8xI", data, 2)
    if header >= 124 and struct.unpack_from("<I", data, 14 + 56)[0] == _LINKED:
        raise CannotStrip("a BMP that names a file of its maker's")
    return Apart([data[:size]], [Piece("picture", data[size:])]) if 26 < size < len(data) else Apart([data], [])


def pnm(data: bytes, orientation: int) -> Apart:
    """A PNM without the comments of its header."""
    kind = data[1:2]
    if data[:1] != b"P" or kind not in b"123456" or orientation != 1:
        raise CannotStrip("no PNM")
    if kind in b"123":
        plain = re.sub(rb"#[^\n\r]*", b"", data)
        return Apart([plain], [Piece("text", data)] if plain != data else [])
    words, position = [data[:2]], 2
    for _ in range(2 if kind == b"4" else 3):
        found = _PNM_RASTER.match(data, position)
        if found is None:
            raise CannotStrip("a PNM without a header")
        words.append(found[1])
        position = found.end()
    try:
        width, height = int(words[1]), int(words[2])
        top = int(words[3]) if len(words) > 3 else 1
    except ValueError as error:
        raise CannotStrip("a PNM without a header") from error
    row = (width + 7) // 8 if kind == b"4" else width * (3 if kind == b"6" else 1) * (2 if top > 255 else 1)
    end = position + 1 + row * height
    head = b" ".join(words) + b"\n"
    same = b"#" not in data[:position] and end >= len(data)
    return Apart([data], []) if same else Apart([head, data[position + 1 : end]], [Piece("text", data[:position])])


def jpeg2000(data: bytes, orientation: int) -> Apart:
    """JPEG 2000: boxes of the picture and its colours stay, and of the stream all but comments before its tiles."""
    if orientation != 1:
        raise CannotStrip("a turned JPEG 2000")
    found = Apart([], [])
    if data[:4] == b"\xff\x4f\xff\x51":
        found.kept.append(_stream(data, found.dropped))
        return found
    try:
        for kind, body in _boxes(data):
            if kind not in _JP2_NEEDED:
                found.dropped.append(Piece("xmp" if kind in (b"uuid", b"xml ") else "other", body))
                continue
            if kind == b"jp2h":
                body = b"".join(_box(*one) for one in _boxes(body) if one[0] in _JP2_HEADER)
            elif kind == b"jp2c":
                body = _stream(body, found.dropped)
            found.kept.append(_box(kind, body))
    except struct.error as error:
        raise CannotStrip("a box leaves the JPEG 2000") from error
    return found


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        length = length or len(data) - position
        if position + length > len(data) or position + length < start:
            raise CannotStrip("a box leaves the JPEG 2000")
        yield kind, data[start : position + length]
        position += length


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _stream(data: bytes, dropped: list[Piece]) -> bytes:
    """A code stream without the comments (COM) of its main header."""
    out, position = [data[:2]], 2
    while data[position : position + 2] not in (b"\xff\x90", b""):
        marker, length = struct.unpack_from(">HH", data, position)
        end = position + 2 + length
        if marker < 0xFF00 or end > len(data):
            raise CannotStrip("the header of the JPEG 2000 leaves the file")
        if marker == 0xFF64:
            dropped.append(Piece("text", data[position:end]))
        else:
            out.append(data[position:end])
        position = end
    return b"".join([*out, data[position:]])
