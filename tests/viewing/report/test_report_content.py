"""What a report says of a dataset's content and of labels: categories, samples, mentions, AUC, sheets that disagree."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reporting import Page, page_of

from refloom.curation.select.settings import Select
from refloom.schemas import labels
from refloom.schemas.dataset import Dataset
from refloom.schemas.labels import Label
from refloom.viewing.report import content, figures
from refloom.viewing.report.content import Content
from refloom.viewing.report.figures import FEW_ROWS
from refloom.viewing.report.funnel import funnel
from refloom.viewing.report.judged import alone, summary
from refloom.viewing.report.picks import choose
from refloom.viewing.report.survey import KEPT, survey
from refloom.viewing.report.threshold import select_settings


@pytest.fixture(scope="module")
def labelled(made, tmp_path_factory) -> Path:
    """A copy whose objects are judged: large ones are good, and one label is of an object that is not there."""
    root = tmp_path_factory.mktemp("labelled") / "data"
    shutil.copytree(made, root)
    dataset = Dataset(str(root))
    for unit in dataset.units():
        rows = dataset.read("object_scores", ["object_id", "area_share"], unit=unit).to_pylist()
        for row in rows[::3]:
            score = 3 if row["area_share"] > 0.1 else 1
            labels.save(str(root), Label(row["object_id"], score, ("tiny",) if score == 1 else ()), unit)
    return root


# -- content -------------------------------------------------------------------------------------------------------


def test_categories_are_counted_by_verdict(dataset):
    found = figures(dataset)["content"]["categories"]
    verdict = dict(zip(*dataset.read("selection", ["object_id", "verdict"]).to_pydict().values(), strict=True))
    expected = Counter((row["category"], verdict[row["object_id"]]) for row in dataset.read("objects").to_pylist())
    assert {(one["category"], "keep"): one["kept"] for one in found if one["kept"]} == {
        key: count for key, count in expected.items() if key[1] == "keep"
    }
    assert sum(one["rejected"] for one in found) == sum(
        count for (_, said), count in expected.items() if said == "reject"
    )
    assert [one["objects"] for one in found] == sorted((one["objects"] for one in found), reverse=True)


def test_samples_subjects_and_mentions_are_those_of_the_samples(dataset, page):
    found = figures(dataset)["content"]
    rows = dataset.read("samples").to_pylist()
    kinds = Counter((row["kind"], row["pictures"][0]["source"]) for row in rows)
    mine: Counter[tuple[str, str]] = Counter()
    for one in found["samples"]:
        mine[one["kind"], one["source"]] += one["samples"]
    assert mine == kinds
    splits = Counter[str]()
    for one in found["samples"]:
        splits[one["split"]] += one["samples"]
    assert dict(splits) == {name: count for name, count in figures(dataset)["totals"]["samples"].items() if count}
    sizes = Counter((row["kind"], len(row["subjects"])) for row in rows)
    assert {(one["kind"], one["subjects"]): one["samples"] for one in found["subjects_per_sample"]} == dict(sizes)
    for one in found["mentions"]:
        subjects = [subject for row in rows if row["kind"] == one["kind"] for subject in row["subjects"]]
        assert one["subjects"] == len(subjects)
        assert one["mentioned"] == sum(bool(subject["mentions"]) for subject in subjects)
    assert any(one["mentioned"] for one in found["mentions"])
    for title in ("Categories", "Samples", "Subjects a sample", "Mentions"):
        assert title in page.words


def test_categories_beyond_a_number_are_counted_together(monkeypatch):
    monkeypatch.setattr(content, "_MOST_NAMES", 3)
    monkeypatch.setattr(content, "_SHOWN_CATEGORIES", 2)
    found = Content()
    for names in (["a", "a", "a", "b", "b"], ["c", "d", "d", "e"]):
        rows = {"kind": ["object"] * len(names), "category": names, "reason": pa.nulls(len(names), pa.string())}
        found.add_objects(pa.table(rows), KEPT)
    said = found.to_json()
    assert [(one["category"], one["undecided"]) for one in said["categories"]] == [("a", 3), ("b", 2)]
    assert said["other_categories"]["objects"] == 4
    assert len(found.categories) == 3


def test_sizes_of_pictures_are_drawn(dataset):
    found = figures(dataset)["scores"]["sizes"]
    assert found["rows"] == len(dataset.read("images", ["image_id"]))
    assert found["columns"]["shorter_px"]["quantiles"][4] == 80
    assert found["columns"]["longer_px"]["quantiles"][4] == 96


def test_a_family_of_few_rows_is_a_table_of_its_values(dataset, page):
    found = figures(dataset)["scores"]["groups"]
    assert 0 < found["rows"] <= FEW_ROWS
    score = found["columns"]["members"]
    assert len(score["values"]) == found["rows"]
    assert score["values"] == sorted(score["values"])
    assert page.count("table", "few") >= 1
    assert "histogram of members" not in str(page.elements)
    assert figures(dataset)["scores"]["objects"]["columns"]["quality"]["values"] is None


# -- rules ---------------------------------------------------------------------------------------------------------


def test_the_funnel_says_what_each_rule_rejects_alone(dataset, labelled):
    for place, has_labels in ((dataset, False), (Dataset(str(labelled)), True)):
        found = figures(place)
        page = Page(funnel(found))
        counted = {one["setting"]: one["alone"] for one in found["thresholds"] if one["alone"]}
        assert counted
        for setting, count in counted.items():
            assert f"{setting}  {count:,}" in page.text
        assert ("judged are good" in page.text) is has_labels


# -- labels --------------------------------------------------------------------------------------------------------


def test_without_labels_nothing_is_said_of_them(dataset, page):
    assert figures(dataset)["labels"] is None
    assert "What people say" not in page.words


def test_labels_are_counted_and_scores_compared_with_them(labelled):
    dataset = Dataset(str(labelled))
    found = figures(dataset)["labels"]
    said = labels.read(dataset)
    good = sum(one.score >= 2 for one in said.values())
    assert (found["judged"], found["good"], found["absent"]) == (len(said), good, 0)
    assert found["scores"] == {"0": 0, "1": len(said) - good, "2": 0, "3": good}
    assert found["flags"] == {"tiny": len(said) - good}
    assert sum(one["judged"] for one in found["verdicts"].values()) == len(said)
    by_score = {one["score"]: one["all"] for one in found["auc"]}
    assert by_score["area_share"]["auc"] == 1.0  # it is what was judged by
    for one in by_score.values():
        assert one["low"] <= one["auc"] <= one["high"]
    page = page_of(dataset)
    assert "What people say" in page.words
    assert page.count("table", "auc") == 1


def test_sheets_show_where_verdicts_and_labels_disagree_nearest_to_the_threshold(labelled):
    dataset = Dataset(str(labelled))
    said, bound = labels.read(dataset), select_settings(dataset).min_quality
    verdict = dict(zip(*dataset.read("selection", ["object_id", "verdict"]).to_pydict().values(), strict=True))
    found = choose(survey(dataset), select_settings(dataset)).judged
    for name, (kept, good) in {
        "kept_poor": ("keep", False),
        "rejected_good": ("reject", True),
        "kept_good": ("keep", True),
        "rejected_poor": ("reject", False),
    }.items():
        mine = found[name]
        assert all((verdict[row["id"]], said[row["id"]].score >= 2) == (kept, good) for row in mine)
        distances = [abs(row["quality"] - bound) for row in mine if not np.isnan(row["quality"])]
        assert distances == sorted(distances)
    assert found["kept_good"]
    assert found["rejected_poor"]


def test_labels_of_objects_that_are_gone_are_counted_apart(labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "data")
    dataset = Dataset(str(tmp_path / "data"))
    unit = next(unit for unit in dataset.units() if len(dataset.read("objects", unit=unit)))
    gone = set(dataset.read("objects", ["object_id"], unit=unit)["object_id"].to_pylist()) & set(labels.read(dataset))
    for stage in ("ingest", "quality", "select"):
        dataset.drop(stage, unit)
    found = figures(Dataset(dataset.url))["labels"]
    assert found["absent"] == len(gone) > 0
    page_of(Dataset(dataset.url))


def test_too_few_of_a_kind_are_not_compared():
    columns = {"image_id": ["a", "b", "c"], "label": [3.0, 3.0, 0.0], "reason": ["", None, "too_small"]}
    rows = pa.table(columns | {"flags": [[], [], ["dark"]], "quality": [0.1, 0.2, 0.3]})
    found = summary(rows, ("quality",), KEPT, 2)
    assert found is not None
    assert (found["auc"], found["absent"]) == ([], 2)
    assert found["verdicts"]["undecided"] == {"judged": 1, "good": 1}
    assert summary(None, ("quality",), KEPT, 0) is None
    assert summary(None, ("quality",), KEPT, 3) == {"judged": 0, "absent": 3}
    assert alone(None, Select()) == {}
