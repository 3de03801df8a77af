"""Verdicts: every bound from both sides, the order of reasons, what has no verdict of its own, and re-selection."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from curating import LOOSE, coco, curated
from helpers import HERE, ingest

from refloom.curation.job import curate
from refloom.curation.select.objects import OBJECT_COLUMNS, SCORE_COLUMNS, rules, select_unit, verdicts
from refloom.curation.select.settings import Select
from refloom.schemas.dataset import Dataset
from refloom.schemas.reasons import REJECTED
from refloom.schemas.tables import TABLES
from refloom.schemas.unit import UnitKey, UnitWriter

CONFIG = Select()
SOUND: dict[str, Any] = {
    "object_id": "a#1",
    "image_id": "a",
    "filtered": None,
    "area_share": 0.2,
    "short_side_px": 100.0,
    "aspect": 1.0,
    "box_fill": 0.7,
    "border_share": 0.1,
    "largest_part": 0.9,
    "contained": 0.2,
    "mask_confidence": 0.95,
    "quality": 0.8,
    "kind": "object",
    "category": "cat",
    "phrase": None,
}
"""Far inside every bound."""

BOUNDS = [
    # column, setting, whether larger is kept, reason
    ("area_share", "min_area_share", True, "too_small"),
    ("short_side_px", "min_short_side_px", True, "too_small"),
    ("area_share", "max_area_share", False, "too_large"),
    ("box_share", "max_unnamed_box_share", False, "too_large"),
    ("aspect", "max_aspect", False, "odd_shape"),
    ("box_fill", "min_box_fill", True, "odd_shape"),
    ("border_share", "max_border_share", False, "cut_off"),
    ("largest_part", "min_largest_part", True, "fragmented"),
    ("contained", "max_contained", False, "part_of_larger"),
    ("mask_confidence", "min_mask_confidence", True, "low_confidence"),
    ("quality", "min_quality", True, "low_quality"),
]
"""In the order in which reasons are given."""


def having(column: str, value: float) -> dict[str, Any]:
    """An object that has a value, and is sound in everything that does not follow from it."""
    if column == "box_share":  # of an object without a class, whose mask fills half of its box
        return {"area_share": value / 2, "box_fill": 0.5, "category": None}
    if column == "box_fill":
        return {"box_fill": value, "area_share": SOUND["area_share"] * value}
    return {column: value} | ({"category": None} if column == "contained" else {})


def judge(*changes: dict[str, Any], config: Select = CONFIG) -> list[str | None]:
    """Verdicts on sound objects with some values changed."""
    rows = [SOUND | change for change in changes]

    def table(name: str, columns: tuple[str, ...]) -> pa.Table:
        schema = pa.schema([TABLES[name].schema.field(column) for column in columns])
        return pa.Table.from_pylist([{column: row[column] for column in columns} for row in rows], schema)

    reasons: list[str | None] = verdicts(
        table("object_scores", SCORE_COLUMNS), table("objects", OBJECT_COLUMNS), config
    ).to_pylist()
    return reasons


def beside(bound: float, towards: float) -> float:
    """The next value that a table can hold on one side of a bound."""
    return float(np.nextafter(np.float32(bound), np.float32(towards)))


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_a_sound_object_is_kept():
    assert judge({}) == [None]


def test_the_table_of_this_test_is_the_table_of_rules():
    assert [rule.reason for rule in rules(CONFIG)] == [reason for *_, reason in BOUNDS]
    assert [rule.bound for rule in rules(CONFIG)] == [getattr(CONFIG, setting) for _, setting, *_ in BOUNDS]


@pytest.mark.parametrize(("column", "setting", "larger_is_kept", "reason"), BOUNDS)
def test_just_inside_a_bound_is_kept_and_just_outside_has_its_reason(column, setting, larger_is_kept, reason):
    bound = getattr(CONFIG, setting)
    inside, outside = beside(bound, np.inf), beside(bound, -np.inf)
    if not larger_is_kept:
        inside, outside = outside, inside
    assert judge(having(column, inside), having(column, outside)) == [None, reason]
    assert reason in REJECTED


@pytest.mark.parametrize(("column", "setting"), [entry[:2] for entry in BOUNDS])
def test_a_value_that_equals_its_bound_is_kept(column, setting):
    """Also where the bound is no float32: 0.7 in a table is 0.69999998."""
    assert judge(having(column, getattr(CONFIG, setting))) == [None]


@pytest.mark.parametrize(("column", "setting", "larger_is_kept", "reason"), BOUNDS)
def test_each_bound_is_the_setting_of_its_name(column, setting, larger_is_kept, reason):
    value = {"aspect": 2.0, "box_share": 0.6}.get(column) or SOUND[column]
    tight, wide = (value * 1.01, value * 0.99) if larger_is_kept else (value * 0.99, value * 1.01)
    assert judge(having(column, value), config=replace(CONFIG, **{setting: tight})) == [reason]
    assert judge(having(column, value), config=replace(CONFIG, **{setting: wide})) == [None]


def test_tall_is_as_odd_as_wide():
    assert judge({"aspect": 5.9}, {"aspect": 1 / 5.9}) == [None, None]
    assert judge({"aspect": 6.1}, {"aspect": 1 / 6.1}) == ["odd_shape", "odd_shape"]


# -- order of reasons ------------------------------------------------------------------------------------------------


def broken(entry: tuple[str, str, bool, str]) -> dict[str, Any]:
    column, setting, larger_is_kept, _ = entry
    return having(column, beside(getattr(CONFIG, setting), -np.inf if larger_is_kept else np.inf))


def test_of_two_broken_bounds_the_earlier_gives_the_reason():
    changes = [(broken(one), broken(two), one[3]) for one, two in combinations(BOUNDS, 2)]
    together = [(one, two, reason) for one, two, reason in changes if one.keys() & two.keys() <= {"category"}]
    assert len(together) > 45
    assert judge(*(one | two for one, two, _ in together)) == [reason for *_, reason in together]


def test_the_reason_of_the_filter_comes_after_the_bounds_and_before_a_missing_quality():
    spared = {"filtered": "odd_shape", "quality": None}
    assert judge(spared, spared | {"area_share": 0.0005}) == ["odd_shape", "too_small"]
    assert judge({"filtered": "too_large"}) == ["too_large"]


def test_a_missing_quality_is_the_last_reason():
    missing = {"quality": None}
    assert judge(missing) == ["component_missing"]
    assert judge(*(missing | broken(entry) for entry in BOUNDS[:-1])) == [entry[3] for entry in BOUNDS[:-1]]


# -- nulls, classes and kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [name for name in SOUND if isinstance(SOUND[name], float) and name != "quality"])
def test_a_null_breaks_no_bound(column):
    assert judge({column: None}) == [None]


def test_only_objects_without_class_and_phrase_are_parts_of_larger_ones():
    inside = {"contained": 0.99, "category": None}
    named = [{"category": "wheel"}, {"phrase": "a wheel"}, {"category": "wheel", "phrase": "a wheel"}]
    assert judge(inside, *(inside | words for words in named)) == ["part_of_larger", None, None, None]


def test_only_objects_without_class_and_phrase_are_backgrounds_by_their_box():
    wide = {"area_share": 0.5, "box_fill": 0.5, "category": None}
    assert judge(wide, wide | {"category": "sky"}, wide | {"phrase": "the sky"}) == ["too_large", None, None]


def test_an_object_without_a_mask_is_judged_by_its_box():
    """Nothing is known of its shape, and the box is all of its area."""
    bare = {"box_fill": None, "border_share": None, "largest_part": None, "contained": None, "category": None}
    config = replace(CONFIG, max_unnamed_box_share=0.6)
    assert judge(bare, bare | {"area_share": 0.59}, bare | {"area_share": 0.61}, config=config) == [
        None,
        None,
        "too_large",
    ]


@pytest.mark.parametrize("kind", ["whole", "face"])
def test_whole_pictures_and_faces_are_judged_by_their_quality_alone(kind):
    extreme = {"area_share": 1.0, "short_side_px": 4.0, "aspect": 40.0, "box_fill": None, "filtered": "too_small"}
    outside = extreme | {"kind": kind, "border_share": 1.0, "mask_confidence": 0.0, "contained": 1.0}
    bound = CONFIG.min_whole_quality
    assert bound < CONFIG.min_quality
    found = judge(*(outside | {"quality": quality} for quality in (beside(bound, 1), beside(bound, 0), bound, None)))
    assert found == [None, "low_quality", None, "component_missing"]


def test_every_object_is_judged_by_itself():
    changes = [{}, *(broken(entry) for entry in BOUNDS), {"kind": "whole", "quality": 0.31}, {"quality": None}]
    assert judge(*changes) == [judge(change)[0] for change in changes]
    assert judge() == []


# -- datasets --------------------------------------------------------------------------------------------------------

SCENES = [{"cat": (10, 10, 50, 50), "dog": (40, 20, 90, 70)}, {"cat": (5, 5, 30, 60)}, {}]


def selected(dataset: Dataset) -> dict[str, str | None]:
    rows = dataset.read("selection").to_pylist()
    assert all((row["verdict"] == "keep") == (row["reason"] is None) for row in rows)
    return {row["object_id"].rsplit("/", 1)[1].lstrip("0"): row["reason"] for row in rows}


def test_every_object_has_one_row_and_the_counts_add_up(tmp_path):
    config = replace(LOOSE, select=replace(LOOSE.select, min_area_share=0.22))
    dataset = curated(tmp_path, coco(tmp_path, SCENES), config=config, until="select")
    assert selected(dataset) == {"1#100": "too_small", "1#101": None, "2#200": "too_small"}
    counts = dataset.counts("select")["object"]
    assert (counts.input, counts.kept, counts.rejected) == (3, 1, {"too_small": 2})
    assert not dataset.ledger("select").num_rows  # the row of the table says why


def test_objects_whose_picture_does_not_decode_are_lost_with_it(tmp_path):
    source = coco(tmp_path, SCENES)
    path = tmp_path / "val2017" / "000000000001.jpg"
    data = path.read_bytes()
    start = data.index(b"\xff\xda")
    path.write_bytes(data[: start + 2] + b"\xff\xd9")
    dataset = curated(tmp_path, source, until="select")
    assert selected(dataset) == {"1#100": "image_rejected", "1#101": "image_rejected", "2#200": None}


def test_objects_of_a_picture_that_comes_back_are_judged_then(tmp_path):
    source = coco(tmp_path, SCENES)
    dataset = ingest(source, tmp_path / "data", link=True)
    path = tmp_path / "val2017" / "000000000001.jpg"
    path.rename(tmp_path / "away.jpg")
    curate(dataset.url, LOOSE, HERE, until="select")
    assert selected(Dataset(dataset.url))["1#100"] is not None
    (tmp_path / "away.jpg").rename(path)
    curate(dataset.url, LOOSE, HERE, until="select", retry_failed=True)
    assert selected(Dataset(dataset.url)) == {"1#100": None, "1#101": None, "2#200": None}


def test_other_thresholds_change_verdicts_and_no_score(tmp_path):
    dataset = curated(tmp_path, coco(tmp_path, SCENES), until="select")
    assert set(selected(dataset).values()) == {None}
    before = {name: dataset.folder.read(f"manifests/quality/{name}.json") for name in dataset.units()}
    config = replace(LOOSE, select=replace(LOOSE.select, max_area_share=0.3))
    curate(dataset.url, config, HERE, until="select", replace=True)
    again = Dataset(dataset.url)
    assert selected(again) == {"1#100": None, "1#101": "too_large", "2#200": None}
    assert {name: again.folder.read(f"manifests/quality/{name}.json") for name in again.units()} == before


def test_select_reads_scores_by_object_and_not_by_place(tmp_path):
    """Scores of some objects only: the others were lost with their picture."""
    dataset = curated(tmp_path, coco(tmp_path, SCENES), until="quality")
    (unit,) = dataset.units()
    rows = dataset.read("object_scores", unit=unit).to_pylist()
    with UnitWriter(dataset.folder, UnitKey("quality", unit, "made")) as out:
        out.expect("object", len(rows) - 1)
        for row in rows[1:]:
            out.add("object_scores", row)
        out.keep("object", len(rows) - 1)
    dataset.refresh()
    with UnitWriter(dataset.folder, UnitKey("select", unit, "made")) as out:
        select_unit(dataset, unit, replace(LOOSE.select, max_area_share=0.3), out)
    dataset.refresh()
    assert selected(dataset) == {"1#100": "image_rejected", "1#101": "too_large", "2#200": None}
