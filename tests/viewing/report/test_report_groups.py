"""Groups and duplicates in a report: members wherever they lie, faces on no object, pairs of what goes and stays."""

from typing import Any

import pytest
from drawing import gradient
from reporting import Page, build, commit, group, ids, page_of

from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.viewing.report import figures
from refloom.viewing.report.picks import PAIRS, choose
from refloom.viewing.report.survey import survey
from refloom.viewing.rows import fetch, search_order


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Measured; two units of COCO and one of videos, whose objects have masks."""
    return build(tmp_path, until="measure")


def with_face(dataset: Dataset, unit: str) -> tuple[Dataset, str]:
    """A face on no object, on the first picture of a unit."""
    image_id = ids(dataset, "images", unit)[0]
    crop = {"bytes": pictures.encode_jpeg(gradient(100, 100, 5)), "path": "x.jpg"}
    face = {"face_id": f"{image_id}@0", "image_id": image_id, "box": [10.0, 10.0, 50.0, 50.0], "det_score": 0.9}
    face |= {"landmarks": [[20.0, 20.0]] * 5, "crop_box": [0.0, 0.0, 64.0, 64.0], "crop": crop}
    return commit(dataset, "face", "faces", "image", {unit: [face]}), str(face["face_id"])


def headings(page: Page) -> list[str]:
    return [word for word in page.words if word in ("Tracks", "Identities", "Looks", "Folders")]


@pytest.mark.parametrize("says_units", [True, False])
def test_groups_of_every_kind_show_members_of_other_units_and_faces_on_no_object(dataset, says_units):
    first, second, videos = sorted(dataset.units())
    assert videos.startswith("ytvis")
    dataset, face_id = with_face(dataset, second)
    here, there, far = (ids(dataset, "objects", unit) for unit in (first, second, videos))
    units = {"units": [second, videos]} if says_units else {}
    rows = [
        group("identity", [here[0], face_id], **units),
        group("look", [here[1], there[0], far[0]], **units),
        group("folder", here[2:4]),
        group("track", far[:2]) | {"group_id": "track/ytvis/v#1"},
    ]
    dataset = commit(dataset, "group", "groups", "group", {first: rows[:3], videos: rows[3:]})
    page = page_of(dataset)
    assert headings(page) == ["Tracks", "Identities", "Looks", "Folders"]
    assert page.count("div", "group") == 4
    assert page.count("div", "missing") == 0
    assert {*rows[0]["members"], *rows[1]["members"]} <= set(page.titles().split("\n"))
    assert "face" in page.words  # the badge of its tile
    assert "coco and ytvis" in page.text  # where the look comes from
    marks = [one for name, one in page.elements if name == "circle" and one.get("r") == "2"]
    assert len(marks) == 10  # five landmarks among the faces, five among the groups


def test_a_member_that_nobody_has_is_a_grey_tile(dataset):
    first, *_ = sorted(dataset.units())
    rows = [group("look", [ids(dataset, "objects", first)[0], "coco/gone#1", "coco/gone@0"])]
    page = page_of(commit(dataset, "group", "groups", "group", {first: rows}))
    assert page.count("div", "missing") == 2
    assert headings(page) == ["Looks"]


def test_units_are_searched_from_the_likely_to_the_unlikely(dataset):
    first, second, videos = sorted(dataset.units())
    assert search_order(dataset, [second]) == [second, first, videos]
    assert search_order(dataset, [videos, "gone", videos]) == [videos, first, second]
    assert search_order(dataset, []) == [first, second, videos]


def test_columns_that_older_files_lack_are_none(dataset):
    first, *_ = sorted(dataset.units())
    name = ids(dataset, "images", first)[0]
    (row,) = fetch(dataset, "images", {first: {name}}, ["image_id", "not_yet"])
    assert row == {"image_id": name, "not_yet": None}


# -- duplicates ----------------------------------------------------------------------------------------------------


def copy(name: str, of: str, by: str, similarity: float | None) -> dict[str, Any]:
    kind = "object" if "#" in name else "image"
    return {"id": name, "kind": kind, "of": of, "by": by, "similarity": similarity}


def test_pairs_show_what_goes_and_what_stays_by_what_and_how_alike(dataset):
    first, second, videos = sorted(dataset.units())
    images, objects = ids(dataset, "images", first), ids(dataset, "objects", first)
    rows = [
        copy(images[0], ids(dataset, "images", second)[0], "phash", 0.953125),
        copy(images[1], ids(dataset, "images", videos)[0], "bytes", None),
        copy(images[2], "their/photo.jpg", "leak", 0.96875),
        copy(objects[0], ids(dataset, "objects", videos)[0], "embedding", 0.97),
        copy(objects[1], ids(dataset, "images", second)[1], "phash", 0.984375),  # it goes with its picture
    ]
    dataset = commit(dataset, "dedup", "duplicates", "image", {first: rows})
    assert figures(dataset)["duplicates"] == [
        {"kind": "image", "by": "bytes", "copies": 1},
        {"kind": "image", "by": "leak", "copies": 1},
        {"kind": "image", "by": "phash", "copies": 1},
        {"kind": "object", "by": "embedding", "copies": 1},
        {"kind": "object", "by": "phash", "copies": 1},
    ]
    page = page_of(dataset)
    assert page.count("div", "pair") == 5
    assert [page.words.count(word) for word in ("goes", "stays", "evaluation")] == [5, 4, 1]
    for said in (
        "5 copies go",
        "by phash · similarity 0.953",
        "by embedding · similarity 0.970",
        "Objects by embedding",
    ):
        assert said in page.text
    assert "by bytes" in page.words  # and no similarity
    assert "96×80" in page.words
    assert page.count("div", "missing") == 1
    assert "in the evaluation set" in page.text
    shown = page.titles().split("\n")
    assert all(row[side] in shown for row in rows for side in ("id", "of"))


def test_pairs_are_few_and_every_way_of_being_a_copy_is_among_them(dataset):
    first, *_ = sorted(dataset.units())
    images, objects = ids(dataset, "images", first), ids(dataset, "objects", first)
    rows = [copy(f"{images[0]}#{n}", objects[0], "embedding", 0.9 + n / 1000) for n in range(60)]
    rows += [copy(images[0], images[1], "bytes", None)]
    dataset = commit(dataset, "dedup", "duplicates", "image", {first: rows})
    pairs = choose(survey(dataset), None).pairs
    assert len(pairs) == PAIRS
    assert [row["by"] for row in pairs] == ["bytes", *["embedding"] * (PAIRS - 1)]
    alike = [row["similarity"] for row in pairs[1:]]
    assert alike == sorted(alike)
    assert (alike[0], alike[-1]) == pytest.approx((0.9, 0.959))


@pytest.mark.parametrize("is_done", [False, True])
def test_without_duplicates_there_is_no_section(dataset, is_done):
    if is_done:
        dataset = commit(dataset, "dedup", "duplicates", "image", {})
    assert figures(dataset)["duplicates"] == []
    page = page_of(dataset)
    assert "duplicates" not in {one.get("id") for _, one in page.elements}
    assert "Duplicates" not in page.words
