"""What a picture file is made of, counted before any decoder sees it: scans, chunks, frames, tags.

A decoder works through all that a file claims to have, and a small file can claim what takes minutes: a progressive
JPEG of a hundred scans, a TIFF of twenty thousand directories or of tags that all hold the whole file. Real pictures
have a few of each. Each check stops at its bound.

| format | counted |
|---|---|
| JPEG | scans; segments; tags of the Exif block |
| PNG | chunks, and those that are inflated; frames; tags of the Exif chunk |
| GIF | frames; bytes of extensions; blocks |
| TIFF | directories (one is a picture); tags and the bytes that they claim; scans of JPEG strips; size of tiles |
| WebP | frames; chunks; tags of the Exif chunk |
| AVIF | samples of a sequence; bytes of the boxes that describe items |
| PPM | bytes of the header |
"""

import re
import struct
from collections.abc import Iterator

from refloom.schemas.errors import Rejected

MAX_SCANS = 32
"""Of a JPEG; encoders write up to a dozen, and each costs a pass over all pixels."""
MAX_SCAN_PIXELS = 2_000_000_000
"""Scans of a JPEG times its pixels: twenty of the largest picture, which take ten seconds."""
MAX_SEGMENTS = 5_000
MAX_FILLING = 100_000
MAX_CHUNKS = 200_000
"""Of a PNG or WebP; libpng writes 8 kB into each."""
MAX_INFLATED_CHUNKS = 256
"""Of a PNG: profiles and compressed texts, each of which a reader inflates up to its own bound."""
MAX_BLOCKS = 3_000_000
"""Of a GIF, of up to 255 bytes each."""
MAX_EXTENSION_BYTES = 1 << 20
"""Of one GIF: comments, XMP. Pillow's time grows with their square."""
MAX_TAG_VALUES = 1_000_000
"""Of one tag of numbers in a TIFF: the places of its strips or tiles."""
MAX_PPM_HEADER_BYTES = 64 << 10
MAX_ITEM_BYTES = 256 << 10
"""Of the boxes that describe the items of an AVIF; libavif's time grows with their square."""

_INFLATED = frozenset({b"iCCP", b"zTXt", b"iTXt"})
_TAG_SLACK_BYTES = 64 << 10
_MAX_PIXELS = 100_000_000
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""The next marker with a length, or the end: what stands between is entropy-coded data, restarts or filling."""
_SCANNED = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
"""Frames that come in several scans: progressive ones."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTE_TYPES = frozenset({1, 2, 6, 7})
_WIDTH, _COMPRESSION, _STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = (
    *(256, 259, 273, 279),
    *(322, 323, 324, 325),
)
_OLD_JPEG, _JPEG = 6, 7


