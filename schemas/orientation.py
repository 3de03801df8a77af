"""Which way up a picture is, as `PIL.ImageOps.exif_transpose` sees it once the picture is loaded.

Pillow is what this field's trainers decode with, so its reading is the measure: the Exif segments of a JPEG are one
block, a PNG may hold its block behind the pixels or as an ImageMagick profile, the value may be of any number type, and
XMP counts where Exif has no such tag. Nothing here decodes a pixel.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence

from PIL import Image, PngImagePlugin

TAG = 0x0112
"""The Exif tag."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEYWORDS = frozenset({b"XML:com.adobe.xmp", b"xmp", b"exif", b"Raw profile type exif"})
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, struct.error)


def of_image(image: Image.Image) -> int:
    """The orientation, 1..8, of a picture that Pillow has opened; 1 where there is none or it is not a legal value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged block says nothing of the pixels
        try:
            value = image.getexif().get(TAG, 1)
            return int(value) if value in range(1, 9) else 1
        except _UNREADABLE:
            return 1


def of_blocks(info: Mapping[str, bytes]) -> int:
    """The orientation in metadata blocks, 1..8.

    Args:
        info: `exif`, with the head that a JPEG gives it, and `xmp`, as Pillow keeps them in `Image.info`.
    """
    if not info:
        return 1
    image = Image.Image()
    for name, block in info.items():
        image.info[name] = block
    return of_image(image)


def tells_in_png(kind: bytes, body: bytes) -> bool:
    """Whether a PNG chunk of this type and content may say which way up the picture is."""
    return kind == b"eXIf" or (kind in _PNG_TEXTS and body[:80].partition(b"\0")[0] in _PNG_KEYWORDS)


def of_chunks(before: Sequence[bytes], after: Sequence[bytes]) -> int:
    """The orientation in the chunks of a PNG, 1..8.

    Args:
        before, after: whole chunks for which `tells_in_png` holds, before and after the pixels, in their order.
    """
    if not before and not after:
        return 1
    # a picture of one pixel with the same chunks, so that Pillow's own reader of them has the last word
    pixel = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        *before,
        _chunk(b"IDAT", zlib.compress(b"\0\0")),
        *after,
        _chunk(b"IEND", b""),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with PngImagePlugin.PngImageFile(io.BytesIO(_SIGNATURE + b"".join(pixel))) as image:
                image.load()
                return of_image(image)
        except _UNREADABLE:
            return 1


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
