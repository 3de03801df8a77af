"""Metadata of pictures goes, in whatever place a format has for it; pixels, orientation and colours stay."""

import io
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marked import CASES, ICC, SECRETS, XMP, app1, chunk, encoded, exif, jpeg, png, same_as_pillow_shows, segment, tiff
from PIL import Image, ImageOps

from refloom.schemas import headers, pictures
from refloom.schemas.metadata.location import has_location
from refloom.schemas.metadata.pieces import CannotStrip
from refloom.schemas.metadata.stripping import strip


@pytest.mark.parametrize("case", CASES)
def test_nothing_personal_is_left_and_the_picture_is_the_same(case):
    data = CASES[case]()
    made = strip(data)
    assert made != data
    assert not [secret for secret in SECRETS if secret in made or secret.hex().encode() in made]
    assert b"GPSL" not in made
    before, after = headers.read(data), headers.read(made)
    assert (after.format, after.orientation, after.icc) == (before.format, before.orientation, before.icc)
    assert np.array_equal(pictures.decode(made), pictures.decode(data))
    assert same_as_pillow_shows(data, made)
    with Image.open(io.BytesIO(data)) as old, Image.open(io.BytesIO(made)) as new:
        assert new.info.get("icc_profile") == old.info.get("icc_profile")
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(new)), np.asarray(ImageOps.exif_transpose(old)))
        said = dict(new.getexif())
        assert set(said) <= {0x0112} or old.format == "TIFF"
        assert not new.getexif().get_ifd(0x8825)
    assert strip(made) == made
    assert has_location(made) is False


@pytest.mark.parametrize("case", CASES)
def test_a_place_is_seen_wherever_it_stands(case):
    assert has_location(CASES[case]()) is True


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_every_orientation_stays(kind, orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "SecretCam"
    data = encoded(kind, exif=block.tobytes())
    made = strip(data)
    assert headers.read(made).orientation == headers.read(data).orientation == orientation
    assert b"SecretCam" not in made
    assert np.array_equal(pictures.decode(made), pictures.decode(data))


@pytest.mark.parametrize(
    "data",
    [
        pictures.encode_jpeg(np.asarray(Image.new("RGB", (9, 9), "red")), 90),
        encoded("JPEG", icc_profile=ICC),
        encoded("JPEG", progressive=True),
        encoded("PNG", icc_profile=ICC),
        encoded("WEBP", lossless=True),
        encoded("BMP"),
        encoded("PPM"),
        encoded("GIF"),
    ],
    ids=["jpeg", "jpeg icc", "jpeg progressive", "png", "webp", "bmp", "ppm", "gif"],
)
def test_a_file_that_says_nothing_keeps_its_bytes(data):
    assert strip(data) is data
    assert has_location(data) is False


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_says_how_it_is_turned_and_no_more_keeps_its_bytes(kind):
    block = Image.Exif()
    block[0x0112] = 6
    data = encoded(kind, exif=block.tobytes())
    assert strip(data) is data


def test_adobes_colours_stay():
    data = jpeg(app1(exif()))
    ink = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("CMYK").save(ink, "JPEG", quality=90)
    made = strip(jpeg_with(ink.getvalue(), segment(0xFE, b"SecretCam")))
    assert b"SecretCam" not in made
    assert same_as_pillow_shows(ink.getvalue(), made)


def jpeg_with(data: bytes, extra: bytes) -> bytes:
    return data[:2] + extra + data[2:]


def test_filling_between_a_scan_and_the_next_marker_goes_and_the_scan_stays():
    data = encoded("JPEG")
    end = data.rindex(b"\xff\xd9")
    for filling in (1, 2, 300_000):
        assert strip(data[:end] + b"\xff" * filling + data[end:]) == data
    assert strip(data[:end] + b"\xff\x00\xff\xff\xd9") == data[:end] + b"\xff\x00\xff\xd9"


def test_the_thumbnail_of_jfif_goes():
    data = encoded("JPEG")
    old = segment(0xE0, b"JFIF\x00\x01\x02\x00\x00\x01\x00\x01\x02\x01" + b"\x09" * 6)
    made = strip(data[:2] + old + data[20:])
    assert b"\x09" * 6 not in made
    assert same_as_pillow_shows(data, made)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16", "LA"])
def test_tiffs_of_all_kinds_of_pixels(mode):
    source = Image.open(io.BytesIO(encoded("PNG")))
    image = source.convert("L").convert("I;16") if mode == "I;16" else source.convert(mode)
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "packbits"}):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF", description="Wonderland", **options)
        made = strip(buffer.getvalue())
        assert b"Wonderland" not in made
        assert same_as_pillow_shows(buffer.getvalue(), made)


def test_bytes_of_a_tiff_that_no_tag_points_to_are_not_copied():
    made = strip(tiff() + b"Jane Doe forgotten")
    assert b"forgotten" not in made


def test_avif_with_transparency():
    buffer = io.BytesIO()
    Image.fromarray(
        np.dstack([np.asarray(Image.open(io.BytesIO(encoded("PNG")))), np.full((32, 48), 90, np.uint8)])
    ).save(buffer, "AVIF", exif=exif(), xmp=XMP)
    made = strip(buffer.getvalue())
    assert b"Jane Doe" not in made
    assert same_as_pillow_shows(buffer.getvalue(), made)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        encoded("JPEG")[:-2],
        png(chunk(b"ABCD", b"decides")),
        encoded("TIFF").replace(*(struct.pack("<HHII", 259, 3, 1, number) for number in (1, 50001))),
    ],
)
def test_what_cannot_be_taken_apart_says_so(data):
    with pytest.raises(CannotStrip):
        strip(data)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(CASES)), st.data())
def test_damaged_files_are_stripped_or_refused_and_never_more(case, data):
    whole = bytearray(MADE[case])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    assert has_location(cut) in (True, False, None)
    try:
        made = strip(cut)
    except CannotStrip:
        return
    assert headers.read(made).orientation == headers.read(cut).orientation


MADE = {case: make() for case, make in CASES.items()}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_place_is_seen_before_and_between_scans_and_behind_the_end(progressive, thumbnail):
    """With what looks like a scan inside a segment before it, too."""
    data = encoded("JPEG", progressive=progressive)
    if thumbnail:
        data = jpeg_with(data, segment(0xE5, encoded("JPEG")))
    said = app1(exif())
    scans = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] in (0xDA, 0xC4)]
    assert len(scans) > (6 if progressive else 1)
    own = [at for at in scans if not thumbnail or at > 4 + len(encoded("JPEG"))]
    assert has_location(data) is False
    for at in own:
        assert has_location(data[:at] + said + data[at:]) is True, at
    assert has_location(data + jpeg(said)) is True


def test_a_location_that_is_not_there_is_not_seen():
    assert has_location(jpeg(app1(exif(6, gps=False)))) is False
    assert has_location(encoded("PNG")) is False
    version_only = struct.pack("<H", 1) + struct.pack("<HHII", 0x8825, 4, 1, 26) + b"\x00" * 4
    version = struct.pack("<H", 1) + struct.pack("<HHI4s", 0, 1, 4, b"\x02\x03\x00\x00") + b"\x00" * 4
    assert has_location(jpeg(app1(b"II*\x00\x08\x00\x00\x00" + version_only + version))) is False
