"""What users give as pictures and masks - files, bytes, Pillow pictures, arrays - as the arrays that adapters see.

Generation, editing and training read through here, so that a picture means the same to all of them. Every picture goes
through `schemas.pictures.decode`: transparent pixels lie on white, EXIF orientation is applied, profiles become sRGB.
"""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from refloom.ingest.files import MAX_FILE_BYTES
from refloom.schemas import pictures
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.headers import MAX_PIXELS
from refloom.schemas.reasons import REJECTED

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Source = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[Any]
"""A file, its bytes, a Pillow picture, or an array."""

_REMEDIES = {
    "too_many_pixels": "make it smaller first, no model sees that much",
    "too_complex": "save the picture as a PNG or a plain JPEG",
    "animated": "save the one picture that you mean",
    "truncated": "get the whole file again",
}
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("CMYK", "LAB", "F")


def read_picture(source: Source) -> Pixels:
    """A picture of any kind and size as (H, W, 3) uint8, upright sRGB.

    Args:
        source: a file, bytes, a Pillow picture of any mode, or an array that is already what is returned.

    Raises:
        Refused: there is no such file, it is no sound picture, is too large, or the array is of another kind.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or 0 in source.shape:
            raise Refused(
                f"an image of shape {source.shape} and type {source.dtype}, not (H, W, 3) uint8: give the file or a "
                "Pillow picture, or decode files with refloom.schemas.pictures.decode"
            )
        return source
    name, data = _bytes(source)
    try:
        return pictures.decode(data)
    except Rejected as error:
        remedy = f"; {_REMEDIES[error.reason]}" if error.reason in _REMEDIES else ""
        raise Refused(f"{name} cannot be used: {REJECTED[error.reason]} ({error}){remedy}") from error


def read_mask(source: Source) -> Mask:
    """A mask as (H, W) boolean, True where it is set.

    Args:
        source: as for `read_picture`, where white is set, and what is transparent too; or an array (H, W), boolean,
            uint8 of 0 and 255 or of 0 and 1, or floating in 0–1. Grey counts from the middle.

    Raises:
        Refused: as `read_picture`, or the array is of another kind.
    """
    if not isinstance(source, np.ndarray):
        # weights of luma (ITU-R BT.601)
        gray = read_picture(source).astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.asarray(gray >= 127.5)
    if source.ndim == 2 and source.size:
        if source.dtype == np.bool_:
            return source
        if source.dtype == np.uint8:
            return np.asarray(source >= (128 if source.max() > 1 else 1))
        if np.issubdtype(source.dtype, np.floating) and source.min() >= 0 and source.max() <= 1:
            return np.asarray(source >= 0.5)
    raise Refused(
        f"a mask of shape {source.shape} and type {source.dtype}: (H, W), boolean, uint8 or floating in 0 to 1"
    )


def read_edit(source: Source, mask: Source) -> tuple[Pixels, Mask]:
    """A picture that is to be edited, and where it may change.

    Raises:
        Refused: as `read_picture` and `read_mask`, or the two do not go together.
    """
    picture, where = read_picture(source), read_mask(mask)
    if where.shape != picture.shape[:2]:
        raise Refused(
            f"the mask is {where.shape[1]}x{where.shape[0]}, the picture {picture.shape[1]}x{picture.shape[0]} "
            "(upright): resize the mask to the picture"
        )
    if not where.any():
        raise Refused("the mask has nothing set: it is white where the picture may change")
    return picture, where


def several(given: Source | Sequence[Source]) -> Sequence[Source]:
    """One thing, or a sequence of them, as a list. A folder stands for its files in the order of their names."""
    if isinstance(given, str | os.PathLike):
        folder = Path(given)
        if folder.is_dir():
            return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
        return [given]
    if isinstance(given, bytes | Image.Image | np.ndarray):
        return [given]
    if not isinstance(given, Iterable):
        raise Refused(f"a picture is a file, bytes, a Pillow picture or an array, not a {type(given).__name__}")
    return list(given)


def _bytes(source: str | os.PathLike[str] | bytes | Image.Image) -> tuple[str, bytes]:
    """What a picture is called in messages, and its bytes."""
    if isinstance(source, bytes):
        return "the picture", source
    if isinstance(source, Image.Image):
        if source.width * source.height > MAX_PIXELS:
            raise Refused(f"a picture of {source.width}x{source.height} is too large: {_REMEDIES['too_many_pixels']}")
        if not source.width or not source.height:
            raise Refused(f"a picture of {source.width}x{source.height} has no pixels: give another")
        return "the picture", _lossless(source)
    if not isinstance(source, str | os.PathLike):
        raise Refused(f"a picture is a file, bytes, a Pillow picture or an array, not a {type(source).__name__}")
    file = Path(source)
    try:
        if file.exists() and not file.is_file():
            raise Refused(f"the picture {file} is no regular file: give a picture file")
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise Refused(f"the picture {file} has more than {MAX_FILE_BYTES >> 20} MB: {_REMEDIES['too_many_pixels']}")
        return str(file), data
    except OSError as error:
        raise Refused(f"the picture {file} cannot be read: {error.strerror or error}") from error


def _converted(image: Image.Image) -> Image.Image:
    """A Pillow picture of a mode that no file has, in one that a file has.

    Raises:
        Refused: Pillow can make nothing of it, or its values are of no picture's range.
    """
    if image.mode in ("La", "RGBa", "PA"):
        return pictures.straight(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.asarray(image).astype("<u2"))
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise Refused(
                "a picture of Pillow's mode I has values outside 0 to 65535: scale them to 8 or 16 bits first"
            )
        return Image.fromarray(values.astype("u1" if values.max() <= 0xFF else "<u2"))
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise Refused(f"a picture of Pillow's mode {image.mode} cannot be read: convert it to RGB first") from error


def _lossless(image: Image.Image) -> bytes:
    """A Pillow picture as a file that holds all of it, upright."""
    image = ImageOps.exif_transpose(image)
    if image.mode not in _PNG_MODES + _TIFF_MODES:
        image = _converted(image)
    file = io.BytesIO()
    if image.mode in _TIFF_MODES:
        image.save(file, "TIFF")
    else:
        image.save(file, "PNG", compress_level=1)
    return file.getvalue()
