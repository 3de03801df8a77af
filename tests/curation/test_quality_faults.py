"""Why a quality is what it is: the components that pull it down, the worst first, and those that are not known."""

import numpy as np
import pytest

from refloom.curation.annotate.faults import faults, unknown, word
from refloom.curation.annotate.quality import quality
from refloom.curation.annotate.settings import Quality
from refloom.schemas.components import COMPONENTS

LINE = ((0.0, 0.0), (1.0, 1.0))
CONFIG = Quality(
    object_components=("sharpness", "contrast"),
    optional_components=("covered_share", "class_entropy"),
    whole_components=("contrast",),
    ramps=dict.fromkeys(("sharpness", "contrast", "covered_share", "class_entropy"), LINE),
    weights={"contrast": 0.5},
)


def test_faults_are_the_low_scores_with_what_they_take_from_the_quality():
    values = {"sharpness": 0.9, "contrast": 0.5, "covered_share": 0.4}
    found = faults(values, "object", CONFIG)
    assert [str(fault) for fault in found] == ["occluded 0.4", "flat 0.5"]
    columns = {name: np.array([value]) for name, value in values.items()}
    whole = quality(["object"], columns, CONFIG)[0]
    without = quality(["object"], {name: columns[name] for name in ("sharpness", "contrast")}, CONFIG)[0]
    assert found[0].lost == pytest.approx(without - whole)


def test_what_weighs_little_takes_little():
    found = faults({"sharpness": 0.5, "contrast": 0.5, "covered_share": 1.0}, "object", CONFIG)
    assert [fault.component for fault in found] == ["sharpness", "contrast"]
    assert found[0].lost > found[1].lost


def test_sound_components_are_no_faults_and_neither_are_those_that_raise_the_mean():
    assert faults({"sharpness": 0.9, "contrast": 0.85, "covered_share": 0.8}, "object", CONFIG) == []
    assert [fault.component for fault in faults({"sharpness": 0.7, "contrast": 0.1}, "object", CONFIG)] == ["contrast"]


def test_a_score_of_zero_is_a_fault_and_takes_all():
    (fault,) = faults({"sharpness": 0.0, "contrast": 0.9}, "object", CONFIG)
    assert (str(fault), fault.lost) == ("blurred 0.0", pytest.approx(0.9, abs=0.01))


def test_whole_pictures_have_the_faults_of_their_own_components():
    assert faults({"sharpness": 0.1, "contrast": 0.1}, "whole", CONFIG) == []  # one alone cannot be left out
    assert unknown({"sharpness": 0.1}, "whole", CONFIG) == ["contrast"]


def test_components_that_are_not_known_are_named():
    assert unknown({"sharpness": 0.9, "contrast": None, "covered_share": float("nan")}, "object", CONFIG) == [
        "contrast",
        "covered_share",
        "class_entropy",
    ]


def test_every_component_that_counts_has_a_word_for_its_fault():
    for name in (*Quality().object_components, *Quality().optional_components, *Quality().whole_components):
        assert COMPONENTS[name].fault
        assert word(name) == COMPONENTS[name].fault
    assert word("of_a_plugin_that_is_gone") == "of a plugin that is gone"
