"""The report: figures that agree with the dataset, a page that is sound HTML in every state, and honest drawings."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import gradient
from helpers import HERE, ingest, write_coco, write_ytvis

from curation.config import Compose, Curation, Filter, Models, Select
from curation.job import curate
from curation.report import figures, write_page
from curation.report.choice import choose, spread
from curation.report.distribution import LEVELS, histogram, quantiles, ticks
from curation.report.drawing import View, around, cut, view_of
from curation.report.lookup import fetch
from curation.report.markup import Html, escape, tag
from curation.report.samplesheet import marked
from curation.report.sketch import LowestHashes
from curation.report.survey import survey
from curation.report.threshold import thresholds
from curation.select import rules
from ingest.sources.coco import Coco
from ingest.sources.folder import PlainPictures
from ingest.sources.subjects import Subjects
from ingest.sources.ytvis import YouTubeVis
from schemas import boxes, masks, pictures
from schemas.dataset import STAGES, Dataset
from schemas.reasons import REJECTED
from schemas.unit import UnitKey, UnitWriter

CONFIG = Curation(
    models=Models(face="none", image_embedding="none"),
    filter=Filter(min_area_px=100, min_area_share=0.01),
    select=Select(min_area_share=0.08, min_short_side_px=12.0, min_quality=0.25),
    compose=Compose(frames_per_sample=2, samples_per_video=1),
)
VOID = {"br", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """A parsed page; an element that is closed out of turn is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        kept = {"style": self.styles, "script": self.scripts}.get(self.open[-1] if self.open else "", self.words)
        kept.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def titles(self) -> str:
        return "\n".join(attributes.get("title") or "" for _, attributes in self.elements)

    def count(self, name: str, kind: str) -> int:
        """Elements with a class."""
        return sum(
            element == name and kind in (attributes.get("class") or "").split() for element, attributes in self.elements
        )


def page_of(dataset: Dataset) -> Page:
    return Page(Path(write_page(dataset)).read_text("utf-8"))


