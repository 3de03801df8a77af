"""Where nearly all of a kind goes for one reason the console says which, with the first of them and what to do."""

import json
import re

import pytest
from helpers import HERE, ingest, write_coco, write_tar

from refloom.cli.arguments import build_parser
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import losses
from refloom.ingest.sources.coco import Coco
from refloom.schemas.hints import HINTS
from refloom.schemas.manifest import Counts
from refloom.schemas.reasons import FAILED, REJECTED


@pytest.fixture
def tree(tmp_path):
    return write_coco(tmp_path / "coco", 5)


def change(tree, edit) -> list[object]:
    """Arguments for `refloom ingest` of the changed tree."""
    document = json.loads(tree[1].read_text())
    edit(document)
    tree[1].write_text(json.dumps(document))
    return ["ingest", "coco", "--images", tree[0], "--instances", tree[1], "--workers", "0"]


def test_every_reason_has_a_hint():
    assert HINTS.keys() == REJECTED.keys() | FAILED.keys()
    for hint in HINTS.values():
        assert hint == hint.strip()
        assert not hint.endswith(".")


def test_hints_name_options_that_there_are():
    source = ["ingest", "coco", "--images", "i", "--instances", "j", "--out", "o"]
    assert build_parser().parse_args([*source, "--crowds", "keep"]).crowds == "keep"
    assert "--crowds keep" in HINTS["crowd"]
    known = build_parser().parse_args(source)
    for option in set(re.findall(r"--([a-z-]+)", " ".join(HINTS.values()))) - {"help"}:
        assert hasattr(known, option.replace("-", "_")), option


@pytest.mark.parametrize(("spoiled", "is_said"), [(10, True), (9, True), (8, False)])
def test_nine_tenths_of_one_reason_are_said_with_the_first_detail_and_a_hint(tree, tmp_path, call, spoiled, is_said):
    def edit(document):
        for annotation in document["annotations"][:spoiled]:
            annotation["bbox"] = [5, 5, 900, 900]

    arguments = change(tree, edit)
    for _ in range(2):  # a re-run says it too
        code, out, _ = call(*arguments, "--out", tmp_path / "out")
        assert code == 0  # pictures were kept, and rejected rows are no error
        line = next((line for line in out.splitlines() if "items `annotation`" in line), "")
        assert bool(line) == is_said
        if is_said:
            share = {10: "100 %", 9: "90.0 %"}[spoiled]
            assert f"{share} of the items `annotation` ({spoiled}) were rejected: bad_box" in line
            assert "first coco/000000000001#10: box [5, 5, 900, 900] in a frame of 64x48. Boxes are x, y" in line


def test_what_follows_from_pictures_is_said_after_them(tree, tmp_path, call):
    for path in tree[0].iterdir():
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, out, err = call(*change(tree, lambda document: None), "--out", tmp_path / "out")
    lines = [line.strip() for line in out.splitlines() if "of the items" in line]
    assert lines[0].startswith("100 % of the items `image` (5) were rejected: not_an_image, first coco/000000000001")
    assert "Git LFS pointers" in lines[0]
    assert lines[1].startswith("100 % of the items `annotation` (10) were rejected: image_rejected. What became")
    assert code == 1
    assert "nothing was kept: none of 5 pictures" in err


def test_nothing_kept_is_exit_1_on_a_re_run_too(tree, tmp_path, call):
    for path in tree[0].iterdir():
        path.write_bytes(b"no picture")
    arguments = [*change(tree, lambda document: None), "--out", tmp_path / "out"]
    assert [call(*arguments).code for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("source", ["sa1b", "folder"])
def test_a_tar_without_a_picture_is_exit_1_or_refused(tmp_path, call, source):
    path = write_tar(tmp_path / "x.tar", [("notes.txt", b"x")])
    code, _, err = call("ingest", source, path, "--out", tmp_path / "out", "--workers", "0")
    assert (code, "nothing was kept: no pictures" in err) == ((1, True) if source == "sa1b" else (2, False))


def test_what_failed_is_said_as_failed(tree, tmp_path, call):
    def edit(document):
        for image in document["images"][1:]:
            image["file_name"] = "gone/" + image["file_name"]
        document["images"] += [{**document["images"][-1], "id": 100 + number} for number in range(5)]
        for number, image in enumerate(document["images"][5:]):
            image["file_name"] = f"gone/{number}.jpg"

    code, out, _ = call(*change(tree, edit), "--out", tmp_path / "out")
    assert code == 1
    assert "90.0 % of the items `image` (9) failed: missing_file, first coco/000000000002: gone/" in out
    assert "give the folder that their names are relative to" in out.lower()


def test_a_detail_from_a_stranger_stays_on_one_short_line(tree, tmp_path, call):
    def edit(document):
        for annotation in document["annotations"]:
            annotation["category_id"] = "\x1b[31m\nrefloom: all is well\n" + "x" * 500

    _, out, _ = call(*change(tree, edit), "--out", tmp_path / "out")
    (line,) = [line for line in out.splitlines() if "unknown_category, first" in line]
    assert "\x1b" not in line
    assert not any(line.startswith("refloom: all is well") for line in out.splitlines())
    assert len(line) < 500


def test_curation_that_makes_no_sample_is_exit_1(tree, tmp_path, call):
    dataset = ingest(Coco(images=str(tree[0]), instances=str(tree[1])), tmp_path / "out")
    options = ["curate", dataset.url, "--workers", "0", "--set", "models.face=none"]
    options += [
        "--set",
        "models.image_embedding=none",
        "--set",
        "models.classifier=none",
        "--set",
        "select.min_area_share=0.9",
    ]
    for _ in range(2):
        code, _, err = call(*options)
        assert code == 1
        assert "no sample was made" in err
    assert call("curate", dataset.url, "--workers", "0", "--until", "measure").code == 0


def test_counts_without_items_say_nothing():
    counts = {"image": Counts(input=3, kept=3)}
    assert losses.nothing_kept(counts) is None
    assert losses.nothing_kept({}) == "nothing was kept: no pictures"


def test_the_hint_is_said_of_stages_too(tree, tmp_path, call):
    dataset = ingest(Coco(images=str(tree[0]), instances=str(tree[1])), tmp_path / "out", link=True)
    for path in tree[0].iterdir():
        path.write_bytes(path.read_bytes()[:-2] + b"xx")
    curate(dataset.url, Curation(), HERE, until="measure")
    _, out, _ = call("status", dataset.url)
    assert "100 % of the items `image` (5) failed: source_changed, first coco/000000000001" in out
