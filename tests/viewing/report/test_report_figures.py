"""The figures of a report: they agree with the dataset, and samples depend on ids alone."""

import json
import shutil
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from curatedata import copy
from helpers import HERE
from refloom.curation.select.settings import Select
from reporting import CONFIG, build, page_of

from refloom.curation.job import curate
from refloom.curation.select.objects import rules
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.pages.axis import ticks
from refloom.viewing.report import figures
from refloom.viewing.report.distribution import LEVELS, histogram, quantiles
from refloom.viewing.report.picks import choose, spread
from refloom.viewing.report.sampling import LowestHashes
from refloom.viewing.report.survey import survey
from refloom.viewing.report.threshold import thresholds


def test_figures_are_json_and_their_funnel_is_that_of_the_manifests(dataset):
    found = json.loads(json.dumps(figures(dataset), allow_nan=False))
    for stage in STAGES:
        counts = {kind: one.to_json() for kind, one in dataset.counts(stage).items()}
        assert found["funnel"].get(stage, {}) == counts
    assert found["totals"]["objects"] == len(dataset.read("objects", ["object_id"]))
    assert found["totals"]["bytes"] == sum(
        file.bytes for stage in STAGES for one in dataset.manifests(stage).values() for file in one.files
    )
    assert sum(found["totals"]["samples"].values()) == len(dataset.read("samples", ["sample_id"]))
    assert found["totals"]["kept_objects"] == sum(entry["kept_objects"] for entry in found["keys"])
    assert {entry["source"]: entry["pictures"] for entry in found["sources"]} == {"coco": 6, "ytvis": 12}
    assert {entry["source"]: entry["videos"] for entry in found["sources"]} == {"coco": 0, "ytvis": 2}


def test_histograms_and_nulls_add_up_to_the_rows_and_quantiles_are_those_of_numpy(dataset):
    found = figures(dataset)["scores"]
    kinds = dict(zip(*dataset.read("objects", ["object_id", "kind"]).to_pydict().values(), strict=True))
    table = dataset.read("object_scores")
    is_object = [kinds[object_id] == "object" for object_id in table["object_id"].to_pylist()]
    table = table.filter(pa.array(is_object))
    assert found["objects"]["rows"] == len(table) > 0
    for column, score in found["objects"]["columns"].items():
        values = np.array(table[column].drop_null().to_pylist())
        assert score["nulls"] == table[column].null_count
        if len(values):
            assert score["quantiles"] == pytest.approx(np.percentile(values, LEVELS).tolist())
            assert sum(map(sum, score["histogram"]["counts"].values())) + score["nulls"] == len(table)
        else:
            assert score["histogram"] is None
    assert found["pictures"]["rows"] == len(dataset.read("image_scores", ["image_id"]))
    assert found["samples"]["columns"]["mip_s"]["nulls"] == found["samples"]["rows"]
    kept = sum(found["objects"]["columns"]["area_share"]["histogram"]["counts"]["kept"])
    assert kept == dataset.counts("select")["object"].kept


def test_thresholds_are_those_the_units_were_selected_with(dataset):
    found = {entry["setting"]: entry for entry in figures(dataset)["thresholds"]}
    assert found["select.min_area_share"]["bound"] == 0.08
    assert found["select.min_quality"]["bound"] == 0.25
    assert len(found) == len(rules(Select()))  # there are no whole pictures to bound
    settings = {f"select.{field.name}" for field in fields(Select)}
    assert {line.setting for line in thresholds(dataset) if line.setting.startswith("select.")} == settings
    drawn = figures(dataset)["scores"]["objects"]["columns"]["aspect"]["thresholds"]
    assert sorted(line["bound"] for line in drawn) == pytest.approx([1 / 6, 6])


def test_what_a_threshold_does_alone_is_what_would_be_kept_without_it(made, tmp_path):
    looser = {"min_area_share": 0.0, "max_aspect": 100.0}
    strict = Dataset(str(copy(made, tmp_path)))
    before = {entry["setting"]: entry for entry in figures(strict)["thresholds"]}
    kept = strict.counts("select")["object"].kept
    for name, bound in looser.items():
        config = replace(CONFIG, select=replace(CONFIG.select, **{name: bound}))
        curate(strict.url, config, HERE, until="select", replace=True)
        now = Dataset(strict.url).counts("select")["object"].kept
        assert now - kept == before[f"select.{name}"]["alone"]
    assert before["select.min_area_share"]["alone"] > 0


