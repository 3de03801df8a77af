"""Parts of JPEGs: the same coefficients, whatever sampling, tables and restarts a file has; else nothing."""

import numpy as np
import pytest
from drawing import encoded, gradient
from pairfiles import pixels
from PIL import Image

from refloom.ingest import jpegcut
from refloom.schemas import headers

BOXES = [(0, 0, 64, 48), (64, 32, 150, 90), (16, 0, 23, 7), (128, 80, 150, 90)]
OPTIONS = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"subsampling": 0, "optimize": True},
    {"subsampling": 2, "restart_marker_blocks": 3},
    {"subsampling": 0, "restart_marker_rows": 1},
]


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    return encoded(Image.fromarray(gradient(150, 90, 5)).convert(mode), "JPEG", **({"quality": 90} | options))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_a_part_has_the_pixels_of_the_whole(options, box):
    data = jpeg(**options)
    (part,) = jpegcut.cut(data, [box])
    assert part is not None
    header = headers.read(part)
    assert (header.width, header.height) == (box[2] - box[0], box[3] - box[1])
    differences = np.abs(pixels(part) - pixels(data)[box[1] : box[3], box[0] : box[2]])
    edge = 2 if options["subsampling"] else 0  # decoders smooth chroma of half the size across the cut
    inner = differences[edge : differences.shape[0] - edge, edge : differences.shape[1] - edge]
    assert not inner.any()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_numbers_of_colours_are_cut_too(mode):
    data = jpeg(mode)
    (part,) = jpegcut.cut(data, [(64, 16, 140, 80)])
    assert part is not None
    assert (pixels(part) == pixels(data)[16:80, 64:140]).all()


def test_metadata_stays_behind_and_a_colour_profile_comes_along():
    exif = Image.Exif()
    exif[0x010E] = "where the camera stood"
    data = jpeg(exif=exif, icc_profile=b"profile of a test", comment=b"a comment")
    (part,) = jpegcut.cut(data, [(0, 0, 64, 48)])
    assert part is not None
    assert b"profile of a test" in part
    assert b"where the camera stood" in data
    assert b"where the camera stood" not in part
    assert b"a comment" not in part


@pytest.mark.parametrize(
    ("data", "box"),
    [
        (jpeg(subsampling=2), (8, 0, 64, 48)),
        (jpeg(subsampling=0), (0, 4, 64, 48)),
        (jpeg(progressive=True), (0, 0, 64, 48)),
        (encoded(Image.new("RGB", (32, 32)), "PNG"), (0, 0, 16, 16)),
        (b"", (0, 0, 16, 16)),
    ],
    ids=["off the grid of 16", "off the grid of 8", "progressive", "no JPEG", "empty"],
)
def test_what_cannot_be_cut_without_loss_is_left_to_pixels(data, box):
    assert jpegcut.cut(data, [box]) == [None]


def test_damage_anywhere_gives_nothing_or_a_picture_and_never_an_error():
    data = jpeg(subsampling=2, optimize=True)
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in rng.integers(2, len(data), 150).tolist():
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        outcomes.add(jpegcut.cut(bytes(damaged), [(0, 0, 64, 48)]) == [None])
    outcomes.update(jpegcut.cut(data[:stop], [(0, 0, 64, 48)]) == [None] for stop in range(0, len(data), 97))
    assert outcomes == {True, False}


def test_several_parts_are_those_of_each_alone():
    data = jpeg(subsampling=2)
    boxes = [(64, 32, 150, 90), (8, 0, 64, 48), (0, 0, 64, 48)]
    assert jpegcut.cut(data, boxes) == [one for box in boxes for one in jpegcut.cut(data, [box])]
    assert jpegcut.cut(data, []) == []
