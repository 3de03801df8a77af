"""Pose: what zoom and place do not change and posture does, the angle between heads, and what is not known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.group.pose import head_turn, pose_change
from refloom.curation.group.spread import sharpness_ratio
from refloom.schemas import masks
from refloom.schemas.masks import Mask

WIDTH, HEIGHT = 200, 160


def figure(x: int, y: int, scale: int, *, arms: bool) -> Mask:
    """A body of 2 x 8 cells, with arms of 2 x 3 cells on either side of its middle, at a place and size."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    cells = [(3, 0, 5, 8), *([(0, 3, 3, 5), (5, 3, 8, 5)] if arms else [])]
    for x0, y0, x1, y1 in cells:
        pixels[y + y0 * scale : y + y1 * scale, x + x0 * scale : x + x1 * scale] = 1
    return masks.encode(pixels)


def changed(*outlines: Mask | None, boxes: list[list[float]] | None = None) -> float | None:
    return pose_change(outlines, np.array(boxes or [[0, 0, 9, 9]] * len(outlines), np.float32))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(4, 12), st.booleans())
def test_zoom_and_place_are_no_change_of_pose(x, y, scale, arms):
    assert changed(figure(0, 0, 8, arms=arms), figure(x, y, scale, arms=arms)) == pytest.approx(0, abs=0.12)
    assert changed(figure(0, 0, 8, arms=arms), figure(x, y, 8, arms=arms)) == 0


def test_posture_is_what_it_covers_and_the_mean_is_over_pairs():
    still, spread_out = figure(0, 0, 8, arms=False), figure(50, 20, 4, arms=True)
    assert changed(still, spread_out) == pytest.approx(1 - 16 / 28)  # of 28 cells the body is 16
    assert changed(still, still, spread_out) == pytest.approx(2 / 3 * (1 - 16 / 28))


def test_without_any_mask_the_aspect_of_the_boxes_counts():
    assert changed(None, None, boxes=[[0, 0, 20, 20], [50, 50, 60, 70]]) == pytest.approx(0.5)
    assert changed(None, None, boxes=[[0, 0, 40, 20], [0, 0, 20, 40]]) == pytest.approx(1 - 1 / 3)


def test_some_masks_and_some_boxes_say_nothing_and_one_has_no_pair():
    assert changed(figure(0, 0, 4, arms=True), None) is None
    assert changed(figure(0, 0, 4, arms=True)) is None


def test_an_outline_thinner_than_a_cell_is_still_an_outline():
    line = np.zeros((HEIGHT, WIDTH), np.uint8)
    line[80, :] = 1
    assert changed(masks.encode(line), masks.encode(line)) == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_turn_about_one_axis_is_its_angle(axis):
    one, other = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    one[axis], other[axis] = -10.0, 25.0
    assert head_turn([one, other]) == pytest.approx(35)


def test_turns_about_several_axes_are_one_rotation_and_full_circles_none():
    assert head_turn([[90, 0, 0], [0, 90, 0]]) == pytest.approx(120)
    assert head_turn([[0, 0, 170], [0, 0, -170]]) == pytest.approx(20)
    assert head_turn([[0, 0, 0], [0, 30, 0], [0, -30, 0]]) == pytest.approx(40)  # 30, 30, 60


def test_a_missing_pose_or_sharpness_is_null():
    assert head_turn([[0, 0, 0], None]) is None
    assert head_turn([]) is None
    assert sharpness_ratio(np.array([1.0, np.nan])) is None
    assert sharpness_ratio(np.array([0.0, 0.0])) is None
    assert sharpness_ratio(np.array([1.0, 4.0, 2.0])) == 0.25
