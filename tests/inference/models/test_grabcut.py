"""GrabCut on photographs: it finds known shapes, gives the same bytes, and refuses what it cannot cut."""

import cv2
import numpy as np
import pytest
from segmenting import pasted_cat, same, tight
from skimage import data

from refloom.inference.models import grabcut, registry
from refloom.inference.models.grabcut import GrabCut
from refloom.schemas import masks

GRABCUT = registry.by_name("segmenter", "grabcut")


@pytest.fixture(scope="module")
def cutter() -> GrabCut:
    return GRABCUT.load()


def test_grabcut_finds_a_known_shape_in_a_photograph(cutter: GrabCut):
    picture, truth = pasted_cat()
    (found,) = cutter.segment(picture, tight(truth))
    assert masks.iou([found.mask], [masks.encode(truth)])[0, 0] > 0.95
    assert found.area == masks.areas([found.mask])[0]
    assert found.predicted_iou is None
    assert found.stability_score is None
    large = cv2.resize(picture, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    (grown,) = cutter.segment(large, tight(truth) * 4)
    big = cv2.resize(truth, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    assert masks.iou([grown.mask], [masks.encode(big)])[0, 0] > 0.95


def test_grabcut_finds_the_inside_of_a_cup_in_a_photograph(cutter: GrabCut):
    cup = data.coffee()
    truth = cv2.ellipse(np.zeros(cup.shape[:2], np.uint8), (291, 115), (116, 92), 0, 0, 360, 1, -1)  # by eye
    (found,) = cutter.segment(cup, tight(truth))
    assert masks.iou([found.mask], [masks.encode(truth)])[0, 0] > 0.9


def test_grabcut_gives_the_same_bytes_whatever_came_before(cutter: GrabCut):
    picture, truth = pasted_cat()
    box = tight(truth)
    (first,) = cutter.segment(picture, box)
    cv2.setRNGSeed(7)
    cv2.kmeans(np.random.default_rng(0).random((50, 3)).astype(np.float32), 3, None, (3, 5, 0.1), 2, 0)
    several = cutter.segment(picture, np.concatenate([box + 3, box, box - 5]))
    assert same(several[1], first)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert same(GRABCUT.load("cuda", "bf16").segment(picture.copy(), box)[0], first)
    finally:
        cv2.setNumThreads(threads)


def test_grabcut_stays_in_its_box(cutter: GrabCut):
    picture, truth = pasted_cat()
    box = tight(truth) + np.array([[40, 30, 0, 0]], np.float32)
    (found,) = cutter.segment(picture, box)
    assert (found.box[:2] >= box[0, :2]).all()
    assert (found.box[2:] <= box[0, 2:]).all()


def test_grabcut_refuses_boxes_that_show_it_no_background_or_no_object(cutter: GrabCut):
    picture, _ = pasted_cat()
    height, width = picture.shape[:2]
    bad = [[0, 0, width, height], [3, 3, width, height - 3], [50, 50, 61, 200], [5, 5, 6, 6], [np.nan, 0, 9, 9]]
    assert cutter.segment(picture, np.array(bad, np.float32)) == [None] * len(bad)
    assert cutter.segment(picture, np.zeros((0, 4), np.float32)) == []
    plain = np.full((200, 200, 3), 120, np.uint8)
    assert cutter.segment(plain, np.array([[50, 50, 150, 150]], np.float32)) == [None]


def test_grabcut_has_no_automatic_masks(cutter: GrabCut):
    assert not cutter.has_automatic
    with pytest.raises(ValueError, match="needs a box"):
        cutter.segment_everything(data.coffee())


def test_no_box_on_any_content_crashes_grabcut(cutter: GrabCut):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (90, 120, 3), np.uint8)
    flat, two = np.full_like(noise, 77), np.where(np.arange(120)[None, :, None] < 60, np.uint8(0), np.uint8(255))
    for pixels in (noise, flat, np.broadcast_to(two, noise.shape), noise[::-1, ::2]):
        corners = rng.uniform(-20, 130, (12, 2, 2)).astype(np.float32)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        for segment in cutter.segment(pixels, boxes):
            assert segment is None or (segment.area > 0 and masks.check([segment.mask]) == [None])


def test_specks_and_pinholes_go_and_parts_and_holes_stay():
    mask = np.zeros((60, 60), np.uint8)
    mask[5:35, 5:35] = 1
    mask[10:12, 10:12] = 0  # a pinhole
    mask[20:30, 20:30] = 0  # a hole
    mask[40:52, 40:52] = 1  # another part
    mask[2, 50] = mask[55:57, 3] = 1  # specks
    expected = mask.copy()
    expected[10:12, 10:12] = 1
    expected[2, 50] = expected[55:57, 3] = 0
    assert (grabcut.clean(mask, 0.05) == expected).all()
    assert grabcut.clean(np.zeros((5, 5), np.uint8), 0.05).sum() == 0
    assert grabcut.clean(np.ones((5, 5), np.uint8), 0.05).sum() == 25
