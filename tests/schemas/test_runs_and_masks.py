"""Run lengths and masks: what is read is what pycocotools reads, and what it cannot stomach never reaches it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from refloom.schemas import masks, runs
from refloom.schemas.errors import Rejected


@st.composite
def bitmaps(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.floats(0, 1))
    return (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)


def reference(pixels: np.ndarray) -> masks.Mask:
    rle = coco.encode(np.asfortranarray(pixels))
    return masks.Mask(size=list(rle["size"]), counts=rle["counts"].decode())


def inner_box(pixels: np.ndarray, seed: int) -> tuple[int, int, int, int]:
    rng = np.random.default_rng(seed)
    height, width = pixels.shape
    x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
    return x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1))


@given(bitmaps())
def test_encode_is_pycocotools_encode_and_decode_undoes_it(pixels):
    mask = masks.encode(pixels)
    assert mask == reference(pixels)
    assert np.array_equal(masks.decode(mask), pixels)


@given(bitmaps(), st.integers(0, 2**32 - 1))
def test_decoding_a_box_is_cutting_the_decoded_mask(pixels, seed):
    x0, y0, x1, y1 = box = inner_box(pixels, seed)
    assert np.array_equal(masks.decode_box(reference(pixels), box), pixels[y0:y1, x0:x1])
    assert masks.crop(reference(pixels), box) == reference(pixels[y0:y1, x0:x1])


@given(bitmaps(), st.integers(0, 2**32 - 1))
def test_encoding_a_box_is_encoding_the_picture_it_lies_in(pixels, seed):
    x0, y0, x1, y1 = box = inner_box(pixels, seed)
    alone = np.zeros_like(pixels)
    alone[y0:y1, x0:x1] = pixels[y0:y1, x0:x1]
    assert masks.encode_box(pixels[y0:y1, x0:x1], box, *pixels.shape) == reference(alone)


@given(st.lists(bitmaps(), max_size=8))
def test_many_masks_parse_at_once_to_their_own_runs(bitmaps_):
    found = [reference(pixels) for pixels in bitmaps_]
    sizes = [mask["size"] for mask in found] or np.zeros((0, 2))
    parsed, problems = runs.parse([mask["counts"] for mask in found], sizes)
    assert problems == [None] * len(found)
    for index, pixels in enumerate(bitmaps_):
        pairs = parsed.one(index)
        assert pairs.sum() == pixels.size
        assert pairs[:, 1].sum() == pixels.sum()


@given(bitmaps())
def test_areas_and_boxes_are_those_of_the_pixels(pixels):
    mask = reference(pixels)
    assert masks.areas([mask])[0] == pixels.sum()
    (box,) = masks.tight_boxes([mask]).tolist()
    if pixels.any():
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    else:
        assert box == [0, 0, 0, 0]


@given(bitmaps(), st.integers(1, 8))
def test_orienting_a_mask_is_orienting_its_pixels(pixels, orientation):
    turned = masks.decode(masks.orient(reference(pixels), orientation))
    assert np.array_equal(turned, masks.orient_pixels(pixels, orientation))


@given(bitmaps(), st.integers(1, 3), st.integers(1, 3))
def test_growing_a_mask_by_whole_factors_keeps_its_area_within_its_outline(pixels, by_y, by_x):
    height, width = pixels.shape
    grown = masks.resize(reference(pixels), height * by_y, width * by_x)
    assert grown["size"] == [height * by_y, width * by_x]
    turns = np.abs(np.diff(pixels.astype(int), axis=0)).sum() + np.abs(np.diff(pixels.astype(int), axis=1)).sum()
    expected = int(pixels.sum()) * by_y * by_x
    assert abs(int(masks.areas([grown])[0]) - expected) <= turns * by_y * by_x
    if by_y == by_x == 1:
        assert grown == reference(pixels)


def test_iou_is_of_sets():
    a, b = np.zeros((2, 10, 10), np.uint8)
    a[:, :6], b[:, 4:] = 1, 1
    assert masks.iou([reference(a)], [reference(b), reference(a)]).tolist() == [[0.2, 1.0]]


def test_more_than_255_masks_have_areas():
    mask = reference(np.ones((3, 5), np.uint8))
    assert masks.areas([mask] * 600).tolist() == [15] * 600


# -- reading what sources write ------------------------------------------------------------------------------------

SQUARE = [[2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]]
RUNS = [20, 5, 75]


def test_polygons_lists_and_strings_all_become_masks():
    text = runs.write(RUNS)
    found, pixels = masks.read([SQUARE, {"size": [10, 10], "counts": RUNS}, {"size": [10, 10], "counts": text}], 10, 10)
    assert [masks.areas([mask])[0] for mask in found] == [36, 5, 5]
    assert pixels.tolist() == [36, 5, 5]


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "bad_mask"),
        ([], "bad_mask"),
        ([[]], "bad_mask"),
        ("text", "bad_mask"),
        ([[1, 1, 5, 5]], "bad_mask"),
        ([[1, 1, 5, 5, 9]], "bad_mask"),
        ([["1", "1", "5", "5", "9", "1"]], "bad_mask"),
        ([[1, 1, 5, None, 9, 1]], "bad_mask"),
        ([[1, 1, float("nan"), 5, 9, 1]], "bad_mask"),
        ([[1, 1, float("inf"), 5, 9, 1]], "bad_mask"),
        ([[1, 1, 1e12, 5, 9, 1]], "bad_mask"),
        ([{"x": 1}], "bad_mask"),
        ({}, "bad_mask"),
        ({"size": [10, 10]}, "bad_mask"),
        ({"size": [10], "counts": RUNS}, "bad_mask"),
        ({"size": [10.0, 10.0], "counts": RUNS}, "bad_mask"),
        ({"size": [1000000, 1000000], "counts": RUNS}, "size_mismatch"),
        ({"size": [10, 11], "counts": RUNS}, "size_mismatch"),
        ({"size": [10, 10], "counts": [20.0, 5.0, 75.0]}, "bad_mask"),
        ({"size": [10, 10], "counts": [30, -5, 75]}, "bad_mask"),
        ({"size": [10, 10], "counts": [20, 5]}, "bad_mask"),
        ({"size": [10, 10], "counts": [20, 5, 75, 1]}, "bad_mask"),
        ({"size": [10, 10], "counts": []}, "bad_mask"),
        ({"size": [10, 10], "counts": [2**70]}, "bad_mask"),
        ({"size": [10, 10], "counts": ""}, "bad_mask"),
        ({"size": [10, 10], "counts": "b'd05o1'"}, "bad_mask"),
        ({"size": [10, 10], "counts": "ééé"}, "bad_mask"),
        ({"size": [10, 10], "counts": runs.write(RUNS)[:-1]}, "bad_mask"),
        ({"size": [10, 10], "counts": runs.write([20, 5])}, "bad_mask"),
        ({"size": [10, 10], "counts": "oooooooooooo0"}, "bad_mask"),
    ],
    ids=lambda value: json.dumps(value, default=str)[:40],
)
def test_a_bad_segmentation_costs_itself_and_no_other(segmentation, reason):
    (before, bad, after), pixels = masks.read([SQUARE, segmentation, SQUARE], 10, 10)
    assert pixels.tolist() == [36, 0, 36]
    assert isinstance(bad, Rejected)
    assert bad.reason == reason
    assert masks.areas([before, after]).tolist() == [36, 36]


@settings(max_examples=300)
@given(
    st.text(alphabet=st.characters(min_codepoint=40, max_codepoint=120), max_size=30),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_any_string_is_either_a_whole_mask_or_a_problem(text, height, width):
    parsed, (problem,) = runs.parse([text], [[height, width]])
    if problem is None:
        pairs = parsed.one(0)
        assert pairs.min() >= 0
        assert pairs.sum() == height * width
        assert masks.decode(masks.Mask(size=[height, width], counts=text)).sum() == pairs[:, 1].sum()
    else:
        assert len(parsed.one(0)) == 0


def test_real_masks_read_as_pycocotools_reads_them(shared):
    document = json.loads((shared / "coco/annotations/instances_val2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    for annotation in document["annotations"]:
        height, width = sizes[annotation["image_id"]]
        source = annotation["segmentation"]
        expected = coco.frPyObjects(source, height, width)
        expected = coco.merge(expected) if isinstance(source, list) else expected
        (mask,), pixels = masks.read([source], height, width)
        assert pixels[0] == coco.area(expected)
        assert mask["counts"].encode() == expected["counts"]