def check(data: bytes) -> None:
    """Refuse what no picture has. Says nothing of whether the file is sound otherwise.

    Raises:
        Rejected: `animated`, or `too_complex`.
    """
    if data[:3] == b"\xff\xd8\xff":
        _jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        _png(data)
    elif data[:4] == b"GIF8":
        _gif(data)
    elif data[:2] in (b"II", b"MM"):
        _tiff(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _webp(data)
    elif data[4:8] == b"ftyp":
        _avif(data)
    elif data[:1] == b"P" and data[1:2] in b"123456":
        _ppm(data)


def _too_many(what: str, bound: int) -> Rejected:
    return Rejected("too_complex", f"more than {bound:,} {what}")


def _jpeg(data: bytes) -> None:
    """Segments up to the first scan, and where there can be more scans, all of them."""
    position, segments, scans, components, pixels = 2, 0, 0, 0, 0
    is_progressive = False
    exif: list[bytes] = []
    while (found := _MARKER.search(data, position)) is not None:
        marker, body = data[found.start() + 1], found.end() + 2
        if marker == 0xD9 or body > len(data):
            break
        if found.start() > position:
            _check_filling(data, position, found.start(), scans)
        segments += 1
        if segments > MAX_SEGMENTS:
            raise _too_many("segments", MAX_SEGMENTS)
        position = found.end() + max(2, int.from_bytes(data[found.end() : body], "big"))
        if marker in _FRAMES:
            is_progressive = is_progressive or marker in _SCANNED
            components = data[body + 5] if body + 5 < len(data) else 0
            pixels = int.from_bytes(data[body + 1 : body + 3], "big") * int.from_bytes(data[body + 3 : body + 5], "big")
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            exif.append(data[body + 6 : position])
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise _too_many("scans", MAX_SCANS)
            if scans * min(pixels, _MAX_PIXELS) > MAX_SCAN_PIXELS:
                raise Rejected("too_complex", f"{scans} scans of {pixels:,} pixels")
            if not is_progressive and data[body : body + 1] == bytes([components]):
                break  # the first scan has everything, and no decoder looks for a second
    if found is None:
        _check_filling(data, position, len(data), scans)
    if exif:
        _directory(b"".join(exif))  # as Pillow joins them


def _check_filling(data: bytes, start: int, end: int, scans: int) -> None:
    """Before the first scan, markers without a length and filling are walked one by one by whoever reads a header."""
    if not scans and data.count(b"\xff", start, end) > MAX_FILLING:
        raise _too_many("markers that say nothing", MAX_FILLING)


def _png(data: bytes) -> None:
    chunks, inflated, position, has_pixels = 0, 0, 8, False
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise _too_many("chunks", MAX_CHUNKS)
        inflated += kind in _INFLATED
        if inflated > MAX_INFLATED_CHUNKS:
            raise _too_many("profiles and compressed texts", MAX_INFLATED_CHUNKS)
        if kind == b"eXIf":
            _directory(data[position + 8 : position + 8 + length])
        elif kind == b"IDAT":
            has_pixels = True
        elif (
            kind == b"acTL"
            and not has_pixels
            and (frames := int.from_bytes(data[position + 8 : position + 12], "big")) > 1
        ):
            raise Rejected("animated", f"{frames} frames")
        elif kind == b"IEND":
            return
        position += 12 + length


def _gif(data: bytes) -> None:
    flags = data[10] if len(data) > 10 else 0
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    frames = blocks = extension_bytes = 0
    while position < len(data):
        kind = data[position]
        if kind == 0x3B:
            return
        if kind == 0x2C:
            frames += 1
            if frames > 1:
                raise Rejected("animated", "more than one frame")
            flags = data[position + 9] if position + 9 < len(data) else 0
            position += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        else:  # an extension; Pillow passes over any other byte, one by one
            position += 2 if kind == 0x21 else 1
        blocks += 1
        while kind in (0x2C, 0x21) and position < len(data) and data[position]:
            extension_bytes += data[position] if kind == 0x21 else 0
            position += 1 + data[position]
            blocks += 1
            if extension_bytes > MAX_EXTENSION_BYTES:
                raise _too_many("bytes of comments and other extensions", MAX_EXTENSION_BYTES)
            if blocks > MAX_BLOCKS:
                raise _too_many("blocks", MAX_BLOCKS)
        position += kind in (0x2C, 0x21)
        if blocks > MAX_BLOCKS:
            raise _too_many("blocks", MAX_BLOCKS)


def _ppm(data: bytes) -> None:
    """Pillow reads a header of comments byte by byte."""
    words = re.sub(rb"#[^\r\n]*", b"", data[:MAX_PPM_HEADER_BYTES]).split(maxsplit=4)
    if len(data) > MAX_PPM_HEADER_BYTES and len(words) < 4:
        raise _too_many("bytes of a header", MAX_PPM_HEADER_BYTES)


def _tiff(data: bytes) -> None:
    found = _directory(data)
    if found is None:
        return
    following, tags = found
    if following:
        raise Rejected("animated", "more than one directory")
    width, height = tags.get(_TILE_WIDTH, (0,))[0], tags.get(_TILE_HEIGHT, (0,))[0]
    if width * height > _MAX_PIXELS:
        raise Rejected("too_complex", f"tiles of {width}x{height}")
    compression = tags.get(_COMPRESSION, (1,))[0]
    if compression == _OLD_JPEG and data.count(b"\xff\xda") > MAX_SCANS:
        raise _too_many("scans", MAX_SCANS)
    if compression == _JPEG:
        for places, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
            strips = list(zip(tags.get(places, ()), tags.get(lengths, ()), strict=False))
            if sum(length for _, length in strips) > 2 * len(data):
                raise Rejected("too_complex", "strips that together claim more bytes than the file has")
            for start, length in strips:
                if data.count(b"\xff\xda", start, start + length) > MAX_SCANS:
                    raise _too_many("scans in a strip", MAX_SCANS)


def _directory(data: bytes) -> tuple[int, dict[int, tuple[int, ...]]] | None:
    """The first directory of a TIFF or of an Exif block.

    Returns:
        Where the next one begins, 0 for none, and whole numbers that this module looks at by tag; None where there is
        no directory that could be read.

    Raises:
        Rejected: `too_complex`, for tags that claim more than the file has.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    is_big = 43 in data[2:4]
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    width, head = (20, 8) if is_big else (12, 2)
    if start + head > len(data):
        return None
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    if count > 1 << 16:
        raise _too_many("tags", 1 << 16)
    claimed, tags, slot = 0, {}, 8 if is_big else 4
    for at in range(start + head, start + head + width * count, width):
        if at + width > len(data):
            return None
        tag, kind, values = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), data, at)
        size, place = _TYPE_BYTES.get(kind, 1) * values, at + width - slot
        if size > slot:
            (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, place)
            if place + size > len(data):
                continue  # nobody reads what is not there
            claimed += size
        if kind not in _BYTE_TYPES and values > MAX_TAG_VALUES:
            raise _too_many("values of one tag", MAX_TAG_VALUES)
        if claimed > 2 * len(data) + _TAG_SLACK_BYTES:
            raise Rejected("too_complex", "tags that together claim more bytes than the file has")
        if tag in _LOOKED_AT:
            tags[tag] = tuple(_numbers(data, order, kind, place, values))
    at = start + head + width * count
    following = struct.unpack_from(order + ("Q" if is_big else "I"), data, at)[0] if at + slot <= len(data) else 0
    return (0 if following == start else following), tags


_LOOKED_AT = frozenset({_COMPRESSION, _STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES})


def _numbers(data: bytes, order: str, kind: int, place: int, count: int) -> Iterator[int]:
    letter = {1: "B", 3: "H", 4: "I", 16: "Q", 18: "Q", 13: "I"}.get(kind)
    if letter is None:
        return
    size = struct.calcsize(order + letter)
    if place + size * count <= len(data):
        yield from struct.unpack_from(f"{order}{count}{letter}", data, place)


def _webp(data: bytes) -> None:
    chunks = frames = 0
    position = 12
    while position + 8 <= len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        chunks += 1
        frames += kind == b"ANMF"
        if frames > 1:
            raise Rejected("animated", "more than one frame")
        if chunks > MAX_CHUNKS:
            raise _too_many("chunks", MAX_CHUNKS)
        if kind == b"EXIF":
            _directory(data[position + 8 : position + 8 + length].removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2


def _avif(data: bytes) -> None:
    is_sequence = data[8:12] != b"avif"  # whose primary picture is taken, whatever else is there
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            items = sum(stop - begin for name, begin, stop in _boxes(data, start + 4, end) if name != b"idat")
            if items > MAX_ITEM_BYTES:
                raise _too_many("bytes of boxes that describe items", MAX_ITEM_BYTES)
        elif kind == b"moov" and is_sequence:
            for samples in _samples(data, start, end, (b"trak", b"mdia", b"minf", b"stbl")):
                if samples > 1:
                    raise Rejected("animated", f"{samples} frames")


def _samples(data: bytes, start: int, end: int, path: tuple[bytes, ...]) -> Iterator[int]:
    """How many samples the tracks of a sequence claim to have."""
    for kind, begin, stop in _boxes(data, start, end):
        if path and kind == path[0]:
            yield from _samples(data, begin, stop, path[1:])
        elif not path and kind == b"stsz":
            yield int.from_bytes(data[begin + 8 : begin + 12], "big")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of the boxes between two places."""
    for _ in range(MAX_CHUNKS):
        if start + 8 > end:
            return
        size, head = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = end if size == 0 else min(end, start + size)
        if 0 < size < head:
            return
        yield data[start + 4 : start + 8], start + head, stop
        start = stop
    raise _too_many("boxes", MAX_CHUNKS)
