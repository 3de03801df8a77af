"""Subject folders: every picture a subject as a whole, every folder one group that no unit divides."""

import json
import os

import pytest
from drawing import gradient
from helpers import image_ids, ingest, ledger, object_ids

from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import pictures
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify


def write(path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pictures.encode_jpeg(gradient(40, 30, seed), 90))


def write_subjects(root, **counts: int):
    """Folders with so many pictures each; returns the root."""
    for number, (folder, count) in enumerate(counts.items()):
        for index in range(count):
            write(root / folder / f"{index:02d}.jpg", 10 * number + index)
    return root


def groups(dataset) -> dict[str, dict]:
    return {row["group_id"]: row for row in dataset.read("source_groups").to_pylist()}


def test_a_folder_is_a_group_of_whole_pictures(tmp_path):
    root = write_subjects(tmp_path / "set", dog6=2, cat=1)
    dataset = ingest(Subjects(directory=str(root)), tmp_path / "out")
    assert image_ids(dataset) == ["subjects/cat/00.jpg", "subjects/dog6/00.jpg", "subjects/dog6/01.jpg"]
    assert object_ids(dataset) == {f"{image}#whole" for image in image_ids(dataset)}
    row = dataset.read("objects").to_pylist()[0]
    assert (row["kind"], row["box"], row["category"], row["phrase"]) == ("whole", [0, 0, 40, 30], None, None)
    assert groups(dataset)["subjects/dog6"] == {
        "group_id": "subjects/dog6",
        "kind": "folder",
        "members": ["subjects/dog6/00.jpg", "subjects/dog6/01.jpg"],
        "target": None,
        "texts": None,
        "instructions": None,
        "scores": None,
        "source_json": None,
    }
    assert verify(dataset, decode_per_unit=-1).sound


def test_pictures_may_lie_deeper_in_their_folder(tmp_path):
    write(tmp_path / "set" / "dog" / "park" / "a.jpg")
    write(tmp_path / "set" / "dog" / "a.jpg", 1)
    dataset = ingest(Subjects(directory=str(tmp_path / "set")), tmp_path / "out")
    assert groups(dataset)["subjects/dog"]["members"] == ["subjects/dog/a.jpg", "subjects/dog/park/a.jpg"]


def test_categories_come_from_the_classes_section(tmp_path):
    root = write_subjects(tmp_path / "set", dog6=1, plushie=1, other=1)
    text = "Classes\n\nsubject_name,class\ndog6,dog\nplushie,stuffed animal\n\nPrompts\nother,'a {0} {1}'\n"
    (root / "prompts_and_classes.txt").write_text(text)
    source = Subjects(directory=str(root))
    rows = ingest(source, tmp_path / "out").read("objects").to_pylist()
    assert [row["category"] for row in rows] == ["dog", None, "stuffed animal"]
    assert source.plans()[0].notes == ()


def test_a_classes_file_without_its_section_is_noted(tmp_path):
    root = write_subjects(tmp_path / "set", dog=1)
    (root / "prompts_and_classes.txt").write_bytes(b"\xff\xfe nothing")
    assert "no line `subject_name,class`" in Subjects(directory=str(root)).plans()[0].notes[0]


@pytest.mark.parametrize(
    ("folder", "phrase"),
    [("duck_toy", "duck toy"), ("dog6", "dog"), ("lisa_007", "lisa"), ("007", None), ("r2_d2", "r2 d")],
)
def test_phrases_come_from_the_folder_only_when_asked(tmp_path, folder, phrase):
    root = str(write_subjects(tmp_path / "set", **{folder: 1}))
    plain = ingest(Subjects(directory=root), tmp_path / "plain")
    named = ingest(Subjects(directory=root, phrase_from_folder=True), tmp_path / "named")
    assert plain.read("objects")["phrase"].to_pylist() == [None]
    assert named.read("objects")["phrase"].to_pylist() == [phrase]


def test_what_is_no_subject_is_passed_over_with_a_note(tmp_path):
    root = write_subjects(tmp_path / "set", dog=1, _groups=2)
    write(root / ".cache" / "a.jpg")
    write(root / "loose.jpg")
    (root / "empty").mkdir()
    (root / "readme.txt").write_text("hello")
    (root / "dog" / "prompt.txt").write_text("hello")
    source = Subjects(directory=str(root))
    assert source.plans()[0].notes == (
        "folders that begin with _ or . were passed over: .cache, _groups",
        "folders without a picture were passed over: empty",
        "1 pictures lie in no subject's folder and were passed over",
        f"passed over in {root}, as no pictures: .txt 2",
    )
    assert image_ids(ingest(source, tmp_path / "out")) == ["subjects/dog/00.jpg"]


def test_a_folder_without_subjects_is_refused_with_a_remedy(tmp_path):
    write(tmp_path / "a.jpg")
    with pytest.raises(Refused, match="refloom ingest folder"):
        Subjects(directory=str(tmp_path)).plans()
    with pytest.raises(Refused, match="no folder with pictures"):
        Subjects(directory=str(tmp_path / "absent")).plans()


def test_units_hold_whole_folders(tmp_path):
    root = write_subjects(tmp_path / "set", a=3, b=1, c=4, d=2)
    source = Subjects(directory=str(root), unit_size=4)
    units = source.plans()[0].units
    folders = [[entry["folder"] for entry in json.loads(unit.payload)] for unit in units]
    assert folders == [["a", "b"], ["c"], ["d"]]
    assert [unit.items["image"] for unit in units] == [4, 4, 2]
    many = ingest(source, tmp_path / "many")
    one = ingest(Subjects(directory=str(root)), tmp_path / "one")
    assert len(many.units()) == 3
    assert groups(many) == groups(one)
    assert verify(many).sound


