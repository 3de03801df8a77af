"""TIFF: written anew from its first directory, with the tags that decode the picture and those of its colours.

Nothing else is copied: no other tag, no sub-directory (Exif, GPS, thumbnails), no byte that no tag points to.
TIFF 6.0; BigTIFF: http://bigtiff.org; compressions whose streams may hold metadata of their own are not taken apart,
but for JPEG's, whose streams are stripped too.
"""

import struct
from dataclasses import dataclass

from refloom.schemas.metadata import jpeg
from refloom.schemas.metadata.pieces import Apart, CannotStrip, Piece

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_COMPRESSION, _ORIENTATION, _JPEG_TABLES = 259, 274, 347
_JPEG = 7
_PLAIN = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34676, 34677, 34925, 50000, _JPEG})
"""None, CCITT, LZW, Deflate, PackBits, SGI's logarithms, LZMA, Zstandard, JPEG."""
_KEPT = frozenset(
    {
        *(254, 255, 256, 257, 258, 259, 262, 263, 266, 277, 278, 280, 281, 282, 283, 284, 290, 291, 292, 293, 296),
        *(301, 317, 318, 319, 320, 321, 322, 323, 332, 334, 336, 338, 339, 340, 341, 342, 347, 529, 530, 531, 532),
        34675,  # the ICC profile
    }
)
_XMP, _IPTC, _PHOTOSHOP, _EXIF, _GPS = 700, 33723, 34377, 34665, 34853


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Form:
    """How a file writes numbers: byte order, and the widths of plain and of big TIFF."""

    order: str
    big: bool

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def room(self) -> int:
        return 8 if self.big else 4


def apart(data: bytes, orientation: int) -> Apart:
    """Take a TIFF apart; arguments and errors as of `refloom.schemas.metadata.jpeg.apart`."""
    try:
        form, entries = _read(data)
        return _written(data, form, entries, orientation)
    except struct.error as error:
        raise CannotStrip("the TIFF's directory leaves the file") from error


def _read(data: bytes) -> tuple[_Form, dict[int, _Entry]]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise CannotStrip("no TIFF")
    (magic,) = struct.unpack_from(order + "H", data, 2)
    form = _Form(order, magic == 43)
    (start,) = struct.unpack_from(form.offset, data, 8 if form.big else 4)
    (count,) = struct.unpack_from(order + ("Q" if form.big else "H"), data, start)
    position, step = start + (8 if form.big else 2), 20 if form.big else 12
    if count > 4096:
        raise CannotStrip("a directory of too many tags")
    entries: dict[int, _Entry] = {}
    for at in range(position, position + step * count, step):
        tag, kind, number = struct.unpack_from(order + "HH" + ("Q" if form.big else "I"), data, at)
        size = _SIZES.get(kind, 0) * number
        place = at + step - form.room
        if size > form.room:
            (place,) = struct.unpack_from(form.offset, data, place)
        if place + size > len(data):
            if tag in _KEPT or tag in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES):
                raise CannotStrip(f"tag {tag} of the TIFF leaves the file")
            continue
        entries.setdefault(tag, _Entry(kind, number, data[place : place + size]))
    return form, entries


def _numbers(form: _Form, entry: _Entry) -> list[int]:
    if entry.kind not in _NUMBERS:
        raise CannotStrip("places in the TIFF that are no numbers")
    return list(struct.unpack(f"{form.order}{entry.count}{_NUMBERS[entry.kind]}", entry.data))


def _written(data: bytes, form: _Form, entries: dict[int, _Entry], orientation: int) -> Apart:
    compression = _numbers(form, entries[_COMPRESSION])[0] if _COMPRESSION in entries else 1
    if compression not in _PLAIN:
        raise CannotStrip(f"compression {compression} of the TIFF may hold metadata of its own")
    where, sizes = (_TILES, _TILE_BYTES) if _TILES in entries else (_STRIPS, _STRIP_BYTES)
    if where not in entries or sizes not in entries:
        raise CannotStrip("the TIFF does not say where its pixels lie, or how many bytes they are")
    dropped = [_piece(tag, entry, data) for tag, entry in entries.items() if tag not in (*_KEPT, where, sizes)]
    kept = {tag: entry for tag, entry in entries.items() if tag in _KEPT}
    if compression == _JPEG and _JPEG_TABLES in kept:
        tables = _stream(kept[_JPEG_TABLES].data, dropped)
        kept[_JPEG_TABLES] = _Entry(7, len(tables), tables)
    if orientation != 1:
        kept[_ORIENTATION] = _Entry(3, 1, struct.pack(form.order + "H", orientation))
    runs = []
    for start, size in zip(_numbers(form, entries[where]), _numbers(form, entries[sizes]), strict=False):
        if start + size > len(data):
            raise CannotStrip("pixels of the TIFF lie beyond its end")
        run = data[start : start + size]
        runs.append(_stream(run, dropped) if compression == _JPEG and run else run)
    kind, letter = (16, "Q") if form.big else (4, "I")

    def listed(values: list[int]) -> _Entry:
        return _Entry(kind, len(values), struct.pack(f"{form.order}{len(values)}{letter}", *values))

    kept[sizes] = listed([len(run) for run in runs])
    kept[where] = listed([0] * len(runs))
    head = 16 if form.big else 8
    inside = (8 + 20 * len(kept) + 8) if form.big else (2 + 12 * len(kept) + 4)
    position = _even(head + inside)
    places: dict[int, int] = {}
    for tag, entry in sorted(kept.items()):
        if len(entry.data) > form.room:
            places[tag] = position
            position = _even(position + len(entry.data))
    starts = []
    for run in runs:
        starts.append(position)
        position = _even(position + len(run))
    if not form.big and position >= 1 << 32:
        raise CannotStrip("the TIFF is too large to be written anew")
    kept[where] = listed(starts)
    return Apart([_file(form, kept, places, runs)], dropped)


def _file(form: _Form, kept: dict[int, _Entry], places: dict[int, int], runs: list[bytes]) -> bytes:
    mark = b"II" if form.order == "<" else b"MM"
    if form.big:
        out = bytearray(
            mark + struct.pack(form.order + "HHHQ", 43, 8, 0, 16) + struct.pack(form.order + "Q", len(kept))
        )
    else:
        out = bytearray(mark + struct.pack(form.order + "HI", 42, 8) + struct.pack(form.order + "H", len(kept)))
    for tag, entry in sorted(kept.items()):
        out += struct.pack(form.order + "HH" + ("Q" if form.big else "I"), tag, entry.kind, entry.count)
        if tag in places:
            out += struct.pack(form.offset, places[tag])
        else:
            out += entry.data.ljust(form.room, b"\x00")
    out += b"\x00" * form.room  # no directory follows
    for tag in sorted(places):
        out += b"\x00" * (len(out) % 2) + kept[tag].data
    for run in runs:
        out += b"\x00" * (len(out) % 2) + run
    return bytes(out)


def _even(position: int) -> int:
    return position + position % 2


def _stream(data: bytes, dropped: list[Piece]) -> bytes:
    """A JPEG stream of a strip, a tile or the tables without what is no picture."""
    found = jpeg.apart(data, 1)
    dropped += found.dropped
    return b"".join(found.kept)


def _piece(tag: int, entry: _Entry, data: bytes) -> Piece:
    if tag in (_EXIF, _GPS):
        return Piece("exif", data)
    kind = {_XMP: "xmp", _IPTC: "iptc", _PHOTOSHOP: "iptc"}.get(tag, "text" if entry.kind == 2 else "other")
    return Piece(kind, entry.data)
