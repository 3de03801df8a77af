"""Small picture files that claim what takes a decoder minutes, made out of sound ones."""

import struct
import zlib
from functools import cache

from drawing import encoded, gradient
from PIL import Image

IMAGE = Image.fromarray(gradient(31, 23))
WIDE = 512


def progressive(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(IMAGE, "JPEG", progressive=True)
    last, own = data.rfind(b"\xff\xda"), data.count(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - own) + data[-2:]


def sequential(scans: int) -> bytes:
    """A baseline JPEG whose components come in scans of their own, one of them again and again."""
    data = encoded(IMAGE.convert("L"), "JPEG")
    frame = data.find(b"\xff\xc0")
    three = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 23, 31, 3) + b"".join(bytes([at, 0x11, 0]) for at in (1, 2, 3))
    start, scan = data[:frame] + three + data[frame + 13 : data.find(b"\xff\xda")], data[data.find(b"\xff\xda") : -2]
    scan_of = [scan[:5] + bytes([at]) + scan[6:] for at in (1, 2, 3)]
    return start + b"".join(scan_of) + scan_of[0] * (scans - 3) + data[-2:]


def with_segments(count: int, segment: bytes = b"\xff\xe5\x00\x02") -> bytes:
    """A JPEG with many segments in front."""
    data = encoded(IMAGE, "JPEG")
    return data[:2] + segment * count + data[2:]


def _app1(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body


def tag_bomb(tags: int, body_bytes: int, order: str = "<") -> bytes:
    """A directory whose tags all hold the whole block."""
    block = 8 + 2 + 12 * tags + 4 + body_bytes
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, tags)
    entries = b"".join(struct.pack(order + "HHII", 0x8000 + at % 0x7000, 7, block, 0) for at in range(tags))
    return head + entries + bytes(4 + body_bytes)


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes, behind: bool = False) -> bytes:
    """A PNG with more chunks, before its pixels or behind."""
    data = encoded(IMAGE, "PNG")
    at = len(data) - 12 if behind else 33
    return data[:at] + b"".join(chunks) + data[at:]


def gif_with(extension: bytes, *, frames: int = 1) -> bytes:
    """A GIF with bytes before its picture, which comes so many times."""
    data = encoded(IMAGE.convert("P"), "GIF")
    palette = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    picture = data[palette:-1]
    return data[:palette] + extension + picture * frames + b";"


def comments(count: int) -> bytes:
    """One comment of a GIF in so many parts."""
    return b"!\xfe" + (b"\xff" + b"c" * 255) * count + b"\0"


