"""Crops: what is square stays square, what is outside is white, and nothing is stretched."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.inference.models.crops import cut_middle, cut_out, cut_square, square_face_box


def disc(width: int, height: int, radius: float, centre: tuple[float, float]) -> np.ndarray:
    """A black disc on mid grey, (height, width, 3)."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    return np.repeat(np.where(inside, 0, 128).astype(np.uint8)[..., None], 3, axis=2)


def extent(dark: np.ndarray) -> tuple[int, int]:
    """Width and height of the set pixels."""
    ys, xs = np.nonzero(dark)
    return int(xs.max() - xs.min() + 1), int(ys.max() - ys.min() + 1)


# -- squares around faces -------------------------------------------------------------------------------------------


def test_the_square_is_centred_and_expanded_on_every_side():
    assert square_face_box((100, 100, 140, 120), 640, 480, 0.5).tolist() == [80, 70, 160, 150]
    assert square_face_box((100, 100, 140, 140), 640, 480, 0).tolist() == [100, 100, 140, 140]


def test_the_square_may_leave_the_picture_but_is_no_larger_than_it():
    assert square_face_box((0, 0, 50, 50), 640, 480, 0.5).tolist() == [-25, -25, 75, 75]
    assert square_face_box((10, 10, 190, 190), 200, 150, 0.5).tolist() == [0, 0, 200, 200]
    assert square_face_box((0, 0, 300, 300), 200, 150, 0).tolist() == [0, 0, 300, 300]


@given(
    st.tuples(st.floats(0, 600), st.floats(0, 400), st.floats(0.5, 300), st.floats(0.5, 300)),
    st.floats(0, 2),
)
def test_the_square_is_whole_pixels_around_the_middle(place: tuple[float, float, float, float], expand: float):
    x, y, w, h = place
    x0, y0, x1, y1 = square_face_box((x, y, x + w, y + h), 900, 700, expand).tolist()
    assert x1 - x0 == y1 - y0 >= 1
    assert all(edge == round(edge) for edge in (x0, y0, x1, y1))
    assert abs((x0 + x1) / 2 - (x + w / 2)) <= 0.51
    assert abs((y0 + y1) / 2 - (y + h / 2)) <= 0.51
    assert x1 - x0 == pytest.approx(min(max(w, h) * (1 + 2 * expand), 900), abs=0.51)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 0, 1, 5), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)])
def test_no_square_around_nothing(box: tuple[float, ...]):
    with pytest.raises(ValueError, match="no square"):
        square_face_box(box, 10, 10, 0.5)


def test_a_square_inside_the_picture_is_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    assert (cut_square(pixels, (10, 5, 40, 35)) == pixels[5:35, 10:40]).all()


def test_a_square_is_white_where_it_leaves_the_picture():
    pixels = np.zeros((50, 60, 3), np.uint8)
    square = cut_square(pixels, (-10, 30, 30, 70))
    assert square.shape == (40, 40, 3)
    assert (square[:20, 10:] == 0).all()
    assert (square[20:] == 255).all()
    assert (square[:, :10] == 255).all()
    assert (cut_square(pixels, (100, 100, 120, 120)) == 255).all()


def test_a_square_is_shrunk_and_never_grown():
    pixels = disc(400, 400, 100, (200, 200))
    assert cut_square(pixels, (0, 0, 400, 400), 128).shape == (128, 128, 3)
    assert extent(cut_square(pixels, (0, 0, 400, 400), 128)[..., 0] < 64) == pytest.approx((64, 64), abs=1)
    assert cut_square(pixels, (0, 0, 100, 100), 128).shape == (100, 100, 3)


@pytest.mark.parametrize("box", [(0, 0, 10, 11), (0, 0, 0, 0), (0.5, 0, 10.5, 10)])
def test_only_squares_of_whole_pixels_are_cut(box: tuple[float, ...]):
    with pytest.raises(ValueError, match="not a square"):
        cut_square(np.zeros((20, 20, 3), np.uint8), box)


# -- objects on white -----------------------------------------------------------------------------------------------