def test_a_folder_larger_than_a_unit_stays_whole(tmp_path):
    root = write_subjects(tmp_path / "set", a=5, b=1)
    (plan,) = Subjects(directory=str(root), unit_size=2).plans()
    assert [unit.items["image"] for unit in plan.units] == [5, 1]


def test_the_limit_counts_pictures_and_groups_hold_what_is_taken(tmp_path):
    root = write_subjects(tmp_path / "set", a=2, b=2, c=2)
    dataset = ingest(Subjects(directory=str(root), limit=3), tmp_path / "out")
    assert len(image_ids(dataset)) == 3
    assert {key: len(row["members"]) for key, row in groups(dataset).items()} == {"subjects/a": 2, "subjects/b": 1}


def test_a_bad_picture_costs_itself(tmp_path):
    root = write_subjects(tmp_path / "set", a=2)
    (root / "a" / "00.jpg").write_bytes(b"<html>404</html>")
    (root / "a" / "02.jpg").symlink_to("nowhere")
    dataset = ingest(Subjects(directory=str(root)), tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "subjects/a/00.jpg", 0): "not_an_image",
        ("whole", "subjects/a/00.jpg#whole", 0): "image_rejected",
        ("image", "subjects/a/02.jpg", 0): "missing_file",
        ("whole", "subjects/a/02.jpg#whole", 0): "image_failed",
    }
    counts = dataset.counts("ingest")["image"]
    assert (counts.input, counts.kept, counts.balanced) == (3, 1, True)
    assert verify(dataset).sound


def test_names_that_are_one_in_unicode_are_taken_once(tmp_path):
    write(tmp_path / "set" / "caf\u00e9" / "a.jpg")
    write(tmp_path / "set" / "cafe\u0301" / "a.jpg", 1)
    write(tmp_path / "set" / "cafe\u0301" / "b.jpg", 2)
    dataset = ingest(Subjects(directory=str(tmp_path / "set")), tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "subjects/caf\u00e9/a.jpg", 1): "duplicate",
        ("whole", "subjects/caf\u00e9/a.jpg#whole", 1): "image_rejected",
        ("group", "subjects/caf\u00e9", 0): "duplicate",
    }
    assert verify(dataset).sound


@pytest.mark.parametrize("link", [False, True])
def test_names_that_are_no_text_are_taken_and_encoded(tmp_path, link):
    folder = os.fsencode(tmp_path) + b"/set/b\xffd#1"
    os.makedirs(folder)
    with open(folder + b"/a\xfe.jpg", "wb") as file:
        file.write(pictures.encode_jpeg(gradient(40, 30), 90))
    source = Subjects(directory=str(tmp_path / "set"), phrase_from_folder=True)
    dataset = ingest(source, tmp_path / "out", link=link)
    row = dataset.read("images").to_pylist()[0]
    assert row["image_id"] == "subjects/b%FFd%231/a%FE.jpg"
    assert row["image"]["path"] == row["image_id"].removeprefix("subjects/")  # no table can hold a link to it
    assert dataset.read("objects")["phrase"].to_pylist() == [None]
    assert verify(dataset).sound


def test_links_point_at_the_pictures(tmp_path):
    root = write_subjects(tmp_path / "set", dog=1)
    dataset = ingest(Subjects(directory=str(root)), tmp_path / "out", link=True)
    row = dataset.read("images").to_pylist()[0]
    assert (row["image"], row["link"]["file"]) == (None, "dog/00.jpg")
    assert dataset.picture(row) == (root / "dog" / "00.jpg").read_bytes()


def test_the_identity_of_a_unit_changes_with_its_input(tmp_path):
    root = write_subjects(tmp_path / "set", a=1, b=1)
    source = Subjects(directory=str(root), unit_size=1)
    first, second = (unit.identity for unit in source.plans()[0].units)
    write(root / "b" / "01.jpg")
    assert source.plans()[0].units[0].identity == first
    assert source.plans()[0].units[1].identity != second
    (root / "prompts_and_classes.txt").write_text("subject_name,class\na,dog\n")
    assert source.plans()[0].units[0].identity != first


@pytest.mark.shared
def test_dreambooth_has_its_classes(tmp_path, shared):
    dataset = ingest(Subjects(directory=str(shared / "subjects" / "dreambooth")), tmp_path / "out")
    assert len(image_ids(dataset)) == 38
    assert len(groups(dataset)) == 8
    categories = {row["object_id"].split("/")[1]: row["category"] for row in dataset.read("objects").to_pylist()}
    assert categories["dog6"] == "dog"
    assert categories["duck_toy"] == categories["poop_emoji"] == "toy"
    assert not ledger(dataset)
    assert verify(dataset).sound


@pytest.mark.shared
def test_faces_are_the_identities_of_the_ground_truth(tmp_path, shared):
    dataset = ingest(Subjects(directory=str(shared / "faces"), phrase_from_folder=True), tmp_path / "out")
    truth = [group for group in json.loads((shared / "groups.json").read_text()) if "faces/" in group["files"][0]]
    expected = {
        frozenset(name.replace("faces/", "subjects/", 1) for name in group["files"] if "/_groups/" not in name)
        for group in truth
    }
    assert {frozenset(row["members"]) for row in groups(dataset).values()} == {files for files in expected if files}
    assert len(image_ids(dataset)) == 32
