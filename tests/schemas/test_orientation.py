"""Pictures are turned as Pillow's `exif_transpose` turns them once they are loaded, wherever the orientation stands."""

import io
import itertools
import struct
import warnings
import zlib

import numpy as np
import pytest
from bugreports import case
from drawing import encoded, gradient
from PIL import Image, ImageOps

from refloom.schemas import headers, pictures

IMAGE = Image.fromarray(gradient(36, 24))
HEAD = b"Exif\0\0"
SIZES = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I", 16: "Q"}
"""Exif type to the struct format of one value; the rational ones are numerator and denominator."""


def tiff(*values: float, kind: int = 3, order: str = "<", ahead: tuple[bytes, ...] = ()) -> bytes:
    """An Exif block with the orientation as values of one type; `ahead` are 12-byte entries before it."""
    form = SIZES[kind]
    numbers = [part for value in values for part in ((value, 1) if len(form) == 2 else (value,))]
    packed = struct.pack(order + (form * len(values)), *numbers)
    start = 8 + 2 + 12 * (len(ahead) + 1) + 4
    inline = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", start)
    entry = struct.pack(order + "HHI", 0x0112, kind, len(values)) + inline
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entries = struct.pack(order + "H", len(ahead) + 1) + b"".join(ahead) + entry
    return head + entries + b"\0" * 4 + (packed if len(packed) > 4 else b"")


def xmp(value: int, *, element: bool = False) -> bytes:
    said = f"><tiff:Orientation>{value}</tiff:Orientation></a>" if element else f' tiff:Orientation="{value}"/>'
    return f"<a{said}".encode()


def jpeg(*segments: bytes) -> bytes:
    data = encoded(IMAGE, "JPEG", quality=95)
    parts = [b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in segments]
    return data[:2] + b"".join(parts) + data[2:]


def png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    data = encoded(IMAGE, "PNG")
    at = data.index(b"IEND" if behind else b"IDAT") - 4
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return data[:at] + b"".join(parts) + data[at:]


def profile(block: bytes) -> bytes:
    """What ImageMagick writes as `Raw profile type exif`."""
    return f"\nexif\n{len(block):8}\n{block.hex()}\n".encode()


def as_pillow_has_it(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        image.load()
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
OUTSIDE = struct.pack("<HHII", 0x010F, 2, 4_000, 9_000)
CASES = {
    "short": jpeg(HEAD + tiff(6)),
    "long": jpeg(HEAD + tiff(6, kind=4)),
    "big endian long": jpeg(HEAD + tiff(8, kind=4, order=">")),
    "byte": jpeg(HEAD + tiff(6, kind=1)),
    "signed": jpeg(HEAD + tiff(5, kind=8)),
    "rational": jpeg(HEAD + tiff(6, kind=5)),
    "float": jpeg(HEAD + tiff(7, kind=11)),
    "double": jpeg(HEAD + tiff(3, kind=12)),
    "two values": jpeg(HEAD + tiff(6, 1)),
    "not legal": jpeg(HEAD + tiff(99)),
    "not legal beside XMP": jpeg(HEAD + tiff(99), XMP_HEAD + xmp(6)),
    "zero": jpeg(HEAD + tiff(0)),
    "no block": jpeg(HEAD),
    "head alone": jpeg(HEAD + b"II*\0"),
    "head twice": jpeg(HEAD + HEAD + tiff(6)),
    "other order of the head": jpeg(HEAD + b"II\0*" + tiff(6)[4:]),
    "a tag that points outside": jpeg(HEAD + tiff(6, ahead=(OUTSIDE,))),
    "an unknown type ahead": jpeg(HEAD + tiff(6, ahead=(struct.pack("<HHII", 0x010F, 77, 4_000, 9_000),))),
    "twice in one block": jpeg(HEAD + tiff(6, ahead=(struct.pack("<HHIHH", 0x0112, 3, 1, 8, 0),))),
    "cut": jpeg(HEAD + tiff(6)[:15]),
    "second segment says 1": jpeg(HEAD + tiff(6), HEAD + tiff(1)),
    "second segment says 8": jpeg(HEAD + tiff(1), HEAD + tiff(8)),
    "one block in two segments": jpeg(HEAD + tiff(6)[:15], HEAD + tiff(6)[15:]),
    "XMP alone": jpeg(XMP_HEAD + xmp(6)),
    "XMP as an element": jpeg(XMP_HEAD + xmp(8, element=True)),
    "XMP behind Exif without the tag": jpeg(HEAD + tiff(6).replace(b"\x12\x01", b"\x13\x01", 1), XMP_HEAD + xmp(3)),
    "XMP against Exif": jpeg(XMP_HEAD + xmp(3), HEAD + tiff(6)),
    "XMP twice": jpeg(XMP_HEAD + xmp(3), XMP_HEAD + xmp(6)),
    "png before": png((b"eXIf", tiff(6))),
    "png behind": png((b"eXIf", tiff(6)), behind=True),
    "png behind, long": png((b"eXIf", tiff(5, kind=4)), behind=True),
    "png with the JPEG head": png((b"eXIf", HEAD + tiff(6))),
    "png XMP": png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))),
    "png XMP behind": png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6)), behind=True),
    "png XMP packed": png((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp(6)))),
    "png XMP as plain text": png((b"tEXt", b"XML:com.adobe.xmp\0" + xmp(6))),
    "png profile": png((b"tEXt", b"Raw profile type exif\0" + profile(HEAD + tiff(6)))),
    "png profile packed": png((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile(HEAD + tiff(6))))),
    "png other texts": png((b"tEXt", b'Software\0tiff:Orientation="6"'), (b"iTXt", b"broken")),
    "webp": encoded(IMAGE, "WEBP", exif=HEAD + tiff(6, kind=4), lossless=True),
    "webp XMP": encoded(IMAGE, "WEBP", xmp=xmp(6), lossless=True),
    "tiff XMP": encoded(IMAGE, "TIFF", tiffinfo={700: xmp(6)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_turned_as_pillow_turns_it(name):
    data = CASES[name]
    header, pixels, expected = headers.read(data), pictures.decode(data), as_pillow_has_it(data)
    assert pixels.shape == expected.shape == (header.height, header.width, 3)
    assert np.abs(pixels.astype(int) - expected).mean() < 1


def test_the_cases_hold_every_way_to_turn_and_both_verdicts():
    assert {headers.read(data).orientation for data in CASES.values()} >= {1, 3, 5, 6, 7, 8}


def test_damaged_blocks_of_any_kind_are_no_error():
    sound = HEAD + tiff(6, kind=5, order=">")
    rng = np.random.default_rng(0)
    for at, value in itertools.product(range(6, len(sound)), rng.integers(0, 256, 4).tolist()):
        data = jpeg(sound[:at] + bytes([value]) + sound[at + 1 :])
        try:
            expected = as_pillow_has_it(data).shape
        except Exception:  # Pillow gives up on the block; the picture is not the worse for it
            expected = (24, 36, 3)
        assert pictures.decode(data).shape == expected, (at, value)


def test_an_imagemagick_profile_that_is_damaged_turns_nothing():
    data = png((b"tEXt", b"Raw profile type exif\0\n1\n2\nxyz"))
    assert headers.read(data).orientation == 1
    assert pictures.decode(data).shape == (24, 36, 3)


@pytest.mark.shared
def test_small_pictures_from_bug_reports():
    for path in sorted(case("35").glob("*.[jp][pn]g")):
        data = path.read_bytes()
        assert pictures.decode(data).shape == as_pillow_has_it(data).shape, path.name
