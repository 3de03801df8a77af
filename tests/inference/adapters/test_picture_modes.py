"""Every mode of picture that Pillow has is read right, or refused by its name."""

import io

import numpy as np
import pytest
from PIL import Image

from refloom.inference.adapters.reading import read_mask, read_picture
from refloom.schemas import pictures
from refloom.schemas.errors import Refused

GREY = np.array([[0, 60], [120, 255]], np.uint8)
ALPHA = np.array([[255, 128], [0, 255]], np.uint8)


def on_white(values, alpha):
    """What is seen of colours, not multiplied, through their transparency."""
    share = alpha[..., None] / 255
    return values * share + 255 * (1 - share)


def colours():
    return np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def premultiplied(mode, *bands):
    """An image of a mode whose colours are multiplied by its transparency."""
    plain = Image.merge({"La": "LA", "RGBa": "RGBA"}[mode], [Image.fromarray(band) for band in bands])
    return plain.convert(mode)


def palette(transparency=None):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
    image.putpalette([0, 0, 0, 60, 60, 60, 120, 120, 120, 255, 255, 255])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


THREE = np.repeat(GREY[..., None], 3, axis=2)
SIXTEEN = GREY.astype(np.uint16) * 257
MODES = {
    "1": (Image.fromarray(GREY > 100), np.where(THREE > 100, 255, 0), 0),
    "L": (Image.fromarray(GREY), THREE, 0),
    "LA": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), on_white(THREE, ALPHA), 1),
    "La": (premultiplied("La", GREY, ALPHA), on_white(THREE, ALPHA), 2),
    "P": (palette(), THREE, 0),
    "P, one colour transparent": (palette(2), on_white(THREE, np.array([[255, 255], [0, 255]])), 1),
    "P, all more or less": (palette(bytes([255, 128, 0, 255])), on_white(THREE, ALPHA), 1),
    "PA": (palette(bytes([255, 128, 0, 255])).convert("PA"), on_white(THREE, ALPHA), 1),
    "RGB": (Image.fromarray(colours()), colours(), 0),
    "RGBX": (Image.fromarray(colours()).convert("RGBX"), colours(), 0),
    "RGBA": (Image.fromarray(np.dstack([colours(), ALPHA])), on_white(colours(), ALPHA), 1),
    "RGBa": (premultiplied("RGBa", *np.moveaxis(colours(), 2, 0), ALPHA), on_white(colours(), ALPHA), 2),
    "CMYK": (Image.fromarray(colours()).convert("CMYK"), colours(), 1),
    "YCbCr": (Image.fromarray(colours()).convert("YCbCr"), colours(), 2),
    "HSV": (Image.fromarray(colours()).convert("HSV"), colours(), 6),
    "I, 8 bits": (Image.fromarray(GREY.astype(np.int32)), THREE, 0),
    "I, 16 bits": (Image.fromarray(SIXTEEN.astype(np.int32)), THREE, 0),
    "I;16": (Image.fromarray(SIXTEEN), THREE, 0),
    "I;16B": (Image.frombytes("I;16B", (2, 2), SIXTEEN.astype(">u2").tobytes()), THREE, 0),
    "I;16L": (Image.frombytes("I;16L", (2, 2), SIXTEEN.astype("<u2").tobytes()), THREE, 0),
}


@pytest.mark.parametrize("name", MODES)
def test_a_picture_of_any_mode_is_what_one_sees_of_it(name):
    image, seen, off = MODES[name]
    assert image.mode == name.partition(",")[0]
    found = read_picture(image)
    assert (found.shape, found.dtype) == ((2, 2, 3), np.uint8)
    assert np.abs(found.astype(float) - seen).max() <= off + 0.5
    assert np.array_equal(read_mask(image), found @ (0.299, 0.587, 0.114) >= 127.5)


def test_lab_is_read_as_colours():
    """Lightness of 50 % without colour is a middle grey."""
    image = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (128, 128, 128)])
    assert np.abs(read_picture(image).astype(int) - 119).max() <= 4


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((2, 2), 0.5, np.float32)), "floating-point pixels of unknown range"),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), "mode I has values outside 0 to 65535"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "mode I has values outside 0 to 65535"),
        (Image.new("RGB", (0, 4)), "0x4 has no pixels"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(image, message):
    with pytest.raises(Refused, match=message) as refusal:
        read_picture(image)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("mode", "kind"), [("LA", "PNG"), ("P", "GIF"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("1", "PNG")]
)
def test_the_same_mode_in_a_file_is_the_same_picture(mode, kind):
    image = MODES[mode][0].resize((16, 16), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    assert np.abs(pictures.decode(file.getvalue()).astype(int) - read_picture(image)).max() <= 3
