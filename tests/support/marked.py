"""Pictures whose files say where, when and by whom they were taken, in every way that real ones do."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from drawing import gradient
from PIL import Image, ImageCms, TiffImagePlugin

SECRETS = (b"SecretCam", b"Jane Doe", b"SN-424242", b"Wonderland")
"""Maker, author, serial number and city: none may be left in a stripped file."""
WIDTH, HEIGHT = 48, 32
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
    b'exif:GPSLatitude="48,12.5N" exif:GPSLongitude="16,22.1E" dc:creator="Jane Doe" photoshop:City="Wonderland"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def pixels() -> Image.Image:
    return Image.fromarray(gradient(WIDTH, HEIGHT, 7))


def exif(orientation: int = 1, *, gps: bool = True) -> bytes:
    """A TIFF block with maker, author, serial number, MakerNote, a thumbnail in IFD1, and GPS."""
    made = Image.Exif()
    made[0x010F], made[0x013B] = "SecretCam", "Jane Doe"
    if orientation != 1:
        made[0x0112] = orientation
    made.get_ifd(0x8769)[0xA431] = "SN-424242"
    made.get_ifd(0x8769)[0x927C] = b"SecretCam\x00" + bytes(range(64))
    if gps:
        made.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 30.0), 3: "E", 4: (16.0, 22.0, 6.0)})
    return made.tobytes().removeprefix(b"Exif\x00\x00")


def with_thumbnail(orientation: int = 1) -> bytes:
    """A big-endian TIFF block whose second directory holds a JPEG."""
    small = encoded("JPEG")
    first = struct.pack(">H", 1) + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(">I", 8 + 18)
    second = (
        struct.pack(">H", 2)
        + struct.pack(">HHII", 0x0201, 4, 1, 26 + 30)
        + struct.pack(">HHII", 0x0202, 4, 1, len(small))
    )
    return b"MM\x00*" + struct.pack(">I", 8) + first + second + b"\x00" * 4 + small


def iptc() -> bytes:
    """Photoshop's resources with a record of IPTC: city and author."""
    records = b"".join(
        b"\x1c\x02" + bytes((number,)) + len(text).to_bytes(2, "big") + text
        for number, text in ((90, b"Wonderland"), (80, b"Jane Doe"))
    )
    padded = records + b"\x00" * (len(records) % 2)
    return b"Photoshop 3.0\x00" + b"8BIM\x04\x04\x00\x00" + len(records).to_bytes(4, "big") + padded


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels().save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def jpeg(*segments: bytes, **options: Any) -> bytes:
    """A JPEG with more segments behind its first one."""
    data = encoded("JPEG", **{"quality": 90, **options})
    end = 4 + int.from_bytes(data[4:6], "big")
    return data[:end] + b"".join(segments) + data[end:]


def app1(block: bytes) -> bytes:
    return segment(0xE1, b"Exif\x00\x00" + block)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(*chunks: bytes, behind: bytes = b"", **options: Any) -> bytes:
    """A PNG with more chunks before its pixels, and some behind them."""
    data = encoded("PNG", **options)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + b"".join(chunks) + data[start:end] + behind + data[end:]


def raw_profile(kind: bytes, data: bytes) -> bytes:
    """As ImageMagick writes it."""
    return b"\n" + kind + b"\n%8d\n" % len(data) + data.hex().encode() + b"\n"


def multi_picture() -> bytes:
    """An MPO whose second picture holds the place."""
    second = jpeg(app1(exif()))
    buffer = io.BytesIO()
    pixels().save(buffer, "MPO", save_all=True, append_images=[Image.open(io.BytesIO(second))], quality=90)
    return buffer.getvalue() + (b"" if b"Exif\x00\x00" in buffer.getvalue() else second)


def tiff(**options: Any) -> bytes:
    """A TIFF with texts, XMP, IPTC, and, where it is not compressed, directories of Exif and GPS."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[271], tags[315], tags[700] = "Wonderland", "SecretCam", "Jane Doe", XMP
    tags[33723] = iptc()[26:]
    made = Image.Exif()
    made.load(b"Exif\x00\x00" + exif())
    for tag in (0x8825, 0x8769) if not options else ():
        tags[tag] = made.get_ifd(tag)
    return encoded("TIFF", tiffinfo=tags, icc_profile=ICC, **options)


CASES: dict[str, Callable[[], bytes]] = {
    "jpeg exif": lambda: jpeg(app1(exif(6)), icc_profile=ICC),
    "jpeg second exif segment": lambda: jpeg(app1(exif(3, gps=False)), app1(exif(3))),
    "jpeg thumbnail": lambda: jpeg(
        app1(with_thumbnail(8)), segment(0xFE, b"SecretCam, Wonderland, latitude: GPSLatitude")
    ),
    "jpeg xmp": lambda: jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + XMP)),
    "jpeg extended xmp": lambda: jpeg(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\x00" + b"0" * 40 + XMP)),
    "jpeg iptc": lambda: jpeg(segment(0xED, iptc())),
    "jpeg comment and makers' segments": lambda: jpeg(
        segment(0xFE, b"SecretCam GPSLatitude 48"), segment(0xE4, b"SecretCam"), segment(0xEB, b"JP Jane Doe")
    ),
    "jpeg trailer": lambda: jpeg() + b"SEFT SecretCam" + jpeg(app1(exif())),
    "jpeg progressive": lambda: jpeg(app1(exif(5)), progressive=True, icc_profile=ICC),
    "mpo": multi_picture,
    "png eXIf": lambda: png(chunk(b"eXIf", exif(6)), icc_profile=ICC),
    "png eXIf behind the pixels": lambda: png(behind=chunk(b"eXIf", exif())),
    "png zTXt raw profile": lambda: png(
        chunk(b"zTXt", b"Raw profile type exif\x00\x00" + zlib.compress(raw_profile(b"exif", b"Exif\x00\x00" + exif())))
    ),
    "png tEXt raw profile": lambda: png(
        chunk(b"tEXt", b"Raw profile type APP1\x00" + raw_profile(b"generic profile", b"Exif\x00\x00" + exif()))
    ),
    "png iTXt raw profile": lambda: png(
        chunk(
            b"iTXt",
            b"Raw profile type exif\x00\x01\x00\x00\x00"
            + zlib.compress(raw_profile(b"exif", b"Exif\x00\x00" + exif())),
        )
    ),
    "png iptc": lambda: png(
        chunk(b"zTXt", b"Raw profile type iptc\x00\x00" + zlib.compress(raw_profile(b"iptc", iptc())))
    ),
    "png xmp": lambda: png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + XMP), chunk(b"prVt", b"SecretCam")
    ),
    "webp exif": lambda: encoded("WEBP", exif=exif(6), icc_profile=ICC, quality=80),
    "webp xmp": lambda: encoded("WEBP", xmp=XMP, lossless=True),
    "tiff": tiff,
    "tiff deflate": lambda: tiff(compression="tiff_deflate"),
    "tiff jpeg": lambda: tiff(compression="jpeg"),
    "avif": lambda: encoded("AVIF", exif=exif(6), xmp=XMP, icc_profile=ICC, quality=80),
    "avif xmp": lambda: encoded("AVIF", xmp=XMP, quality=80),
    "gif comment": lambda: encoded("GIF", comment=b"SecretCam geo:lat=48"),
}


def same_as_pillow_shows(first: bytes, second: bytes) -> bool:
    """Whether Pillow decodes the same stored pixels from two files."""
    with Image.open(io.BytesIO(first)) as one, Image.open(io.BytesIO(second)) as other:
        return one.mode == other.mode and np.array_equal(np.asarray(one), np.asarray(other))
