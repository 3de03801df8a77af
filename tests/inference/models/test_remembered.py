"""A crop that a model saw lately does not go through it again, and its row is the very same."""

import numpy as np

from refloom.inference.models.remembered import Remembered


def crops(*values: int) -> np.ndarray:
    return np.array([np.full((4, 4, 3), value) for value in values], np.uint8).reshape(-1, 4, 4, 3)


class Model:
    """Says a crop's value, and notes which it was asked about."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        values = batch[:, 0, 0, 0]
        self.asked.append(values.tolist())
        return np.stack([values, values + 0.5], axis=1).astype(np.float32)


def test_only_new_crops_are_computed_and_rows_come_in_order():
    model = Model()
    seen = Remembered(model)
    assert seen.rows(crops(3, 1))[:, 0].tolist() == [3, 1]
    assert seen.rows(crops(1, 2, 3, 2))[:, 1].tolist() == [1.5, 2.5, 3.5, 2.5]
    assert model.asked == [[3, 1], [2]]


def test_what_was_not_used_lately_is_computed_again():
    model = Model()
    seen = Remembered(model, most=2)
    seen.rows(crops(1, 2))
    seen.rows(crops(1))
    seen.rows(crops(3))
    assert seen.rows(crops(1, 2))[:, 0].tolist() == [1, 2]
    assert model.asked == [[1, 2], [], [3], [2]]


def test_more_crops_than_are_kept_all_get_their_rows():
    seen = Remembered(Model(), most=2)
    assert seen.rows(crops(*range(9)))[:, 0].tolist() == list(range(9))
    assert seen.rows(crops()).shape == (0, 2)


def test_a_crop_that_lies_otherwise_in_memory_is_the_same_crop():
    model = Model()
    seen = Remembered(model)
    wide = np.zeros((1, 4, 8, 3), np.uint8)
    wide[:, :, ::2] = 7
    seen.rows(crops(7))
    seen.rows(wide[:, :, ::2])
    assert model.asked == [[7], []]
