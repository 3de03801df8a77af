"""What a picture file says of itself before a pixel is decoded: format, size, orientation, and whether it ends.

JPEG and PNG, which are nearly everything, are read here; every other format through Pillow. Nothing is decoded, so
that a file of any claimed size costs microseconds.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from refloom.schemas import orientation as orientations
from refloom.schemas.errors import Rejected

MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")
"""Formats Pillow may try; none of them runs another program or code from the file."""

_JPEG_SIZED = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_EXIF = b"Exif\x00\x00"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"


@dataclass(frozen=True, slots=True)
class Header:
    """A picture's size and orientation.

    Attributes:
        format: Pillow's name of the format.
        stored_width, stored_height: pixels as stored.
        orientation: as in EXIF, 1..8; 1 where there is none or it is not a legal value. See `schemas.orientation`.
        icc: the embedded colour profile, or None.
    """

    format: str
    stored_width: int
    stored_height: int
    orientation: int = 1
    icc: bytes | None = None

    @property
    def width(self) -> int:
        """Width of the upright picture, pixels."""
        return self.stored_height if self.orientation >= 5 else self.stored_width

    @property
    def height(self) -> int:
        """Height of the upright picture, pixels."""
        return self.stored_width if self.orientation >= 5 else self.stored_height


def read(data: bytes) -> Header:
    """Read the header of a picture and check that the file holds one whole picture.

    Args:
        data: the file's bytes.

    Raises:
        Rejected: `not_an_image`, `truncated`, `too_many_pixels` or `animated`.
    """
    if not data:
        raise Rejected("not_an_image", "the file is empty")
    if data[:3] == b"\xff\xd8\xff":
        header = _jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        header = _png(data)
    else:
        header = _by_pillow(data)
    pixels = header.stored_width * header.stored_height
    if pixels == 0:
        raise Rejected("not_an_image", "a picture of no pixels")
    if pixels > MAX_PIXELS:
        raise Rejected("too_many_pixels", f"{header.stored_width}x{header.stored_height}")
    return header


def looks_like_picture(start: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a supported format."""
    return (
        start.startswith(
            (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP  ")
        )
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"))
        or (start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace())
    )


def _jpeg(data: bytes) -> Header:
    """Walk the segments up to the first scan; the end marker must come after it."""
    width = height = 0
    info: dict[str, bytes] = {}
    icc: list[bytes] = []
    position, end = 2, len(data)
    while True:
        position = data.find(b"\xff", position)
        while 0 <= position < end - 1 and data[position + 1] == 0xFF:
            position += 1
        if position < 0 or position + 4 > end:
            raise Rejected("truncated", "the file ends inside the JPEG header")
        marker = data[position + 1]
        if marker in _JPEG_BARE or marker == 0:
            position += 2
            continue
        if marker == 0xD9:
            raise Rejected("truncated", "the JPEG ends before its first scan")
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body, after = position + 4, position + 2 + length
        if marker in _JPEG_SIZED and length >= 8:
            height, width = struct.unpack_from(">HH", data, body + 1) if body + 5 <= end else (0, 0)
        elif marker == 0xE1 and data[body : body + 6] == _EXIF:
            # a block that is longer than one segment goes on in the next
            info["exif"] = info["exif"] + data[body + 6 : after] if "exif" in info else data[body:after]
        elif marker == 0xE1 and data[body : body + len(_XMP)] == _XMP:
            info["xmp"] = data[body + len(_XMP) : after]
        elif marker == 0xE2 and data[body : body + 12] == b"ICC_PROFILE\x00":
            icc.append(data[body + 12 : after])
        elif marker == 0xDA:
            break
        position = after
    if data.rfind(b"\xff\xd9", position) < 0:
        raise Rejected("truncated", "the JPEG has no end marker")
    profile = b"".join(part[2:] for part in sorted(icc, key=lambda part: part[:1])) or None
    return Header("JPEG", width, height, orientations.of_blocks(info), profile)


def _png(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise Rejected("truncated", "the file ends inside the PNG header")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise Rejected("not_an_image", "the checksum of the PNG header is wrong")
    width, height = struct.unpack_from(">II", data, 16)
    if width * height > MAX_PIXELS:
        raise Rejected("too_many_pixels", f"{width}x{height}")
    icc, position = None, 8
    before: list[bytes] = []
    after: list[bytes] = []
    pixels_at = 0
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IEND":
            break
        body = b"" if kind == b"IDAT" else data[position + 8 : position + 8 + min(length, 1 << 20)]
        if kind == b"IDAT":
            pixels_at = pixels_at or position
        elif kind == b"acTL" and not pixels_at and int.from_bytes(body[:4], "big") > 1:
            raise Rejected("animated", f"{int.from_bytes(body[:4], 'big')} frames")
        elif kind == b"iCCP" and not pixels_at:
            icc = _inflate_profile(body)
        elif orientations.tells_in_png(kind, body):
            (after if pixels_at else before).append(data[position : position + 12 + length])
        position += 12 + length
    end = data.rfind(b"IEND", pixels_at or position)
    if end < 0 or end + 8 > len(data):
        raise Rejected("truncated", "the PNG has no end chunk")
    return Header("PNG", width, height, orientations.of_chunks(before, after), icc)


def _inflate_profile(chunk: bytes) -> bytes | None:
    start = chunk.find(b"\x00") + 2
    try:
        return zlib.decompressobj().decompress(chunk[start:], 1 << 22)
    except zlib.error:
        return None


def open_by_pillow(data: bytes) -> Image.Image:
    """Pillow's view of a picture of one of the supported formats, not yet decoded."""
    Image.init()  # loads the plugins once; `formats` alone does not
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Size as stored: of a TIFF, Pillow gives the upright size."""
    tags = getattr(image, "tag_v2", None)
    return (int(tags[256]), int(tags[257])) if tags else image.size


def _by_pillow(data: bytes) -> Header:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_by_pillow(data) as image:
                if getattr(image, "n_frames", 1) > 1:
                    raise Rejected("animated", f"{getattr(image, 'n_frames', 1)} frames")
                orientation = orientations.of_image(image)
                profile = image.info.get("icc_profile") or None
                width, height = _stored_size(image)
                return Header(image.format or "unknown", width, height, orientation, profile)
        except Image.DecompressionBombError as error:
            raise Rejected("too_many_pixels", "beyond Pillow's limit") from error
        except UnidentifiedImageError as error:
            raise Rejected("not_an_image", f"begins with {data[:8]!r}") from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise Rejected("truncated", "the header cannot be read to its end") from error
