"""Similarities bring points where they should lie, and pixels with them."""

import numpy as np
import pytest

from refloom.inference.models.warps import similarity, warp

FIVE = np.array([[0, 0], [4, 0], [2, 3], [0.5, 5], [3.5, 5]], float)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -120])
def test_a_similarity_that_was_made_is_found_again(degrees: float):
    angle = np.radians(degrees)
    turn = 7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(FIVE, FIVE @ turn.T + (30, -20))
    assert matrix is not None
    assert matrix == pytest.approx(np.column_stack([turn, (30, -20)]))


def test_what_is_no_similarity_gets_the_nearest_which_is_never_a_mirror():
    matrix = similarity(FIVE, FIVE * (-1, 1) + 9)
    assert matrix is not None
    assert np.linalg.det(matrix[:, :2]) >= 0


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_on_one_another_say_nothing(points: np.ndarray):
    assert similarity(points, FIVE) is None


def test_pixels_go_with_their_places_and_outside_is_black():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:20, 30:40] = 200
    shown = warp(picture, np.array([[2, 0, -50], [0, 2, -10]], float), 40)
    near = np.zeros((40, 40), bool)
    near[8:32, 8:32] = True
    assert (shown[12:28, 12:28] == 200).all()
    assert not shown[~near].any()
    assert not warp(picture + 1, np.array([[1, 0, 500], [0, 1, 0]], float), 40).any()


def test_a_large_picture_is_averaged_and_not_sampled():
    stripes = np.zeros((400, 40_000, 3), np.uint8)  # wider than OpenCV can warp
    stripes[:, 1::2] = 255
    matrix = np.array([[0.1, 0, -3000], [0, 0.1, 0]])
    assert np.ptp(warp(stripes, matrix, 40)[2:38, 2:38]) <= 2
    assert warp(stripes, matrix, 40)[20, 20, 0] == pytest.approx(127, abs=2)
