"""Boxes in the upright picture, and ids that survive any name."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refloom.schemas import boxes, ids
from refloom.schemas.masks import orient_pixels


@given(st.integers(1, 8), st.integers(2, 30), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_turning_a_box_is_turning_the_pixels_in_it(orientation, width, height, seed):
    rng = np.random.default_rng(seed)
    x0, y0 = rng.integers(0, width), rng.integers(0, height)
    x1, y1 = rng.integers(x0 + 1, width + 1), rng.integers(y0 + 1, height + 1)
    pixels = np.zeros((height, width), np.uint8)
    pixels[y0:y1, x0:x1] = 1
    turned = orient_pixels(pixels, orientation)
    (box,) = boxes.orient(np.array([[x0, y0, x1, y1]], np.float32), orientation, width, height).astype(int)
    expected = np.zeros_like(turned)
    expected[box[1] : box[3], box[0] : box[2]] = 1
    assert np.array_equal(turned, expected)


def test_clipping_allows_two_pixels_and_no_more():
    rows = [[-2, 0, 10, 10], [-2.1, 0, 10, 10], [0, 0, 102, 50], [5, 5, 5, 9], [np.nan, 0, 1, 1]]
    given_ = np.array(rows, np.float32)
    clipped, sound = boxes.clip(given_, 100, 50)
    assert sound.tolist() == [True, False, True, False, False]
    assert clipped[0].tolist() == [0, 0, 10, 10]
    assert clipped[2].tolist() == [0, 0, 100, 50]


def test_boxes_agree_within_four_pixels_or_a_twentieth():
    mask = np.array([[0, 0, 200, 20]], np.float32)
    near, far = mask + [[9, 3.9, 0, 0]], mask + [[0, 4.5, 0, 0]]
    assert boxes.agree(near.astype(np.float32), mask).tolist() == [True]
    assert boxes.agree(far.astype(np.float32), mask).tolist() == [False]


def test_areas_agree_within_fifteen_percent_and_half_the_outline():
    box = np.array([[0, 0, 10, 10]] * 4, np.float32)
    assert boxes.areas_agree([100, 130, 1000, np.nan], [100, 100, 100, 100], box).tolist() == [True, True, False, True]


def test_iou_of_every_pair():
    a = np.array([[0, 0, 2, 2], [5, 5, 6, 6]], np.float32)
    b = np.array([[1, 0, 3, 2]], np.float32)
    assert np.allclose(boxes.iou(a, b), [[1 / 3], [0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000000139", "000000000139"),
        ("a#b@c%d", "a%23b%40c%25d"),
        ("new\nline", "new%0Aline"),
        ("e\u0301", "é"),
        ("bad_\udcff", "bad_%FF"),
        ("日本語", "日本語"),
        ("a b/c", "a b/c"),
    ],
)
def test_names_become_ids(name, expected):
    assert ids.encode(name) == expected


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_an_id_is_always_text_and_its_parts_come_apart_again(name):
    image = ids.image_id("folder", name)
    image.encode("utf-8")
    assert not set(ids.encode(name)) & set("#@\n\0")
    assert ids.image_of(ids.object_id(image, name)) == image
    assert ids.image_of(ids.face_id(image, 3)) == image


@given(st.text(max_size=120))
def test_every_unit_name_is_legal(text):
    assert re.fullmatch(r"[a-z0-9._-]{1,80}", f"{ids.unit_key(text)}-00000")


def test_keys_that_lose_characters_stay_apart():
    assert ids.unit_key("coco.instances_val2017") == "coco.instances_val2017"
    assert ids.unit_key("a b") != ids.unit_key("a_b") != ids.unit_key("a/b")
    assert ids.unit_key("x" * 100) != ids.unit_key("x" * 101)
