"""Copying against its definition: a pasted reference is 1, the truth -1; what has no value is counted, not made up."""

import numpy as np
import pytest

from refloom.inference.evaluation import copying
from refloom.inference.evaluation.copying import Compared, Known, angle, assign, compare, compare_subjects, score

NOTHING = np.zeros((0, 1), np.float32)


def at(degrees: float) -> np.ndarray:
    """A unit vector of a plane, in the precision of encoders."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0], np.float32)


def random_units(count: int) -> np.ndarray:
    many = np.random.default_rng(0).normal(size=(count, 384)).astype(np.float32)
    return many / np.linalg.norm(many, axis=1, keepdims=True)


def test_a_pasted_reference_is_exactly_1_and_the_truth_exactly_minus_1():
    truth, *references = random_units(4)
    many = np.stack(references)
    for reference in references:
        assert compare(reference, truth, many).copy == 1
    assert compare(truth, truth, many).copy == -1
    assert compare(truth, truth, many[:1]).reference == pytest.approx(float(truth @ references[0]), abs=1e-6)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [(0, -1), (15, -0.5), (30, 0), (45, 0.5), (60, 1), (90, 0.5 * 2), (-30, -1), (-300, 1)],
)
def test_between_them_it_is_the_difference_of_angles_over_the_angle_between(made: float, wanted: float):
    """The truth is at 0 degrees, the reference at 60: (a_truth - a_reference) / 60."""
    found = compare(at(made), at(0), at(60)[None])
    assert found.copy == pytest.approx(wanted, abs=1e-6)
    assert (found.truth, found.reference) == pytest.approx(
        (np.cos(np.radians(made)), np.cos(np.radians(made - 60))), abs=1e-6
    )


def test_a_vector_that_knows_neither_is_0():
    other = np.array([0, 0, 1], np.float32)
    assert compare(other, at(0), at(60)[None]).copy == pytest.approx(0, abs=1e-6)


def test_of_several_references_the_nearest_one_counts():
    found = compare(at(80), at(0), np.stack([at(-120), at(90), at(60)]))
    assert found.copy == pytest.approx((80 - 10) / 90, abs=1e-6)
    assert found.reference == pytest.approx(np.cos(np.radians(10)), abs=1e-6)


def test_truth_and_reference_too_alike_give_no_quotient_and_are_counted():
    near = np.degrees(copying.MIN_ANGLE)
    assert compare(at(40), at(0), at(near - 0.1)[None]).copy is None
    assert compare(at(40), at(0), at(near + 0.1)[None]).copy is not None
    found = [compare(at(40), at(0), at(1)[None]), compare(at(30), at(0), at(60)[None])]
    assert score(found, "copy") == (pytest.approx((0, 1), abs=1e-6), {copying.ALIKE: 1})
    (value, count), why = score(found, "truth")
    assert (value, count, why) == (pytest.approx((np.cos(np.radians(40)) + np.cos(np.radians(30))) / 2), 2, {})
    assert score(found[:1], "copy") == (None, {copying.ALIKE: 1})


def test_the_angle_of_vectors_is_exact_where_an_arc_cosine_is_not():
    one, other = random_units(2)
    assert angle(one, one) == 0
    assert angle(one, other) == angle(other, one) == pytest.approx(np.arccos(one.astype(float) @ other), abs=1e-6)
    assert angle(one, -one) == pytest.approx(np.pi)


def test_each_missing_part_is_null_with_its_reason_and_no_subject_is_lost():
    truth, reference = at(0)[None], at(60)[None]
    known = [
        Known(truth, reference),
        Known(NOTHING, reference),
        Known(truth, NOTHING),
        Known(truth, reference),
        Known(truth, reference),
    ]
    candidates = [at(60)[None], at(60)[None], at(60)[None], None, NOTHING]
    found = compare_subjects(known, candidates, shared=False)
    assert isinstance(found[0], Compared)
    assert found[1:] == [copying.NO_TRUTH, copying.NO_REFERENCE, copying.UNNAMED, copying.NOT_MADE]
    value, why = score(found, "copy")
    assert value == (1, 1)
    assert sum(why.values()) + value[1] == len(known)
    assert score(found[1:], "copy")[0] is None


def test_a_face_is_one_person_at_most_and_each_gets_the_one_that_fits_best():
    known = [Known(at(0)[None], at(20)[None]), Known(at(90)[None], at(110)[None]), Known(at(200)[None], at(220)[None])]
    faces = np.stack([at(110), at(10)])
    found = compare_subjects(known, [faces] * 3, shared=True)
    assert found[0].copy == pytest.approx(0, abs=1e-5)
    assert found[1].copy == pytest.approx(1, abs=1e-5)
    assert found[2] == copying.NOT_MADE, "no face is left for it"
    own = compare_subjects(known, [faces] * 3, shared=False)
    assert isinstance(own[2], Compared), "instances of one phrase may be those of another"


def test_the_choice_of_a_candidate_favours_neither_truth_nor_reference():
    truth, reference = at(0)[None], at(60)[None]
    one = np.stack([at(61), at(0), at(30)])
    (found,) = compare_subjects([Known(truth, reference)], [one], shared=False)
    assert found.copy == pytest.approx(0, abs=1e-5), "the one in the middle fits both best"


def test_pairs_are_assigned_best_first():
    fits = [np.array([0.9, 0.8]), np.array([1.0, 0.1]), None]
    assert assign(fits) == [1, 0, None]
    assert assign([np.array([0.5]), np.array([0.5])]) == [0, None]
    assert assign([]) == []
