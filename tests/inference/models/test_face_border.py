"""Where no face is found the picture is looked at once more within a border, with a higher bound."""

from collections.abc import Callable

import numpy as np
import pytest

from refloom.inference.models import faceborder
from refloom.inference.models.faces import Face


def face(box: tuple[float, ...], score: float) -> Face:
    points = np.array([[box[0], box[1]]] * 5, np.float32)
    return Face(np.array(box, np.float32), score, points, None, np.ones(1, np.float32))


class Search:
    """Sees a square of light that has dark around it, and nothing that fills the picture; keeps what it was asked."""

    def __init__(self, score: float = 0.9) -> None:
        self.score, self.asked = score, []

    def __call__(self, pixels, min_det_score, min_side_px, max_faces):
        self.asked.append((pixels.shape, min_det_score, min_side_px))
        rows, columns = np.nonzero(pixels[..., 0])
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        fills = (x0, y0, x1, y1) == (0, 0, pixels.shape[1], pixels.shape[0])
        if fills or self.score < min_det_score or min(x1 - x0, y1 - y0) < min_side_px:
            return []
        return [face((x0 - 2, y0, x1, y1), self.score)]


@pytest.fixture
def look() -> Callable[..., list[Face]]:
    def find(search: Search, pixels: np.ndarray, **changes: float) -> list[Face]:
        bounds = {"min_det_score": 0.5, "border_det_score": 0.7, "min_side_px": 0, "max_faces": None}
        return faceborder.find(search, pixels, **bounds | changes)

    return find


def light(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def test_a_face_that_fills_the_picture_is_found_and_cut_to_it(look: Callable[..., list[Face]]):
    search = Search()
    (found,) = look(search, light(60, 40))
    assert found.box.tolist() == [0, 0, 40, 60]
    assert found.landmarks[0].tolist() == [-2, 0]
    assert [shape for shape, *_ in search.asked] == [(60, 40, 3), (120, 100, 3)]  # half the longer side on every side


def test_what_is_found_at_once_is_not_looked_for_again(look: Callable[..., list[Face]]):
    search, picture = Search(), np.pad(light(20, 20), ((30, 30), (30, 30), (0, 0)))
    (found,) = look(search, picture)
    assert found.box.tolist() == [28, 30, 50, 50]
    assert len(search.asked) == 1
    assert look(search, light(9, 9), max_faces=0) == []
    assert len(search.asked) == 2


def test_the_bound_within_a_border_is_the_higher_one(look: Callable[..., list[Face]]):
    assert look(Search(0.69), light(60, 40)) == []
    assert len(look(Search(0.7), light(60, 40))) == 1
    assert look(Search(0.7), light(60, 40), min_det_score=0.8) == []
    assert look(Search(0.9), light(60, 40), min_side_px=41) == []


def test_small_faces_are_not_taken_from_the_second_look(look: Callable[..., list[Face]]):
    def small(pixels, *_):
        return [face((60, 60, 70, 70), 0.99)] if pixels.shape[0] > 100 else []

    assert look(small, light(100, 100)) == []


def test_boxes_of_a_large_picture_come_back_in_its_pixels(look: Callable[..., list[Face]]):
    search = Search()
    (found,) = look(search, light(2560, 5120), min_side_px=2560)
    assert found.box.tolist() == [0, 0, 5120, 2560]
    assert search.asked[1] == ((1920, 2560, 3), 0.7, 640)
