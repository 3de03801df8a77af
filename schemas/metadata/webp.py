"""WebP: the pixels, transparency, frames and the ICC profile. Exif, XMP and unknown chunks go.

https://developers.google.com/speed/webp/docs/riff_container
"""

from collections.abc import Iterator

from refloom.schemas.metadata.pieces import Apart, CannotStrip, Piece, exif, says_orientation_alone, without_mark

_NEEDED = frozenset({b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM"})
_EXIF_FLAG, _XMP_FLAG = 0x08, 0x04
_FRAME_BYTES = 16


def apart(data: bytes, orientation: int) -> Apart:
    """Take a WebP apart; arguments and errors as of `refloom.schemas.metadata.jpeg.apart`."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise CannotStrip("no WebP")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise CannotStrip("the WebP ends before its length")
    kept: list[bytes] = []
    dropped: list[Piece] = []
    extended = is_said = False
    for kind, body in _chunks(data, 12, end):
        if kind == b"VP8X" and len(body) >= 10:
            flags = (body[0] & ~(_EXIF_FLAG | _XMP_FLAG)) | (_EXIF_FLAG if orientation != 1 else 0)
            kept.append(_chunk(kind, bytes((flags,)) + body[1:10]))
            extended = True
        elif kind in _NEEDED:
            kept.append(_chunk(kind, body))
        elif kind == b"ANMF":
            kept.append(_chunk(kind, _frame(body, dropped)))
        elif kind == b"EXIF" and not is_said and orientation != 1 and says_orientation_alone(body, orientation):
            is_said = True
            kept.append(_chunk(kind, body))
        else:
            dropped.append(_piece(kind, body))
    if end < len(data):
        dropped.append(Piece("picture", data[end:]))
    if orientation != 1:
        if not extended:
            raise CannotStrip("a turned WebP without the header that allows it")
        kept += [] if is_said else [_chunk(b"EXIF", exif(orientation))]
    size = 4 + sum(map(len, kept))
    return Apart([b"RIFF" + size.to_bytes(4, "little") + b"WEBP", *kept], dropped)


def _chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while position < end:
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        start = position + 8
        if start > end or start + length > end:
            raise CannotStrip("a chunk leaves the WebP")
        yield kind, data[start : start + length]
        position = start + length + length % 2


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "little") + body + b"\x00" * (len(body) % 2)


def _frame(body: bytes, dropped: list[Piece]) -> bytes:
    """A frame without chunks that are not its pixels."""
    kept = [body[:_FRAME_BYTES]]
    for kind, inner in _chunks(body, _FRAME_BYTES, len(body)):
        if kind in _NEEDED:
            kept.append(_chunk(kind, inner))
        else:
            dropped.append(_piece(kind, inner))
    return b"".join(kept)


def _piece(kind: bytes, body: bytes) -> Piece:
    if kind == b"EXIF":
        return Piece("exif", without_mark(body))
    return Piece("xmp" if kind == b"XMP " else "other", body)