def tiff_of_directories(count: int) -> bytes:
    """A TIFF of one picture under so many directories."""
    data = bytearray(encoded(IMAGE, "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, start)
    directory = data[start : start + 2 + 12 * tags]
    link = start + 2 + 12 * tags
    for _ in range(count - 1):
        struct.pack_into("<I", data, link, len(data))
        link = len(data) + len(directory)
        data += directory + bytes(4)
    return bytes(data)


def tiff_with(tag: int, kind: int, count: int, value: int, body: bytes = b"") -> bytes:
    """A TIFF with one more tag, whose value stands at its end where `body` is given."""
    data = bytearray(encoded(IMAGE, "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, start)
    entries = {
        struct.unpack_from("<H", data, start + 2 + 12 * at)[0]: bytes(data[start + 2 + 12 * at : start + 14 + 12 * at])
        for at in range(tags)
    }
    directory = len(data) + len(body)
    entries[tag] = struct.pack("<HHII", tag, kind, count, len(data) if body else value)
    struct.pack_into("<I", data, 4, directory)
    packed = b"".join(entries[key] for key in sorted(entries))
    return bytes(data) + body + struct.pack("<H", len(entries)) + packed + bytes(4)


def webp_with(*chunks: bytes) -> bytes:
    """An extended WebP with more chunks."""
    data = encoded(IMAGE, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    body = data[8:] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff(kind: bytes, body: bytes) -> bytes:
    """One chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def box(kind: bytes, *content: bytes) -> bytes:
    """One box of an AVIF."""
    body = b"".join(content)
    return struct.pack(">I", len(body) + 8) + kind + body


def avif_sequence(frames: int) -> bytes:
    """The boxes of an AVIF sequence that claims so many frames of one size."""
    stsz = box(b"stsz", bytes(4), struct.pack(">II", 100, frames))
    trak = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", stsz))))
    return box(b"ftyp", b"avis", bytes(4), b"avisavif") + box(b"moov", box(b"mvhd", bytes(100)), trak) + bytes(64)


def avif_items(count: int) -> bytes:
    """The boxes of an AVIF that describes so many items."""
    iloc = box(b"iloc", bytes(4), struct.pack(">HH", 0x4400, count & 0xFFFF), bytes(14) * count)
    return box(b"ftyp", b"avif", bytes(4), b"avifmif1") + box(b"meta", bytes(4), iloc) + bytes(64)


@cache
def bombs() -> dict[str, tuple[bytes, str]]:
    """Files by what is wrong with them, and the reason that they are refused for."""
    tiny = b"\xff\xe1\x00\x02"
    exif = tag_bomb(1800, 40_000)
    return {
        "progressive JPEG of 100 scans": (progressive(100), "too_complex"),
        "progressive JPEG of 40 scans, behind fill bytes": (
            progressive(40).replace(b"\xff\xda", b"\xff\xff\xff\xda"),
            "too_complex",
        ),
        "JPEG of a scan a component, 100 times": (sequential(100), "too_complex"),
        "JPEG of 20,000 segments": (with_segments(20_000, tiny), "too_complex"),
        "JPEG of Exif tags that all hold the block": (with_segments(1, _app1(exif[:65_000])), "too_complex"),
        "JPEG of Exif in parts": (
            with_segments(1, _app1(exif[:30_000]) + _app1(exif[30_000:60_000]) + _app1(exif[60_000:])),
            "too_complex",
        ),
        "JPEG of a megabyte of filling": (with_segments(1, b"\xff" * (1 << 20)), "too_complex"),
        "JPEG of restarts for ever": (b"\xff\xd8\xff" + b"\xff\xd0" * (1 << 20), "too_complex"),
        "PPM of a comment of a megabyte": (b"P6\n#" + b"x" * (1 << 20) + b"\n2 2 255 " + bytes(12), "too_complex"),
        "PNG of Exif tags that all hold the chunk": (
            png_with(chunk(b"eXIf", tag_bomb(3000, 9000, ">"))),
            "too_complex",
        ),
        "PNG of 300,000 chunks": (png_with(chunk(b"teSt", b"") * 300_000), "too_complex"),
        "PNG of 300,000 chunks behind its pixels": (
            png_with(chunk(b"teSt", b"") * 300_000, behind=True),
            "too_complex",
        ),
        "PNG of 1,000 profiles": (
            png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 16))) * 1000),
            "too_complex",
        ),
        "PNG of 1,000 texts behind its pixels": (
            png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(1 << 16))) * 1000, behind=True),
            "too_complex",
        ),
        "APNG of 2**31 - 1 frames": (png_with(chunk(b"acTL", struct.pack(">II", (1 << 31) - 1, 0))), "animated"),
        "GIF of 20,000 frames": (gif_with(b"", frames=20_000), "animated"),
        "GIF of a comment of 8 MB": (gif_with(comments(32_000)), "too_complex"),
        "GIF of comments of 8 MB": (gif_with(comments(100) * 320), "too_complex"),
        "TIFF of 20,000 directories": (tiff_of_directories(20_000), "animated"),
        "TIFF of 5,000 tags that all hold the file": (tag_bomb(5000, 10_000), "too_complex"),
        "TIFF of two million strips": (tiff_with(273, 4, 2_000_000, 0, bytes(8_000_000)), "too_complex"),
        "WebP of 20,000 frames": (webp_with(riff(b"ANMF", bytes(24)) * 20_000), "animated"),
        "WebP of 300,000 chunks": (webp_with(riff(b"teSt", b"") * 300_000), "too_complex"),
        "WebP of Exif tags that all hold the chunk": (webp_with(riff(b"EXIF", tag_bomb(3000, 9000))), "too_complex"),
        "AVIF of two million frames": (avif_sequence(2_000_000), "animated"),
        "AVIF of 60,000 items": (avif_items(60_000), "too_complex"),
    }
