"""Thin pictures cost no more memory than others, and others are the same pixels as ever."""

import resource

import numpy as np
import pytest
from PIL import Image

from refloom.inference.adapters.ezigen.editing import working_size
from refloom.inference.adapters.ezigen.referenceunet import subject_pixels
from refloom.inference.adapters.vision import DEVIATION, MEAN, clip_pixels
from refloom.inference.evaluation.encoders import crop
from refloom.inference.models.crops import cut_square, middle
from refloom.schemas.errors import Refused

_MOST_BYTES = 400 << 20


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_crop(image, side, round_to=int):
    """The short side to `side`, then the middle, whatever the long side becomes."""
    height, width = image.shape[:2]
    short = min(height, width)
    scaled = int(side * width / short), int(side * height / short)
    whole = Image.fromarray(image).resize(scaled, Image.Resampling.BICUBIC)
    left, top = round_to((scaled[0] - side) / 2), round_to((scaled[1] - side) / 2)
    return np.asarray(whole.crop((left, top, left + side, top + side)))


SHAPES = [(40, 56), (56, 40), (33, 33), (20, 320), (320, 20), (7, 100)]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ordinary_picture_is_cut_to_the_bit_as_if_there_were_no_thin_ones(shape):
    image = noise(*shape)
    assert middle(image) is image or np.shares_memory(middle(image), image)
    seen = clip_pixels([image], 28)[0].permute(1, 2, 0).numpy()
    wanted = (plain_crop(image, 28).astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    assert np.abs(seen - wanted).max() < 1e-6
    assert np.array_equal(crop(image, "clip", 28), plain_crop(image, 28, round))


@pytest.mark.parametrize("shape", [(8, 1200), (1200, 8), (3, 901), (902, 3)])
def test_the_middle_of_a_thin_picture_is_what_it_was(shape):
    image = np.kron(noise(*(max(1, side // 4) for side in shape)), np.ones((4, 4, 1), np.uint8))
    apart = np.abs(crop(image, "clip", 28).astype(int) - plain_crop(image, 28, round))
    assert apart.mean() < 2


@pytest.mark.parametrize("shape", [*SHAPES, (600, 301), (301, 600)])
def test_a_subject_in_a_white_square_is_to_the_bit_what_the_whole_square_becomes(shape):
    image, longer = noise(*shape), max(shape)
    square = np.full((longer, longer, 3), 255, np.uint8)
    top, left = (longer - shape[0]) // 2, (longer - shape[1]) // 2
    square[top : top + shape[0], left : left + shape[1]] = image
    wanted = np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.BILINEAR))
    seen = subject_pixels([image], 64)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.rint((seen + 1) * 127.5), wanted)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("shape", [(1, 20000), (20000, 1)])
@pytest.mark.parametrize(
    "look",
    [
        lambda image: clip_pixels([image], 224),
        lambda image: clip_pixels([image], 224, squash=512),
        lambda image: crop(image, "dino", 224),
        lambda image: subject_pixels([image], 64),
        lambda image: subject_pixels([image], 64, squash=True),
        lambda image: cut_square(image, (0, 0, 20000, 20000), 512),
    ],
    ids=["clip", "squashed", "scores", "subject", "squashed subject", "face"],
)
def test_a_picture_of_20000x1_takes_little_memory(look, shape):
    image, before = noise(*shape), peak()
    look(image)
    assert peak() - before < _MOST_BYTES


def test_a_large_square_is_shrunk_before_it_is_padded_and_looks_the_same():
    image = np.full((10, 9000, 3), 0, np.uint8)
    square = cut_square(image, (0, -4495, 9000, 4505), 90)
    dark = np.flatnonzero((square < 128).any(axis=(1, 2)))
    assert square.shape == (90, 90, 3)
    assert 44 <= dark.min() <= dark.max() <= 46


def test_a_picture_that_is_too_thin_to_be_edited_is_refused():
    assert working_size((40, 56), None, None, 512, 8) == (512, 720)
    with pytest.raises(Refused, match=r"the picture is 20000x1, thinner than 1 : 4, .*: cut out the part"):
        working_size((1, 20000), None, None, 512, 8)