def build(root: Path, *, until: str | None = None, config: Curation = CONFIG, **options: Any) -> Dataset:
    """COCO pictures and videos, curated up to a stage."""
    images, instances, captions = write_coco(root / "coco", 6, objects=4, size=(96, 80))
    out = root / "data"
    ingest(Coco(images=str(images), instances=str(instances), captions=str(captions), unit_size=4), out, **options)
    videos = write_ytvis(root / "videos", videos=2, frames=6, size=(96, 80))
    ingest(YouTubeVis(frames=str(root / "videos/JPEGImages"), annotations=str(videos)), out, **options)
    if until != "ingest":
        curate(str(out), config, HERE, until=until)
    return Dataset(str(out))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A curated dataset; tests that change it copy it."""
    return Path(build(tmp_path_factory.mktemp("report")).url)


@pytest.fixture
def dataset(made) -> Dataset:
    return Dataset(str(made))


# -- figures -------------------------------------------------------------------------------------------------------


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


def test_what_a_threshold_does_alone_is_what_would_be_kept_without_it(tmp_path):
    looser = {"min_area_share": 0.0, "max_aspect": 100.0}
    strict = build(tmp_path / "strict", until="select")
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
    dataset = build(tmp_path, until="measure")
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
    assert "2,000" not in page_of(dataset).text
    assert "2.0 kB/s" in page_of(dataset).text
    assert "5/s" in page_of(dataset).text


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_says_every_reason_and_count(dataset):
    page = page_of(dataset)
    said = page.text + page.titles()
    for stage in STAGES:
        for kind, counts in dataset.counts(stage).items():
            if counts.input:
                assert f"kept: {counts.kept:,} (" in page.text, (stage, kind)
            for reason, number in (counts.rejected + counts.failed).items():
                assert f"{reason}: {number:,} (" in page.text, (stage, kind)
                assert REJECTED[reason] in said
    for entry in figures(dataset)["tables"].values():
        assert f"{entry['rows']:,}" in page.text


def test_kept_and_rejected_objects_faces_groups_and_samples_are_shown(dataset):
    page = page_of(dataset)
    counts = dataset.counts("select")["object"]
    assert page.count("figure", "kept") > 5
    assert page.count("figure", "rejected") > 5
    assert page.count("div", "group") == len(dataset.read("groups", ["group_id"])) > 0
    assert page.count("article", "sample") > 2
    assert page.count("mark", "s0") > 0  # captions with mentions
    assert page.count("path", "line") > 20  # outlines of masks
    assert page.count("div", "missing") == 0
    assert counts.rejected.keys() == {"too_small"} or len(counts.rejected) > 1


def test_the_page_is_the_same_for_the_same_dataset(made, tmp_path):
    first = Path(write_page(Dataset(str(made)), str(tmp_path / "one.html")))
    copied = tmp_path / "elsewhere" / made.name
    shutil.copytree(made, copied)
    second = Path(write_page(Dataset(str(copied))))
    assert second == copied / "report.html"
    assert first.read_bytes() == second.read_bytes()


def test_the_page_loads_nothing_and_names_no_other_place(dataset):
    page = page_of(dataset)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/jpeg;base64,")), value
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|https?:", "".join(page.styles + page.scripts))
    assert {name for name, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "base", "form", "link"})


def test_only_the_pages_own_style_and_script_may_run(dataset):
    page = page_of(dataset)
    (policy,) = [one["content"] for _, one in page.elements if one.get("http-equiv") == "Content-Security-Policy"]
    for text, directive in (("".join(page.styles), "style-src"), ("".join(page.scripts), "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


HOSTILE = "</bdi></title><script>alert(1)</script>\u202e\"'><img src=x onerror=alert(2)>&amp;\x07"


def test_nothing_a_dataset_holds_becomes_markup(tmp_path):
    images, instances, captions = write_coco(tmp_path / "coco", 3, objects=3, size=(96, 80))
    document = json.loads(instances.read_text())
    document["categories"] = [{"id": 1, "name": HOSTILE}, {"id": 2, "name": "dog" + HOSTILE}]
    document["licenses"] = [{"id": 1, "name": HOSTILE, "url": "javascript:alert(3)"}]
    instances.write_text(json.dumps(document))
    texts = json.loads(captions.read_text())
    for caption in texts["annotations"]:
        caption["caption"] = f"A {HOSTILE} here"
    captions.write_text(json.dumps(texts))
    out = tmp_path / "<script>alert(4)<script>"
    ingest(Coco(images=str(images), instances=str(instances), captions=str(captions)), out)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(("<img src=x onerror=alert(5)>.jpg", "\u202egpj.jpg", "a\"b'c.jpg")):
        (folder / name).write_bytes(pictures.encode_jpeg(gradient(64, 48, number)))
    ingest(PlainPictures(path=str(folder)), out)
    curate(str(out), CONFIG, HERE)
    page = page_of(Dataset(str(out)))
    names = [name for name, _ in page.elements]
    assert names.count("script") == 1
    assert names.count("title") == 1 + sum(1 for name in names[names.index("body") :] if name == "title")
    assert "img" not in names
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    shown = HOSTILE.replace("\x07", "\ufffd")
    assert page.text.count(shown) > 3
    assert "<img src=x onerror=alert(5)>.jpg" in page.text
    raw = (out / "report.html").read_text("utf-8")
    assert "\x07" not in raw
    assert raw.count("<bdi>") == raw.count("</bdi>") > 5


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", {"title": 'a"<b'}, "1 < 2", Html("<b></b>"), None) == (
        '<p title="a&quot;&lt;b">1 &lt; 2<b></b></p>'
    )
    assert escape(escape("<")) == "&lt;"
    assert tag("input", {"checked": True, "hidden": False, "name": None, "value": 0}) == '<input checked value="0">'


def test_captions_are_marked_where_they_name_a_subject():
    spans = [(10, 13, 1), (2, 5, 0), (3, 6, 2), (12, 99, 3), (-1, 1, 4)]
    assert marked("a <b> and cat", spans) == ('a <mark class="s0">&lt;b&gt;</mark> and <mark class="s1">cat</mark>')


@pytest.mark.parametrize("until", ["ingest", "measure", "quality", "select", "group", "split"])
def test_a_dataset_in_any_state_has_a_page(tmp_path, until):
    dataset = build(tmp_path, until=until)
    page = page_of(dataset)
    found = figures(dataset)
    assert (found["totals"]["samples"] is None) == (until != "compose")
    assert (found["totals"]["kept_objects"] is None) == (until in ("ingest", "measure", "quality"))
    assert page.count("figure", "tile") > 10
    anchors = [attributes["href"] for name, attributes in page.elements if name == "a"]
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {anchor[1:] for anchor in anchors} <= ids


def test_a_dataset_without_objects_and_one_without_pictures_have_a_page(tmp_path):
    assert "No pictures yet" in page_of(Dataset(str(tmp_path / "empty"), create=True)).text
    images, instances, _ = write_coco(tmp_path / "coco", 3, objects=0)
    ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data")
    curate(str(tmp_path / "data"), CONFIG, HERE)
    assert page_of(Dataset(str(tmp_path / "data"))).count("figure", "tile") == 3


def test_a_unit_that_is_behind_is_said_to_be(dataset, made, tmp_path):
    copied = tmp_path / made.name
    shutil.copytree(made, copied)
    behind = Dataset(str(copied))
    behind.drop("select", behind.units()[0])
    found = figures(Dataset(str(copied)))
    assert found["stages"]["select"] == "partial"
    assert found["stages"]["group"] == "stale"
    columns = found["scores"]["objects"]["columns"]
    assert sum(columns["area_share"]["histogram"]["counts"]["undecided"]) > 0
    assert "Out of date: group" in page_of(Dataset(str(copied))).text


def test_linked_pictures_that_are_gone_or_changed_are_grey_tiles(tmp_path):
    dataset = build(tmp_path, link=True)
    assert page_of(dataset).count("div", "missing") == 0
    (tmp_path / "coco/val2017/000000000002.jpg").unlink()
    (tmp_path / "coco/val2017/000000000003.jpg").write_bytes(
        pictures.encode_jpeg(gradient(96, 80, 77)).ljust(1 << 16, b"\0")
    )
    page = page_of(Dataset(dataset.url))
    assert page.count("div", "missing") > 1
    assert "missing_file" in page.text
    assert "source_changed" in page.text
    shutil.rmtree(tmp_path / "videos")
    assert page_of(Dataset(dataset.url)).count("div", "missing") > 10


def test_a_page_of_folders_shows_every_member(tmp_path):
    for number in range(6):
        place = tmp_path / "subjects" / f"thing {number // 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(80, 80, number)))
    dataset = ingest(Subjects(directory=str(tmp_path / "subjects"), phrase_from_folder=True), tmp_path / "data")
    curate(dataset.url, CONFIG, HERE)
    page = page_of(Dataset(dataset.url))
    assert page.count("div", "group") == 2
    assert page.count("div", "n3") == 2
    assert page.count("div", "strip") == 1  # the bound on whole pictures
    assert page.count("article", "many") == 2
    assert figures(Dataset(dataset.url))["scores"]["wholes"]["rows"] == 6


def test_faces_are_shown_with_their_landmarks(tmp_path):
    dataset = build(tmp_path, until="measure")
    unit = dataset.units()[0]
    image_id = dataset.read("images", ["image_id"], unit=unit)["image_id"][0].as_py()
    crop = pictures.encode_jpeg(gradient(100, 100, 5))
    with UnitWriter(dataset.folder, UnitKey("face", unit, "x")) as out:
        out.expect("image", 1)
        nowhere = [float("nan")] * 2
        landmarks = [[20.0, 20.0], [40.0, 20.0], [30.0, 30.0], nowhere, nowhere]
        face = {"face_id": f"{image_id}@0", "image_id": image_id, "box": [10.0, 10.0, 50.0, 50.0], "det_score": 0.9}
        face |= {"landmarks": landmarks, "crop_box": [0.0, 0.0, 64.0, 64.0], "crop": {"bytes": crop, "path": "x.jpg"}}
        out.add("faces", face)
        out.keep("image")
    page = page_of(Dataset(dataset.url))
    marks = [one for name, one in page.elements if name == "circle" and one.get("r") == "2"]
    assert [(float(mark["cx"]), float(mark["cy"])) for mark in marks] == [(40, 40), (80, 40), (60, 60)]
    assert figures(Dataset(dataset.url))["scores"]["faces"]["columns"]["side_px"]["quantiles"][4] == 40


# -- pictures ------------------------------------------------------------------------------------------------------


def _corners(path: str) -> np.ndarray:
    """The points of an SVG path, (N, 2)."""
    return np.array([float(number) for number in re.findall(r"-?[\d.]+", path)]).reshape(-1, 2)


@pytest.mark.parametrize("box", [(20, 12, 60, 40), (0, 0, 30, 64), (97, 60, 100, 64)])
def test_the_outline_lies_on_the_edge_of_the_mask(box):
    x0, y0, x1, y1 = box
    shape = np.zeros((64, 100), np.uint8)
    shape[y0:y1, x0:x1] = 1
    view = view_of(around(box, 100, 64), 160)
    found = _corners(view.outline(masks.encode(shape), 64, 100))
    left, top, right, bottom = view.box(box)
    assert found.min(axis=0) == pytest.approx([left, top], abs=0.6)
    assert found.max(axis=0) == pytest.approx([right, bottom], abs=0.6)


def test_a_hole_is_outlined_too_and_a_mask_of_another_picture_is_not_drawn():
    shape = np.ones((64, 64), np.uint8)
    shape[20:40, 20:40] = 0
    view = View((0, 0, 64, 64), 128, 128)
    assert view.outline(masks.encode(shape), 64, 64).count("M") == 2
    assert view.outline(masks.encode(shape), 65, 64) == ""
    assert view.outline(None, 64, 64) == ""
    assert view.outline({"size": [64, 64], "counts": "broken"}, 64, 64) == ""


def test_the_outline_of_a_mask_of_crumbs_stays_short():
    crumbs = (np.random.default_rng(0).random((200, 200)) > 0.5).astype(np.uint8)
    path = View((0, 0, 200, 200), 160, 160).outline(masks.encode(crumbs), 200, 200)
    assert 0 < len(_corners(path)) <= 600


@pytest.mark.parametrize("box", [(0, 0, 3, 3), (10, 10, 300, 14), (0, 0, 480, 480), (-5, 470, 900, 600)])
def test_a_thumbnail_shows_its_box_is_not_a_stripe_and_stays_small(box):
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    region = around(box, 640, 480)
    x0, y0, x1, y1 = boxes.pad(box, 640, 480)
    assert region[0] <= x0 < x1 <= region[2]
    assert region[1] <= y0 < y1 <= region[3]
    drawn = cut(noise, view_of(region, 160))
    assert max(drawn.width, drawn.height) <= 160
    assert min(drawn.width, drawn.height) >= 40
    assert len(drawn.jpeg) <= 14_000
    assert pictures.decode(drawn.jpeg).shape == (drawn.height, drawn.width, 3)


def test_only_the_row_groups_that_hold_wanted_pictures_are_read(made, tmp_path, monkeypatch):
    copied = tmp_path / "data"
    shutil.copytree(made, copied)
    dataset = Dataset(str(copied))
    unit = next(unit for unit in dataset.units() if unit.startswith("ytvis"))
    (file,) = dataset.manifests("ingest")[unit].files_of("images")
    path = dataset.folder.at(file.path)
    rows = pq.read_table(path)
    pq.write_table(rows, path, row_group_size=1, compression="NONE")
    ids = rows["image_id"].to_pylist()
    places = pq.ParquetFile(path).metadata
    starts = {}
    for group in range(places.num_row_groups):
        columns = [places.row_group(group).column(index) for index in range(places.num_columns)]
        (bytes_column,) = [column for column in columns if column.path_in_schema == "image.bytes"]
        starts[ids[group]] = bytes_column.data_page_offset
    read: list[tuple[int, int]] = []
    plain = dataset.folder.open
    monkeypatch.setattr(dataset.folder, "open", lambda name: _Counting(plain(name), read))
    wanted = ids[3]
    (row,) = fetch(dataset, "images", {unit: {wanted, "not there"}}, ["image_id", "image"])
    assert row == {"image_id": wanted, "image": rows["image"][3].as_py()}

    def is_read(image_id: str) -> bool:
        return any(start <= starts[image_id] + 64 < end for start, end in read)

    assert [image_id for image_id in ids if is_read(image_id)] == [wanted]


class _Counting:
    """A file that notes the ranges that are read of it."""

    def __init__(self, file: Any, read: list[tuple[int, int]]) -> None:
        self._file, self._read = file, read

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data: bytes = self._file.read(size)
        self._read.append((start, start + len(data)))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Counting":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def test_the_command_prints_the_path_or_json(made, capsys, monkeypatch, tmp_path):
    import refloom

    run: Callable[[list[str]], int] = refloom.main
    out = tmp_path / "page.html"
    assert run(["report", str(made), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert Page(out.read_text("utf-8")).elements
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(made), "--out", "here.html"]) == 0
    assert (tmp_path / "here.html").is_file()
    capsys.readouterr()
    assert run(["report", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == made.name
