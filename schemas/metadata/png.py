"""PNG: chunks that decode the picture and say what its colours are. Texts, Exif, times and private chunks go.

https://www.w3.org/TR/png-3/
"""

import zlib

from refloom.schemas.metadata.pieces import Apart, CannotStrip, Piece, exif, says_orientation_alone, without_mark

_MARK = b"\x89PNG\r\n\x1a\n"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_COLOURS = frozenset(
    {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"sBIT", b"bKGD", b"hIST", b"pHYs"}
)
_MOST_TEXT = 1 << 22


def apart(data: bytes, orientation: int) -> Apart:
    """Take a PNG apart; arguments and errors as of `refloom.schemas.metadata.jpeg.apart`."""
    if data[:8] != _MARK:
        raise CannotStrip("no PNG")
    found = Apart([_MARK], [])
    position, has_pixels, is_said = 8, False, False
    while True:
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        if len(kind) < 4 or end > len(data):
            raise CannotStrip("a chunk leaves the PNG")
        body = data[position + 8 : position + 8 + length]
        if kind in _CRITICAL or kind in _COLOURS:
            if kind == b"IDAT" and not has_pixels:
                has_pixels = True
                if orientation != 1 and not is_said:
                    found.kept.append(_chunk(b"eXIf", exif(orientation)))
            found.kept.append(data[position:end])
        elif kind == b"eXIf" and not has_pixels and not is_said and says_orientation_alone(body, orientation):
            is_said = True
            found.kept.append(data[position:end])
        elif not kind[0] & 0x20:
            raise CannotStrip(f"a chunk {kind!r} that decides on the picture")
        else:
            found.dropped.append(_piece(kind, body))
        position = end
        if kind == b"IEND":
            break
    if position < len(data):
        found.dropped.append(Piece("picture", data[position:]))
    return found


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _piece(kind: bytes, body: bytes) -> Piece:
    if kind == b"eXIf":
        return Piece("exif", without_mark(body))
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return Piece("other", body)
    keyword, _, rest = body.partition(b"\x00")
    if kind == b"zTXt":
        text = _inflated(rest[1:])
    elif kind == b"iTXt":
        packed = rest[:1] == b"\x01"
        text = rest[2:].partition(b"\x00")[2].partition(b"\x00")[2]
        text = _inflated(text) if packed else text
    else:
        text = rest
    words = keyword.lower()
    if words.startswith(b"raw profile type"):
        raw = _raw(text)
        mark = b"http://ns.adobe.com/"
        if words.endswith(b"xmp") or raw.startswith(mark):
            return Piece("xmp", raw)
        return Piece("iptc" if words.endswith((b"iptc", b"8bim")) else "exif", without_mark(raw))
    return Piece("xmp" if b"xmp" in words else "text", keyword + b"\x00" + text)


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT)
    except zlib.error:
        return b""


def _raw(text: bytes) -> bytes:
    """The bytes of a profile that ImageMagick writes as hexadecimal text: name, length, digits."""
    lines = text.strip().split(b"\n", 2)
    try:
        return bytes.fromhex(lines[-1].decode("ascii")) if len(lines) == 3 else b""
    except (ValueError, UnicodeDecodeError):
        return b""