def test_strips_hold_the_objects_nearest_to_each_threshold_on_its_two_sides(dataset):
    config = replace(CONFIG.select, min_area_share=0.12)
    strips = {strip.threshold.setting: strip for strip in choose(survey(dataset), config).strips}
    strip = strips["select.min_area_share"]
    outside, inside = [row["value"] for row in strip.outside], [row["value"] for row in strip.inside]
    assert outside == sorted(outside, reverse=True)
    assert inside == sorted(inside)
    assert outside[0] < 0.12 <= inside[0]
    shares = [row["area_share"] for row in dataset.read("object_scores").to_pylist() if row["quality"] is not None]
    assert inside[0] == pytest.approx(min(share for share in shares if share >= 0.12))
    assert all(row["value"] >= 1 for row in strips["select.max_aspect"].inside)


def test_a_score_without_values_has_no_histogram_and_one_value_has_one_bar():
    assert histogram({"measured": np.array([np.nan])}) is None
    assert quantiles(np.array([np.nan])) is None
    shape = histogram({"measured": np.full(7, 1.0)}, span=(0, 1))
    assert shape is not None
    assert sorted(shape.counts["measured"])[-1] == 7


@pytest.mark.parametrize("is_log", [False, True])
def test_no_value_falls_out_of_a_histogram_and_marks_lie_inside_it(is_log):
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.lognormal(0, 2, 5000), [0, 1e6, np.nan]])
    shape = histogram({"a": values, "b": -values[:10]}, marks=[0.004, 5e4], is_log=is_log)
    assert shape is not None
    assert sum(shape.counts["a"]) == 5002
    assert sum(shape.counts["b"]) == 10
    assert shape.edges[0] < 0.004
    assert shape.edges[-1] > 5e4
    assert np.all(np.diff(shape.edges) > 0)
    found = ticks(shape.edges[0], shape.edges[-1], is_log)
    assert 1 < len(found) <= 8
    assert shape.edges[0] <= min(found) <= max(found) <= shape.edges[-1]


def test_a_sample_depends_on_ids_alone():
    rows = pa.table({"id": [f"coco/{number:06d}" for number in range(5000)], "value": np.arange(5000.0)})

    def sample(parts: list[pa.Table]) -> pa.Table:
        sketch = LowestHashes(300)
        for part in parts:
            sketch.add(part)
        return sketch.rows()

    whole = sample([rows])
    order = np.random.default_rng(0).permutation(5000)
    parts = [rows.take(order[start : start + 170]) for start in range(0, 5000, 170)]
    assert whole.equals(sample(parts))
    assert len(whole) == 300
    drawn = np.sort(whole["value"].to_numpy())
    assert abs(drawn.mean() - 2500) < 250
    assert 0.03 < np.mean(np.diff(drawn) == 1) < 0.1  # a checksum alone never draws neighbours together


def test_objects_are_spread_over_their_quality():
    values = np.array([0.5, np.nan, 0.1, 0.9, 0.3])
    assert spread(values, 3) == [1, 4, 3]
    assert spread(values, 9) == [1, 2, 4, 0, 3]
    assert spread(np.array([]), 3) == []


def test_records_of_runs_are_optional_and_may_be_broken(tmp_path):
    dataset = build(tmp_path, until="ingest")
    shutil.rmtree(tmp_path / "data" / "runs")
    assert figures(dataset)["runs"] == []
    record = {"command": "ingest", "seconds": 2.0, "items": 10, "bytes": 4000, "workers": 2, "units": 1}
    dataset.folder.write("runs/1/run.json", json.dumps(record).encode())
    dataset.folder.write("runs/2/run.json", b"{")
    dataset.folder.write("runs/3/run.json", b'{"command": "x", "seconds": 1}')
    dataset.folder.write("runs/4/run.json", b"[]")
    dataset.folder.write("runs/5/run.json", json.dumps(record | {"seconds": float("inf")}).encode())
    dataset.folder.write("runs/6/run.json", json.dumps(record | {"seconds": 0}).encode())
    last, first = figures(dataset)["runs"]
    assert (first["run"], first["items_per_second"], first["bytes_per_second"]) == ("1", 5.0, 2000.0)
    assert last["items_per_second"] is None
    text = page_of(dataset).text
    assert "2,000" not in text
    assert "2.0 kB/s" in text
    assert "5/s" in text
