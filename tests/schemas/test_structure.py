"""Slow bombs are seen before any decoder: scans, frames, chunks and tags are counted up to a bound."""

import io
import zlib
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from drawing import encoded
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin
from slowfiles import (
    IMAGE,
    bombs,
    chunk,
    gif_with,
    png_with,
    progressive,
    sequential,
    tag_bomb,
    tiff_with,
    with_segments,
)

from refloom.ingest import labelmap
from refloom.schemas import headers, pictures, structure
from refloom.schemas.errors import Rejected

PIXELS = np.asarray(IMAGE)


@pytest.mark.parametrize("what", bombs())
def test_a_slow_bomb_is_refused_and_no_decoder_sees_it(what, monkeypatch):
    data, reason = bombs()[what]
    for place, name in ((Image, "open"), (simplejpeg, "decode_jpeg"), (TiffImagePlugin.TiffImageFile, "_seek")):
        monkeypatch.setattr(place, name, lambda *_, **__: pytest.fail("a decoder was asked"))
    for read in (headers.read, pictures.decode):
        with pytest.raises(Rejected) as caught:
            read(data)
        assert caught.value.reason == reason
        assert len(caught.value.detail) < 100
    with pytest.raises(Rejected):
        labelmap.label_map(data)


@pytest.mark.parametrize(
    "data",
    [
        progressive(12),
        sequential(3),
        encoded(IMAGE, "JPEG") + encoded(IMAGE, "JPEG", progressive=True) * 20,
        with_segments(300),
        png_with(*[chunk(b"tEXt", b"a\0b")] * 500),
        gif_with(b"!\xfe\x03abc\0" * 100),
        tiff_with(700, 1, 40_000, 0, b"x" * 40_000),
    ],
    ids=["12 scans", "a scan a component", "pictures behind the end", "segments", "texts", "comments", "XMP"],
)
def test_what_cameras_and_editors_write_is_no_bomb(data):
    assert pictures.decode(data).shape == PIXELS.shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "BMP", "PPM"])
def test_every_format_still_opens(kind):
    image = IMAGE.convert("P") if kind == "GIF" else IMAGE
    assert pictures.decode(encoded(image, kind)).shape == PIXELS.shape


@pytest.mark.parametrize("scans", [33, 1000])
def test_scans_are_counted_no_further_than_their_bound(scans, monkeypatch):
    searched = []
    pattern = structure._MARKER

    class Counting:
        @staticmethod
        def search(data, position):
            searched.append(position)
            return pattern.search(data, position)

    monkeypatch.setattr(structure, "_MARKER", Counting)
    with pytest.raises(Rejected, match="more than 32 scans"):
        structure.check(progressive(scans))
    assert len(searched) < 80


def test_the_larger_a_picture_the_fewer_scans_it_may_have():
    data = progressive(25)
    structure.check(data)
    frame = data.find(b"\xff\xc2")
    large = data[: frame + 5] + (9999).to_bytes(2, "big") + (10_000).to_bytes(2, "big") + data[frame + 9 :]
    with pytest.raises(Rejected, match="21 scans of 99,990,000 pixels"):
        structure.check(large)
    twelve = progressive(12)
    structure.check(twelve[: frame + 5] + (9999).to_bytes(2, "big") + (10_000).to_bytes(2, "big") + twelve[frame + 9 :])


def test_scans_of_a_strip_in_a_tiff_are_counted():
    file = io.BytesIO()
    IMAGE.save(file, "TIFF", compression="jpeg")
    data = file.getvalue()
    assert pictures.decode(data).shape == PIXELS.shape
    last, end = data.find(b"\xff\xda"), data.rfind(b"\xff\xd9")
    many = data[last:end] * 50
    strip = data[data.find(b"\xff\xd8") : end] + many + b"\xff\xd9"
    held = tiff_with(259, 3, 1, 7)
    bomb = bytearray(held)
    place = len(bomb)
    bomb += strip
    for tag, value in ((273, place), (279, len(strip))):
        at = bomb.rfind(tag.to_bytes(2, "little"), 0, place)
        bomb[at : at + 12] = tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
    with pytest.raises(Rejected, match="more than 32 scans in a strip"):
        structure.check(bytes(bomb))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"], ids=lambda kind: kind.decode())
def test_one_text_or_profile_that_grows_without_end_is_not_inflated_to_its_end(kind, behind, monkeypatch):
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    body, pressed = zlib.compress(bytes(64 << 20), 9), []
    inflate = zlib.decompressobj

    class Counting:
        def __init__(self, *arguments):
            self._own = inflate(*arguments)

        def decompress(self, data, limit=0):
            found = self._own.decompress(data, limit)
            pressed.append(len(found))
            return found

        def __getattr__(self, name):
            return getattr(self._own, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    with suppress(Rejected):
        pictures.decode(png_with(chunk(kind, head + body), behind=behind))
    assert sum(pressed) <= 8 << 20


def test_tags_that_claim_what_is_not_there_are_no_bomb():
    """Editors damage Exif blocks; whoever reads them stops at the end of the file."""
    block = bytearray(tag_bomb(20, 100))
    for at in range(20):
        block[10 + 12 * at + 4 : 10 + 12 * at + 8] = b"\xff\xff\xff\x7f"
    segment = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0" + block
    data = encoded(IMAGE, "JPEG")
    assert pictures.decode(data[:2] + segment + data[2:]).shape == PIXELS.shape


@pytest.mark.parametrize("extra", [9 << 20, None], ids=["giant", "a chain of elements"])
def test_a_profile_that_takes_minutes_to_build_is_ignored(extra, monkeypatch):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().replace(b"s\0R\0G\0B", b"o\0t\0h\0r")
    more = bytes(extra) if extra else b"mpet" + bytes(4) + b"\0\3\0\3" + (50_000).to_bytes(4, "big")
    monkeypatch.setattr(ImageCms, "buildTransform", lambda *_, **__: pytest.fail("it was built"))
    assert pictures._transform(profile + more, "RGB") is None
    monkeypatch.undo()
    assert pictures._transform(profile, "RGB") is not None


SOUND = [encoded(IMAGE, kind) for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")] + [progressive(12), gif_with(b"")]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SOUND),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
    st.floats(0.2, 1),
)
def test_any_damage_to_a_picture_is_a_verdict(data, damage, kept):
    broken = bytearray(data)
    for place, patch in damage:
        at = int(place * (len(data) - 1))
        broken[at : at + len(patch)] = patch
    with suppress(Rejected):
        pictures.decode(bytes(broken[: int(kept * len(broken))]))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"II*\0",
            b"MM\0*",
            b"II+\0",
            b"MM\0+",
            b"RIFFxxxxWEBP",
            b"\0\0\0\x1cftypavis",
            b"\0\0\0\x1cftypavif",
        ]
    ),
    st.binary(max_size=400),
)
def test_any_bytes_behind_a_signature_are_walked_to_an_end(start, rest):
    with suppress(Rejected):
        structure.check(start + rest)
