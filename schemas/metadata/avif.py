"""AVIF: written anew with its coded images, their properties and what they are made of one from another.

Items of Exif, XMP and other kinds, thumbnails, names of items and boxes that no list here names go; so does every byte
that no item points to. ISO/IEC 14496-12 (boxes), 23008-12 (items), AV1 Image File Format 1.1.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from refloom.schemas.metadata.pieces import Apart, CannotStrip, Piece, without_mark

_IMAGES = frozenset({b"av01", b"grid", b"iden", b"iovl", b"tmap"})
_PROPERTIES = frozenset(
    {
        *(b"ispe", b"pixi", b"av1C", b"colr", b"auxC", b"irot", b"imir", b"clap", b"pasp", b"clli", b"mdcv", b"cclv"),
        *(b"amve", b"a1op", b"lsel", b"a1lx", b"free"),
    }
)
_MOST_ITEMS = 4096


@dataclass(slots=True)
class _Item:
    kind: bytes = b""
    content: bytes = b""
    data: bytes = b""


@dataclass(slots=True)
class _Meta:
    """What the box `meta` says."""

    items: dict[int, _Item] = field(default_factory=dict)
    primary: bytes = b""
    references: list[tuple[bytes, int, list[int]]] = field(default_factory=list)
    wide_references: bool = False
    properties: bytes = b""
    associations: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    association_heads: bytes = b""


def apart(data: bytes, orientation: int) -> Apart:
    """Take an AVIF apart; arguments and errors as of `refloom.schemas.metadata.jpeg.apart`.

    The orientation lies in properties of the image (irot, imir), which stay.
    """
    try:
        return _apart(data)
    except (struct.error, IndexError) as error:
        raise CannotStrip("a box of the AVIF is too short") from error


def _apart(data: bytes) -> Apart:
    top = list(_boxes(data, 0, len(data)))
    kinds = [kind for kind, _ in top]
    if kinds.count(b"ftyp") != 1 or kinds.count(b"meta") != 1 or b"moov" in kinds:
        raise CannotStrip("an AVIF of a sequence, or without what says what it holds")
    bodies = dict(top)
    meta = _read(bodies[b"meta"], data)
    gone = {number for number, item in meta.items.items() if item.kind not in _IMAGES}
    gone |= {start for kind, start, _ in meta.references if kind == b"thmb"}
    (primary,) = struct.unpack(">I" if meta.primary[0] else ">H", meta.primary[4:])
    if primary in gone or primary not in meta.items:
        raise CannotStrip("the AVIF's own image is of a kind that is not known")
    dropped = [_piece(meta.items[number]) for number in sorted(gone)]
    dropped += [Piece("other", body) for kind, body in top if kind not in (b"ftyp", b"meta", b"mdat")]
    kept = {number: item for number, item in sorted(meta.items.items()) if number not in gone}
    start = _box(b"ftyp", bodies[b"ftyp"])
    empty = _meta(meta, kept, gone, 0)
    head = _meta(meta, kept, gone, len(start) + len(empty) + 8)
    return Apart([start, head, _box(b"mdat", b"".join(item.data for item in kept.values()))], dropped)


def _boxes(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while position < end:
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        elif length == 0:
            length = end - position
        if position + length > end or position + length < start:
            raise CannotStrip("a box leaves the AVIF")
        yield kind, data[start : position + length]
        position += length


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _read(body: bytes, data: bytes) -> _Meta:
    meta = _Meta()
    parts = dict(_boxes(body, 4, len(body)))
    if b"ipro" in parts or not {b"pitm", b"iloc", b"iinf", b"iprp"} <= parts.keys():
        raise CannotStrip("an AVIF with protected items, or without a list of them")
    meta.primary = parts[b"pitm"]
    _read_names(parts[b"iinf"], meta)
    _read_places(parts[b"iloc"], data, parts.get(b"idat", b""), meta)
    if b"iref" in parts:
        _read_references(parts[b"iref"], meta)
    _read_properties(parts[b"iprp"], meta)
    return meta


def _read_names(body: bytes, meta: _Meta) -> None:
    for kind, entry in _boxes(body, 6 if body[0] == 0 else 8, len(body)):
        if kind != b"infe" or entry[0] not in (2, 3):
            raise CannotStrip("items of the AVIF in an old form")
        wide = entry[0] == 3
        number, protection, item_kind = struct.unpack_from(">IH4s" if wide else ">HH4s", entry, 4)
        if protection:
            raise CannotStrip("an AVIF with protected items")
        content = entry[14 if wide else 12 :].partition(b"\x00")[2].partition(b"\x00")[0]
        meta.items[number] = _Item(item_kind, content)
    if len(meta.items) > _MOST_ITEMS:
        raise CannotStrip("an AVIF of too many items")


def _read_places(body: bytes, data: bytes, idat: bytes, meta: _Meta) -> None:
    version, widths = body[0], struct.unpack_from(">BB", body, 4)
    offset_bytes, length_bytes, base_bytes = widths[0] >> 4, widths[0] & 15, widths[1] >> 4
    index_bytes = widths[1] & 15 if version else 0
    position = 6

    def number(size: int) -> int:
        nonlocal position
        position += size
        if position > len(body):
            raise CannotStrip("a box of the AVIF is too short")
        return int.from_bytes(body[position - size : position], "big")

    for _ in range(number(4 if version == 2 else 2)):
        item_id = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        if number(2) or method > 1 or item_id not in meta.items:
            raise CannotStrip("items of the AVIF that lie elsewhere")
        source = idat if method else data
        base, runs = number(base_bytes), []
        for _ in range(number(2)):
            number(index_bytes)
            start, length = base + number(offset_bytes), number(length_bytes)
            if not length or start + length > len(source):
                raise CannotStrip("an item of the AVIF leaves the file")
            runs.append(source[start : start + length])
        meta.items[item_id].data = b"".join(runs)


def _read_references(body: bytes, meta: _Meta) -> None:
    meta.wide_references = bool(body[0])
    letter, size = (">I", 4) if body[0] else (">H", 2)
    for kind, entry in _boxes(body, 4, len(body)):
        (start,), (count,) = struct.unpack_from(letter, entry), struct.unpack_from(">H", entry, size)
        ends = [struct.unpack_from(letter, entry, size + 2 + size * at)[0] for at in range(count)]
        meta.references.append((kind, start, ends))


def _read_properties(body: bytes, meta: _Meta) -> None:
    for kind, inner in _boxes(body, 0, len(body)):
        if kind == b"ipco":
            parts = [(name, part) for name, part in _boxes(inner, 0, len(inner))]
            # numbers of properties stay what they are
            meta.properties = b"".join(_box(*part) if part[0] in _PROPERTIES else _box(b"free", b"") for part in parts)
        elif kind == b"ipma":
            if meta.association_heads:
                raise CannotStrip("properties of the AVIF in several lists")
            meta.association_heads = inner[:4]
            wide, size = inner[0] > 0, 2 if inner[3] & 1 else 1
            (count,) = struct.unpack_from(">I", inner, 4)
            position = 8
            for _ in range(count):
                (item_id,) = struct.unpack_from(">I" if wide else ">H", inner, position)
                start = position + (4 if wide else 2)
                end = start + 1 + inner[start] * size
                meta.associations.append((inner[position:start], item_id, inner[start:end]))
                position = end


def _meta(meta: _Meta, kept: dict[int, _Item], gone: set[int], start: int) -> bytes:
    """The box `meta` of the items that stay, whose bytes follow one another from `start` on."""
    handler = struct.pack(">II4s12x", 0, 0, b"pict") + b"\x00"
    wide = any(number > 0xFFFF for number in kept)
    letter = "I" if wide else "H"
    names, places = [], []
    for number, item in kept.items():
        names.append(
            _box(b"infe", struct.pack(f">I{letter}H4s", (3 if wide else 2) << 24, number, 0, item.kind) + b"\x00")
        )
        places.append(struct.pack(f">{letter}HHHII", number, 0, 0, 1, start, len(item.data)))
        start += len(item.data)
    count = struct.pack(f">{letter}", len(kept))
    head = struct.pack(">IBB", (2 if wide else 1) << 24, 0x44, 0x00)
    parts = [
        _box(b"hdlr", handler),
        _box(b"pitm", meta.primary),
        _box(b"iloc", head + count + b"".join(places)),
        _box(b"iinf", struct.pack(">I", wide << 24) + count + b"".join(names)),
    ]
    form = "I" if meta.wide_references else "H"
    references = [
        _box(kind, struct.pack(f">{form}H{len(left)}{form}", first, len(left), *left))
        for kind, first, ends in meta.references
        if first not in gone and (left := [number for number in ends if number not in gone])
    ]
    if references:
        parts.append(_box(b"iref", struct.pack(">I", meta.wide_references << 24) + b"".join(references)))
    own = [name + entry for name, number, entry in meta.associations if number not in gone]
    associations = meta.association_heads + struct.pack(">I", len(own)) + b"".join(own)
    parts.append(_box(b"iprp", _box(b"ipco", meta.properties) + _box(b"ipma", associations)))
    return _box(b"meta", b"\x00" * 4 + b"".join(parts))


def _piece(item: _Item) -> Piece:
    if item.kind == b"Exif":
        offset = int.from_bytes(item.data[:4], "big")
        return Piece("exif", without_mark(item.data[4 + offset :]) or without_mark(item.data[4:]))
    if item.kind == b"mime":
        return Piece("xmp", item.data)
    return Piece("other", item.data)