def test_an_object_is_cut_out_on_the_background():
    pixels = np.zeros((100, 100, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 1
    out = cut_out(pixels, mask, (20, 20, 84, 84), 64)
    assert (out[16:48, 16:48] == 0).all()
    assert (np.delete(np.delete(out, slice(16, 48), 0), slice(16, 48), 1) == 255).all()
    assert (cut_out(pixels, mask, (20, 20, 84, 84), 64, background=7)[:16] == 7).all()


@pytest.mark.parametrize("box", [(0, 0, 60, 20), (0, 0, 20, 60), (3, 4, 10, 90), (0, 0, 100, 100), (5, 5, 6, 6)])
@pytest.mark.parametrize("size", [16, 224])
def test_what_is_cut_out_is_centred_on_white(box: tuple[int, int, int, int], size: int):
    out = cut_out(np.zeros((100, 100, 3), np.uint8), None, box, size)
    dark = out[..., 0] < 128
    w, h = box[2] - box[0], box[3] - box[1]
    assert out.shape == (size, size, 3)
    assert extent(dark) == pytest.approx((w * size / max(w, h), h * size / max(w, h)), abs=2)
    ys, xs = np.nonzero(dark)
    assert xs.mean() + 0.5 == pytest.approx(size / 2, abs=max(1, size / max(w, h)))
    assert ys.mean() + 0.5 == pytest.approx(size / 2, abs=max(1, size / max(w, h)))


@pytest.mark.parametrize(
    ("width", "height"), [(300, 100), (100, 300), (50, 20), (2000, 500), (3000, 200), (224, 224), (5000, 300), (37, 11)]
)
def test_a_disc_stays_a_disc(width: int, height: int):
    radius = 0.4 * min(width, height)
    out = cut_out(disc(width, height, radius, (width / 2, height / 2)), None, (0, 0, width, height), 224)
    expected = 2 * radius * 224 / max(width, height)
    across, down = extent(out[..., 0] < 64)
    assert across == pytest.approx(down, abs=2)
    assert across == pytest.approx(expected, abs=max(2, 224 / max(width, height)))  # one pixel of the picture


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 1500))
def test_every_size_is_cut_out(width: int, height: int):
    out = cut_out(np.zeros((height, width, 3), np.uint8), None, (0, 0, width, height), 32)
    assert out.shape == (32, 32, 3)
    assert out.min() < 255


def test_a_panorama_takes_no_square_of_memory():
    tracemalloc.start()
    out = cut_out(np.zeros((40, 60_000, 3), np.uint8), None, (0, 0, 60_000, 40), 224)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200e6
    assert out[..., 0].min(axis=1).argmin() in (111, 112)


def test_a_box_outside_or_a_mask_of_another_size_is_refused():
    pixels = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(ValueError, match="not inside"):
        cut_out(pixels, None, (0, 0, 51, 50), 32)
    with pytest.raises(ValueError, match="not inside"):
        cut_out(pixels, None, (10, 10, 10, 20), 32)
    with pytest.raises(ValueError, match="the mask is"):
        cut_out(pixels, np.ones((5, 4), np.uint8), (0, 0, 5, 5), 32)


def test_shrinking_averages_the_area():
    checker = np.indices((448, 448)).sum(axis=0) % 2 * 255
    out = cut_out(np.repeat(checker.astype(np.uint8)[..., None], 3, axis=2), None, (0, 0, 448, 448), 224)
    assert set(np.unique(out)) <= {127, 128}


def test_of_a_whole_picture_the_middle_square_is_seen():
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[10:90, 110:190] = 200
    assert (cut_middle(pixels, 40) == 200).all()
    assert (cut_middle(np.ascontiguousarray(pixels.swapaxes(0, 1)), 40) == 200).all()
    wider = cut_middle(pixels, 50, share=1.0)
    assert (wider[5:45, 5:45] == 200).all()
    assert (wider[:5] == 0).all()
    assert cut_middle(np.zeros((1, 900, 3), np.uint8), 8).shape == (8, 8, 3)
