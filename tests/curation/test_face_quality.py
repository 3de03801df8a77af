"""How far a face can be trusted: the weakest of score, frontality, size and sharpness, unknown ones aside."""

import numpy as np
import pytest

from refloom.curation.group.facequality import face_quality

NAN = float("nan")


def points(beside: float = 0.0, below: float = 0.7, eyes_px: float = 50.0, turn: float = 0.0) -> list[list[float]]:
    """Five points of a face whose eyes stand so far apart; the nose in that distance; all turned by radians."""
    level = np.array([[-0.5, 0], [0.5, 0], [beside, below], [NAN, NAN], [NAN, NAN]]) * eyes_px
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [[float(x), float(y)] for x, y in level @ turned + 100]


def trust(landmarks=None, *, score: float = NAN, pose=None, sharpness: float = NAN, bounds=(0.3, 0.9)) -> float:
    return float(face_quality(np.array([score]), [landmarks], [pose], np.array([sharpness]), bounds)[0])


def test_a_frontal_sharp_large_face_is_trusted_however_the_head_is_tilted():
    assert trust(points(), score=1.2, sharpness=300.0) == 1
    assert trust(points(turn=0.7), score=1.2) == 1
    assert trust() == 1, "nothing is known"


@pytest.mark.parametrize(
    ("landmarks", "expected"),
    [
        (points(beside=0.3), 0.5),
        (points(beside=-0.3), 0.5),
        (points(below=0.95), 0.5),  # looks down
        (points(below=0.35), 0.5),  # looks up
        (points(eyes_px=15.0), 0.5),
        (points(beside=0.5), 0.0),
        (points(beside=0.3, turn=1.0), 0.5),
    ],
)
def test_turned_bent_and_small_faces_are_trusted_less(landmarks, expected):
    assert trust(landmarks) == pytest.approx(expected)


def test_the_weakest_counts():
    assert trust(points(beside=0.3), score=0.45) == pytest.approx(0.25)
    assert trust(points(), sharpness=10**1.4 - 1) == pytest.approx(0.5)
    assert trust(points(), score=0.45, bounds=None) == 1
    assert trust(points(), pose=[-42.5, 5.0, 80.0]) == pytest.approx(0.5)
    assert trust([[5.0, 5.0]] * 5) == 0, "eyes in one place"
