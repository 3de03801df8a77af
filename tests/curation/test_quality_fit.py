"""Weights fitted to judgements: what they find, what they leave alone, and numbers of a ranking worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.annotate.fit import auc, bound_keeping, fit, over_images, poor_share
from refloom.curation.annotate.quality import quality
from refloom.curation.annotate.settings import Quality

LINE = ((0.0, 0.05), (1.0, 1.0))
CONFIG = Quality(
    object_components=("sharpness", "contrast"),
    optional_components=("exposure",),
    whole_components=("contrast",),
    ramps=dict.fromkeys(("sharpness", "contrast", "exposure"), LINE),
    weights={},
)
FAST = {"rounds": 2, "draws": 50}


def judged(count: int = 240, seed: int = 0, telling: str = "sharpness") -> tuple[dict, np.ndarray, list[str]]:
    """Objects of which one component tells the good ones, three an image."""
    rng = np.random.default_rng(seed)
    components = {name: rng.random(count) for name in CONFIG.ramps}
    good = components[telling] + rng.normal(0, 0.1, count) > 0.5
    return components, good, [f"image {number // 3}" for number in range(count)]


# -- rankings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "good", "value"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.75),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 2, 2], [0, 0, 1], 0.75),
    ],
)
def test_auc_is_how_often_a_good_one_comes_first(scores, good, value):
    assert auc(np.array(scores, float), np.array(good, bool)) == value


def test_auc_of_one_kind_alone_is_not_known():
    assert np.isnan(auc(np.ones(3), np.ones(3, bool)))


def test_the_bound_keeps_the_share_and_no_higher_one_does():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert [bound_keeping(scores, share) for share in (1, 0.8, 0.61, 0.2, 0)] == [0.5, 0.6, 0.6, 0.9, 0.9]


def test_the_poor_share_is_of_what_such_a_bound_keeps():
    scores, good = np.array([5, 4, 3, 2, 1.0]), np.array([1, 0, 1, 0, 1], bool)
    assert poor_share(scores, good, 1) == 2 / 5
    assert poor_share(scores, good, 0.6) == 1 / 3


def test_images_are_drawn_whole():
    """Two objects of each image are alike, so drawing objects alone would find an interval that is too narrow."""
    images = np.repeat(np.arange(20), 2)
    values = np.repeat(np.random.default_rng(0).random(20), 2)
    rng = np.random.default_rng(1)
    seen = over_images(lambda rows: float(len(rows) % 2), images, 50, rng)
    assert (seen.value, seen.low, seen.high) == (0, 0, 0)
    mean = over_images(lambda rows: float(values[rows].mean()), images, 2000, rng)
    assert mean.low < mean.value < mean.high
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * values.std() / 20**0.5, rel=0.1)


# -- fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("telling", CONFIG.ramps)
def test_the_component_that_tells_good_from_poor_gets_the_weight(telling):
    components, good, images = judged(telling=telling)
    found = fit(components, good, images, CONFIG, strength=1.0, **FAST)
    weights = found.settings.weights
    assert weights[telling] > 3 * max(weight for name, weight in weights.items() if name != telling)
    assert found.auc.value > 0.93 > found.auc_before.value + 0.05
    assert found.auc.low < found.auc.value < found.auc.high


def test_labels_that_say_nothing_leave_the_weights_and_no_ranking():
    components, _, images = judged()
    good = np.random.default_rng(9).random(len(images)) > 0.5
    found = fit(components, good, images, replace(CONFIG, weights={"contrast": 2.0}), strength=1000.0, **FAST)
    assert found.settings.weights == pytest.approx({"sharpness": 1, "contrast": 2, "exposure": 1}, abs=0.05)
    assert found.auc.low < 0.5 < found.auc.high


def test_no_weight_is_negative_and_their_sum_is_as_before():
    components, good, images = judged()
    found = fit(components, good & (components["contrast"] < 0.6), images, CONFIG, strength=0.1, **FAST)
    weights = list(found.settings.weights.values())
    assert min(weights) == 0
    assert sum(weights) == pytest.approx(3, abs=1e-3)


def test_the_bound_keeps_the_share_of_the_good_ones_by_the_fitted_quality():
    components, good, images = judged()
    found = fit(components, good, images, CONFIG, kept_share=0.9, **FAST)
    scores = quality(["object"] * len(good), components, found.settings)
    assert (scores[good] >= found.min_quality).mean() == pytest.approx(0.9, abs=0.01)
    assert found.settings.fitted_on.startswith("240 judged objects of 80 images")
    assert (found.settings.ramps, found.settings.object_components) == (CONFIG.ramps, CONFIG.object_components)


def test_cross_validation_does_not_see_the_image_that_it_judges():
    """With labels that are drawn for each image, quality that saw them would rank; without them it cannot."""
    rng = np.random.default_rng(3)
    images = [f"image {number // 8}" for number in range(160)]
    of_image = rng.random(20) > 0.5
    marks = rng.random((20, 3))
    components = {name: np.repeat(marks[:, place], 8) for place, name in enumerate(CONFIG.ramps)}
    found = fit(components, np.repeat(of_image, 8), images, CONFIG, strength=0.0, **FAST)
    assert found.auc.low < 0.5


def test_the_same_labels_make_the_same_fit():
    one, two = (fit(*judged(), CONFIG, **FAST) for _ in range(2))
    assert one.settings == two.settings
    assert one.auc == two.auc
    assert np.array_equal(one.held_out, two.held_out)


def test_objects_that_lack_a_listed_component_are_left_out_and_optional_ones_may_be_absent():
    components, good, images = judged()
    components["sharpness"][::4] = np.nan
    components["exposure"][:] = np.nan
    found = fit(components, good, images, CONFIG, **FAST)
    assert np.isnan(found.held_out).tolist() == [place % 4 == 0 for place in range(len(good))]
    assert found.settings.weights["sharpness"] > found.settings.weights["contrast"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda components, good, images: (components, np.ones_like(good), images), "none or all are good"),
        (lambda components, good, images: (components, good, ["one"] * len(images)), "all judged objects lie on one"),
        (lambda components, good, images: (components, good, images[:-1]), "differ in length"),
        (
            lambda components, good, images: (components | {"contrast": np.full(len(good), np.nan)}, good, images),
            "of 0 judged objects",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        fit(*change(*judged()), CONFIG, **FAST)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 50), st.floats(0, 100))
def test_any_labels_make_weights_that_are_settings(seed, strength):
    components, good, images = judged(30, seed)
    if good.any() and not good.all():
        found = fit(components, good, images, CONFIG, strength=strength, rounds=1, draws=1)
        assert all(weight >= 0 for weight in found.settings.weights.values())
        assert 0 <= found.min_quality <= 1
