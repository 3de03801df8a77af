"""The labels by eye, and how detections are counted against them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.judged.faces import COUNTED, Label, Measured, Seen, chosen, compared, held_out, photographs, truth

LEFT, RIGHT = Label((0, 0, 10, 12), 24, "frontal"), Label((50, 0, 60, 12), 24, "tilted")
SMALL = Label((80, 0, 85, 6), 10, "small")


def test_a_detection_takes_one_label_and_a_second_one_is_false():
    found = np.array([[1, 1, 10, 12], [0, 0, 11, 12], [30, 30, 40, 40]], float)
    seen = compared(found, [0.9, 0.8, 0.7], [LEFT, RIGHT])
    assert seen.found == [("frontal", 0.9), ("tilted", -np.inf)]
    assert seen.false == [0.8, 0.7]


def test_a_small_face_is_neither_right_nor_wrong():
    seen = compared(np.array([[80, 0, 85, 6]], float), [0.9], [SMALL, LEFT])
    assert (seen.found, seen.false) == ([("frontal", -np.inf)], [])


def test_recall_and_precision_count_what_reaches_the_threshold():
    seen = {"a": Seen([("frontal", 0.9), ("tilted", 0.6)], [0.5]), "b": Seen([("frontal", -np.inf)], [0.8])}
    found = Measured(seen, {"a": 0.7, "b": 0.7})
    assert found.recall("frontal") == 0.5
    assert found.recall(*COUNTED) == pytest.approx(1 / 3)
    assert found.precision() == 0.5
    every = Measured(seen, dict.fromkeys(seen, -1e9))
    assert every.recall(*COUNTED) == pytest.approx(2 / 3)  # what was not found stays so at any threshold
    assert every.precision() == 0.5


def test_a_picture_has_no_say_in_its_own_threshold():
    seen = {f"{n}": Seen([("frontal", 0.9)], [0.4]) for n in range(20)}
    assert 0.4 < chosen(Measured(seen, {}), list(seen)) < 0.9
    seen["odd"] = Seen([("frontal", 0.2)], [0.99])
    least = held_out(Measured(seen, {})).least
    assert least["odd"] == chosen(Measured(seen, {}), [f"{n}" for n in range(20)])


@pytest.mark.shared
def test_labels_lie_in_their_pictures_and_say_what_the_readme_explains(shared: Path):
    labels = truth()
    sizes = {name: pixels.shape[1::-1] for name, pixels in photographs(shared)}
    assert labels.keys() <= sizes.keys()
    for name, found in labels.items():
        for label in found:
            x0, y0, x1, y1 = label.box
            assert 0 <= x0 < x1 <= sizes[name][0], name
            assert 0 <= y0 < y1 <= sizes[name][1], name
            assert label.visibility in {*COUNTED, "small", "unclear"}, name
            assert label.visibility == "unclear" or (label.size_px >= 24) is (label.visibility in COUNTED), name
