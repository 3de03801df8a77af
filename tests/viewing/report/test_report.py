"""The page of a report: it says every number, is sound HTML in every state, and loads nothing."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from drawing import gradient
from helpers import HERE, ingest, write_coco
from reporting import CONFIG, Page, build, page_of

from refloom.curation.job import curate
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import pictures
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.pages.markup import Html, escape, tag
from refloom.schemas.reasons import REJECTED
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.viewing.report import figures, write_page
from refloom.viewing.report.funnel import funnel
from refloom.viewing.report.samplesheet import marked


def test_the_page_says_every_reason_and_count(dataset, page):
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


def test_kept_and_rejected_objects_faces_groups_and_samples_are_shown(dataset, page):
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


def test_the_page_loads_nothing_and_names_no_other_place(page):
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/jpeg;base64,")), value
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|https?:", "".join(page.styles + page.scripts))
    assert {name for name, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "base", "form", "link"})


def test_only_the_pages_own_style_and_script_may_run(page):
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


def test_a_word_that_several_subjects_claim_has_the_colour_of_none_and_names_them():
    men = [(0, 3, 0), (0, 3, 1), (0, 3, 1), (4, 7, 2)]
    assert marked("men and", men) == (
        '<mark class="shared" title="subjects 1 and 2">men</mark> <mark class="s2">and</mark>'
    )


def test_what_is_no_loss_is_not_drawn_as_one():
    counts = {
        "input": 10,
        "kept": 2,
        "rejected": {"no_face": 4, "faces_blurred": 2, "too_small": 1},
        "failed": {"io_error": 1},
    }
    found = {"funnel": {"face": {"image": counts}}, "examples": {}}
    page = Page(funnel(found))
    drawn = [(one["class"] or "").split()[0] for name, one in page.elements if name == "rect"]
    assert drawn == ["kept", "rejected", "neutral", "neutral", "failed"]
    assert page.count("i", "neutral") == 3  # two chips and the legend
    assert "no loss" in page.text
    counts["rejected"] = {"too_small": 7}
    page = Page(funnel(found))
    assert page.count("i", "neutral") == 0
    assert "no loss" not in page.text


def test_a_missed_person_is_drawn_as_a_loss():
    counts = {"input": 9, "kept": 2, "rejected": {"no_face": 4, "no_face_of_person": 3}, "failed": {}}
    page = Page(funnel({"funnel": {"face": {"image": counts}}, "examples": {}}))
    drawn = [(one["class"] or "").split()[0] for name, one in page.elements if name == "rect"]
    assert drawn == ["kept", "rejected", "neutral"]


def test_whole_pictures_are_not_counted_as_annotated_objects(tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 2, objects=3, size=(96, 80))
    ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data")
    place = tmp_path / "subjects" / "thing"
    place.mkdir(parents=True)
    for number in range(3):
        (place / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(80, 80, number)))
    dataset = ingest(Subjects(directory=str(tmp_path / "subjects")), tmp_path / "data")
    curate(dataset.url, CONFIG, HERE, until="select")
    totals = figures(Dataset(dataset.url))["totals"]
    names = ("objects", "annotated_objects", "whole_pictures", "found_objects")
    assert [totals[name] for name in names] == [9, 6, 3, 0]
    page = page_of(Dataset(dataset.url))
    assert "with 6 annotated objects and 3 whole pictures as subjects;" in page.text
    assert "annotated in the source, and 3 whole pictures" in page.text


def test_a_dataset_in_any_state_has_a_page(tmp_path):
    dataset = build(tmp_path, until="ingest")
    for until in ("ingest", "measure", "quality", "select", "group", "split", "compose"):
        if until != "ingest":
            curate(dataset.url, CONFIG, HERE, until=until)
        page, found = page_of(Dataset(dataset.url)), figures(Dataset(dataset.url))
        assert (found["totals"]["samples"] is None) == (until != "compose"), until
        assert (found["totals"]["kept_objects"] is None) == (until in ("ingest", "measure", "quality")), until
        assert page.count("figure", "tile") > 10, until
        anchors = [attributes["href"] for name, attributes in page.elements if name == "a"]
        ids = {attributes.get("id") for _, attributes in page.elements}
        assert {anchor[1:] for anchor in anchors} <= ids, until


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
    assert "Out of date: match, group" in page_of(Dataset(str(copied))).text


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


def test_the_command_prints_the_path_or_json(made, capsys, monkeypatch, tmp_path):
    from refloom import cli

    run: Callable[[list[str]], int] = cli.main
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
