"""The one decoder: bytes to upright sRGB pixels. Also the encoders, of crops and of pixels that must stay as they are.

JPEG goes through libjpeg-turbo, which is three times as fast as Pillow and gives the same pixels; Pillow decodes the
rest and has the last word on JPEGs that libjpeg-turbo calls damaged.
"""

import io
import re
import warnings
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageCms

from refloom.schemas import headers
from refloom.schemas.errors import Rejected
from refloom.schemas.masks import orient_pixels

_PHOTOMETRIC, _YCBCR = 262, 6
"""The tag of a TIFF that says what its values are, and its value for YCbCr."""

Pixels = npt.NDArray[np.uint8]
_MAX_PROFILE_BYTES = 8 << 20
"""Profiles of presses have 0.5 to 3 MB."""
_MAX_CHAINED_PROFILE_BYTES = 64 << 10
_MAX_CHAIN = 64
_PNG_LEVEL = 3
"""Of compression: the next ones are slower and hardly smaller."""
_CHAIN = re.compile(rb"mpet\0\0\0\0")


def decode(data: bytes, header: headers.Header | None = None) -> Pixels:
    """Decode a picture.

    Transparent pixels are laid on white, 16-bit values are scaled, embedded colour profiles are converted to sRGB
    (one that cannot be used is ignored), EXIF orientation is applied.

    Args:
        data: the file's bytes.
        header: what `headers.read(data)` returned, if it is known.

    Returns:
        (H, W, 3) uint8, upright sRGB, contiguous.

    Raises:
        Rejected: what `headers.read` raises, or `decode_error`.
    """
    header = header or headers.read(data)
    pixels = None
    if header.format == "JPEG" and not _needs_conversion(header.icc):
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        except ValueError:
            pixels = None
    if pixels is None:
        pixels = _decode_by_pillow(data)
    # Pillow turns TIFFs upright by itself
    return np.ascontiguousarray(pixels if header.format == "TIFF" else orient_pixels(pixels, header.orientation))


def encode_jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    """(H, W, 3) uint8 sRGB to JPEG without chroma subsampling."""
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444")
    return encoded


def encode_png(pixels: Pixels) -> bytes:
    """(H, W, 3) uint8 sRGB to PNG, which loses nothing."""
    _, encoded = cv2.imencode(
        ".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]
    )
    return bytes(encoded)


def straight(image: Image.Image) -> Image.Image:
    """A Pillow picture with any kind of transparency as RGBA, whose colours are not multiplied by it."""
    if image.mode == "La":  # Pillow makes nothing else of it
        image = image.convert("LA")
    return image.convert("RGBA")


def _needs_conversion(icc: bytes | None) -> bool:
    """False for no profile and for the sRGB profiles that cameras and editors embed."""
    return icc is not None and b"sRGB" not in icc and b"s\x00R\x00G\x00B" not in icc


def _decode_by_pillow(data: bytes) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e.g. corrupt EXIF, which says nothing of the pixels
        try:
            with headers.open_by_pillow(data) as image:
                is_ycbcr = _shows_ycbcr_as_rgb(image)
                image.load()
                return _to_rgb(Image.frombytes("YCbCr", image.size, image.tobytes()) if is_ycbcr else image)
        except (*headers.PILLOW_ERRORS, Image.DecompressionBombError) as error:
            raise Rejected("decode_error", type(error).__name__) from error


def _shows_ycbcr_as_rgb(image: Image.Image) -> bool:
    """Whether Pillow, as it does before 13, takes the three bytes of plain YCbCr in a TIFF for four of RGB.

    If so, it is told to load the three as they are.
    """
    if image.format != "TIFF" or image.mode != "RGB" or image.getexif().get(_PHOTOMETRIC) != _YCBCR:
        return False
    tiles = getattr(image, "tile", [])
    if not tiles or any(tile[0] != "raw" or tile[3][0] != "RGBX" for tile in tiles):
        return False
    image.tile = [(*tile[:3], ("RGB", *tile[3][1:])) for tile in tiles]  # type: ignore[attr-defined]
    return True


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith(("I;16", "I")):
        values = np.asarray(image).astype(np.int64)
        shift = 8 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 0
        gray = np.clip(values >> shift, 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "F":
        raise Rejected("decode_error", "floating-point pixels of unknown range")
    if image.mode == "LAB":
        return np.asarray(_apply(image, _lab_transform()))
    if image.mode in ("LA", "PA", "La", "RGBa") or (image.mode in ("P", "L", "RGB") and "transparency" in image.info):
        image = straight(image)
    profile = image.info.get("icc_profile")
    if profile is not None and _needs_conversion(profile) and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        image = _to_srgb(image, profile)
    if image.mode == "RGBA":
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image)
    return np.asarray(image.convert("RGB"))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    if image.mode == "RGBA":
        colour = _apply(image.convert("RGB"), transform)
        colour.putalpha(image.getchannel("A"))
        return colour
    return _apply(image, transform)


def _apply(image: Image.Image, transform: Any) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None is for in-place use only
    return converted


def _is_plain(profile: bytes) -> bool:
    """Whether a profile is of a usual size, and its chains of floating-point elements (`mpet`) are short."""
    if len(profile) > _MAX_PROFILE_BYTES:
        return False
    chains = [int.from_bytes(profile[at.start() + 12 : at.start() + 16], "big") for at in _CHAIN.finditer(profile)]
    return not chains or (len(profile) <= _MAX_CHAINED_PROFILE_BYTES and max(chains) <= _MAX_CHAIN)


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB, or None where the profile is damaged or of another colour space.

    One that no camera and no press has, whose transform would take minutes to build, is none either.
    """
    if not _is_plain(profile):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, _srgb(), "RGB" if mode == "RGBA" else mode, "RGB")
    except (OSError, ImageCms.PyCMSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _lab_transform() -> Any:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
