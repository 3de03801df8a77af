"""Bounds on groups and on phrases in a report: where they lie, what each does alone, and the groups on either side."""

from dataclasses import replace
from typing import Any

import pytest
from helpers import HERE
from refloom.curation.compose.settings import Compose
from reporting import CONFIG, build, commit, group, ids, page_of

from refloom.curation.group.bounds import Pairs
from refloom.curation.job import curate
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.viewing.report import figures
from refloom.viewing.report.picks import GROUPS_AT_THRESHOLD, choose
from refloom.viewing.report.survey import survey
from refloom.viewing.report.threshold import pair_settings

BOUNDS = Pairs(min_pose_change=0.2, max_mean_similarity=0.9)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return build(tmp_path, until="measure")


def judged(dataset: Dataset, groups: list[dict[str, Any]], bounds: Pairs = BOUNDS) -> Dataset:
    """Groups of the first unit, and units that were balanced with some bounds."""
    first, *_ = sorted(dataset.units())
    dataset = commit(dataset, "group", "groups", "group", {first: groups})
    for unit in dataset.units():
        config = {"pairs": {name: getattr(bounds, name) for name in Pairs.__slots__}, "balance": {}}
        with UnitWriter(dataset.folder, UnitKey("balance", unit, "x", config=config)):
            pass
    return Dataset(dataset.url)


def looks(dataset: Dataset, *scores: dict[str, float | None]) -> list[dict[str, Any]]:
    objects = ids(dataset, "objects", sorted(dataset.units())[0])
    return [group("look", objects[n : n + 2]) | score for n, score in enumerate(scores)]


def test_each_bound_is_drawn_and_says_what_it_does_alone(dataset):
    scores = [
        {"pose_change": 0.1, "mean_similarity": 0.95},  # breaks both
        {"pose_change": 0.1, "mean_similarity": 0.8},
        {"pose_change": 0.15, "mean_similarity": 0.8},
        {"pose_change": 0.3, "mean_similarity": 0.8},
        {"pose_change": None, "mean_similarity": None},  # not known: breaks nothing
    ]
    dataset = judged(dataset, looks(dataset, *scores))
    assert pair_settings(dataset) == BOUNDS
    found = {entry["setting"]: entry for entry in figures(dataset)["thresholds"]}
    assert {name: (one["breaks"], one["alone"], one["items"], one["reason"]) for name, one in found.items()} == {
        "pairs.max_mean_similarity": (1, 0, 5, "too_alike"),
        "pairs.min_pose_change": (3, 2, 5, "too_alike"),
    }
    columns = figures(dataset)["scores"]["groups"]["columns"]
    assert columns["pose_change"]["thresholds"][0]["bound"] == 0.2
    assert columns["pose_change"]["nulls"] == 1
    assert columns["area_ratio"]["thresholds"] == []


def test_groups_on_either_side_of_a_bound_are_shown_the_nearest_first(dataset):
    values = (0.01, 0.15, 0.1, 0.19, 0.3, 0.21, None)
    dataset = judged(dataset, looks(dataset, *({"pose_change": value} for value in values)))
    choice = choose(survey(dataset), None, BOUNDS)
    (strip,) = [one for one in choice.group_strips if one.threshold.setting == "pairs.min_pose_change"]
    assert [round(row["value"], 2) for row in strip.outside] == [0.19, 0.15, 0.1][:GROUPS_AT_THRESHOLD]
    assert [round(row["value"], 2) for row in strip.inside] == [0.21, 0.3]
    page = page_of(dataset)
    assert page.count("div", "strip") == 2  # of similarity nothing is outside, and everything inside
    assert page.count("div", "missing") == 0
    assert "pose change 0.190" in page.text
    assert "pairs.min_pose_change = 0.2 (groups)" in page.text  # on its histogram


def test_without_bounds_there_is_no_word_of_them(dataset):
    dataset = judged(dataset, looks(dataset, {"pose_change": 0.1}), Pairs())
    assert figures(dataset)["thresholds"] == []
    assert page_of(dataset).count("div", "strip") == 0


def test_scores_of_phrases_are_drawn_with_their_bounds(tmp_path):
    dataset = build(tmp_path, until="balance")
    first, *_ = sorted(dataset.units())
    names = ids(dataset, "objects", first)[:4]
    known = {"phrase": "cat", "origin": "vocabulary", "margin": 0.1, "cosine": 0.2, "embedding": [1.0, 0.0]}
    rows = [known | {"object_id": name, "probability": n / 10} for n, name in enumerate(names)]
    dataset = commit(dataset, "phrase", "phrases", "object", {first: rows})
    curate(dataset.url, replace(CONFIG, compose=replace(CONFIG.compose, min_phrase_probability=0.15)), HERE)
    family = figures(Dataset(dataset.url))["scores"]["phrases"]
    assert family["rows"] == 4
    assert [one["bound"] for one in family["columns"]["probability"]["thresholds"]] == [0.15]
    assert [one["bound"] for one in family["columns"]["margin"]["thresholds"]] == [Compose().min_phrase_margin]
