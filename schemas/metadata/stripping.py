"""A picture's file without what it says beside the picture: the same pixels, orientation and colours in fewer bytes."""

from collections.abc import Callable

import numpy as np

from refloom.schemas import headers, pictures
from refloom.schemas.headers import Header
from refloom.schemas.metadata import avif, jpeg, others, png, tiff, webp
from refloom.schemas.metadata.pieces import Apart, CannotStrip

VERSION = 1
"""Hand-bumped when other bytes come out for the same file."""

_FORMATS: dict[str, Callable[[bytes, int], Apart]] = {
    "JPEG": jpeg.apart,
    "MPO": jpeg.apart,
    "PNG": png.apart,
    "WEBP": webp.apart,
    "TIFF": tiff.apart,
    "AVIF": avif.apart,
    "GIF": others.gif,
    "BMP": others.bmp,
    "PPM": others.pnm,
    "JPEG2000": others.jpeg2000,
}
_WRITTEN_ANEW = frozenset({"TIFF", "AVIF"})
"""Formats whose pieces change their places, so that the pixels are compared as well."""


def strip(data: bytes, header: Header | None = None) -> bytes:
    """The file without its metadata; the very same bytes where it holds none.

    Size, orientation and colour profile are compared before and after; pixels are copied, never decoded and encoded.

    Args:
        data: a picture's file.
        header: what `headers.read(data)` returned, if it is known.

    Raises:
        CannotStrip: it is no picture, or of a kind that cannot be taken apart safely.
    """
    try:
        return _stripped(data, header or headers.read(data))
    except CannotStrip:
        raise
    except Exception as problem:  # whatever a decoder trips over: this file is withheld, and the others go on
        raise CannotStrip(str(problem)) from problem


def _stripped(data: bytes, header: Header) -> bytes:
    made = b"".join(take_apart(data, header).kept)
    if made == data:
        return data
    same = _said(headers.read(made)) == _said(header)
    if not same or (
        header.format in _WRITTEN_ANEW and not np.array_equal(pictures.decode(data), pictures.decode(made))
    ):
        raise CannotStrip("it would look otherwise")
    return made


def take_apart(data: bytes, header: Header) -> Apart:
    """What stays of a file, and what goes.

    Raises:
        CannotStrip: its format is not known here, or it is damaged.
    """
    if header.format not in _FORMATS:
        raise CannotStrip(f"nobody here knows {header.format}")
    return _FORMATS[header.format](data, header.orientation)


def _said(header: Header) -> tuple[object, ...]:
    return (header.format, header.stored_width, header.stored_height, header.orientation, header.icc)
