"""EasyRef json: shared pictures come once, records become groups, faces become objects, a bad record costs itself."""

import json

import pytest
from drawing import gradient
from helpers import image_ids, ingest, ledger

from refloom.ingest.sources.easyref import EasyRef
from refloom.schemas import pictures
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify

SOUND = {"target": "a.jpg", "text": "a cat", "image_file": ["b.jpg"]}


def source(root, records, names=("a.jpg", "b.jpg", "c.jpg", "d/e.jpg"), **more) -> EasyRef:
    """The records beside small pictures of these names."""
    for seed, name in enumerate(names):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures.encode_jpeg(gradient(60, 40, seed), 90))
    path = root / "set.json"
    path.write_text(json.dumps(records))
    return EasyRef(records=str(path), images=str(root / "images"), **more)


def groups(dataset) -> dict[str, dict]:
    return {row["group_id"]: row for row in dataset.read("source_groups").to_pylist()}


def captions(dataset) -> dict[str, list[str]]:
    return {row["image_id"]: row["captions"] for row in dataset.read("images", ["image_id", "captions"]).to_pylist()}


def test_records_are_groups_of_shared_pictures(tmp_path):
    records = [
        {"target": "b.jpg", "text": "a cat", "image_file": ["./a.jpg", "d/e.jpg"]},
        {"target": "a.jpg", "text": ["two", "cats"], "image_file": ["a.jpg", "b.jpg"]},
        {"target": "c.jpg", "text": [], "image_file": "b.jpg"},
    ]
    dataset = ingest(source(tmp_path, records), tmp_path / "out")
    assert image_ids(dataset) == ["easyref/b.jpg", "easyref/a.jpg", "easyref/d/e.jpg", "easyref/c.jpg"]
    found = groups(dataset)
    assert found["easyref/set#0"] == {
        "group_id": "easyref/set#0",
        "kind": "record",
        "members": ["easyref/a.jpg", "easyref/d/e.jpg", "easyref/b.jpg"],
        "target": "easyref/b.jpg",
        "texts": ["a cat"],
        "instructions": None,
        "scores": None,
        "source_json": None,
    }
    assert found["easyref/set#1"]["members"] == ["easyref/a.jpg", "easyref/b.jpg"]  # the target is among them
    assert (found["easyref/set#1"]["texts"], found["easyref/set#2"]["texts"]) == (["two", "cats"], [])
    assert captions(dataset)["easyref/a.jpg"] == ["two", "cats"]
    assert {row["kind"] for row in dataset.read("objects").to_pylist()} == {"whole"}
    assert not ledger(dataset)
    assert verify(dataset, decode_per_unit=-1).sound


def test_a_text_that_records_repeat_is_one_caption_of_its_target(tmp_path):
    records = [
        SOUND,
        SOUND | {"text": ["a cat ", "a dog"], "image_file": ["c.jpg"]},
        SOUND | {"target": "b.jpg"},
        SOUND | {"text": ["", 7, "a cow"]},
    ]
    dataset = ingest(source(tmp_path, records), tmp_path / "out")
    assert captions(dataset)["easyref/a.jpg"] == ["a cat", "a dog", "a cow"]
    assert captions(dataset)["easyref/b.jpg"] == ["a cat"]
    assert sorted(ledger(dataset).values()) == ["bad_text", "bad_text"]
    counts = dataset.counts("ingest")["caption"]
    assert (counts.input, counts.kept) == (6, 4)
    assert groups(dataset)["easyref/set#3"]["texts"] == ["a cow"]


@pytest.mark.parametrize(
    "face",
    [
        [[5, 6, 25.5, 30, 0.9], [30, 6, 50, 30, 0.8]],
        [[[5, 6, 25.5, 30, 0.9], [30, 6, 50, 30, 0.8]]],
        [[[5, 6, 25.5, 30, 0.9]], [[30, 6, 50, 30, 0.8]]],
        [[[5, 6, 25.5, 30, 0.9]], [30, 6, 50, 30, 0.8]],
    ],
    ids=["loader", "readme", "one a list", "mixed"],
)
def test_faces_of_both_nestings_are_objects_on_the_target(tmp_path, face):
    dataset = ingest(source(tmp_path, [{"target": "a.jpg", "text": "me", "face": face}]), tmp_path / "out")
    rows = {row["object_id"]: row for row in dataset.read("objects").to_pylist()}
    assert set(rows) == {"easyref/a.jpg#whole", "easyref/a.jpg#face0", "easyref/a.jpg#face1"}
    row = rows["easyref/a.jpg#face0"]
    assert (row["kind"], row["box"], row["mask"]) == ("face", [5, 6, 25.5, 30], None)
    assert row["confidence"] == pytest.approx(0.9)
    assert groups(dataset)["easyref/set#0"]["members"] == ["easyref/a.jpg"]
    assert verify(dataset).sound


def test_a_face_that_records_repeat_is_one_object(tmp_path):
    record = {"target": "a.jpg", "text": "me", "face": [[5, 6, 25, 30, 0.9]]}
    other = record | {"face": [[1, 1, 9, 9], [5, 6, 25, 30, 0.9]]}
    dataset = ingest(source(tmp_path, [record, other]), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "easyref/a.jpg#face0", 1): "duplicate"}
    assert dataset.counts("ingest")["annotation"].kept == 2
    assert verify(dataset).sound


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([5, 6, 25], "bad_box"),
        ([5, 6, "25", 30, 0.9], "bad_box"),
        ([5, 6, 25, 80, 0.9], "bad_box"),
        ([25, 6, 5, 30, 0.9], "bad_box"),
        ([5, 6, 25, 10**400, 0.9], "bad_box"),
        ([5, 6, 25, 30, "sure"], "bad_record"),
        ([5, 6, 25, 30, float("nan")], "bad_record"),
        ([5, 6, 25, 30, 2**60], "bad_record"),
        ([5, 6, 25, 30, 1e60], "bad_record"),
        ([5, 6, 25, 30, True], "bad_record"),
    ],
)
def test_a_bad_face_costs_itself(tmp_path, box, reason):
    record = {"target": "a.jpg", "text": "me", "face": [box, [1, 1, 9, 9, 1]]}
    dataset = ingest(source(tmp_path, [record]), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "easyref/a.jpg#face0", 0): reason}
    assert dataset.counts("ingest")["annotation"].kept == 1
    assert len(groups(dataset)) == 1


@pytest.mark.parametrize(
    "record",
    [
        "a.jpg",
        None,
        [],
        {},
        {"text": "x", "image_file": ["b.jpg"]},
        SOUND | {"target": 5},
        SOUND | {"target": ""},
        SOUND | {"target": ["a.jpg"]},
        SOUND | {"target": "../a.jpg"},
        SOUND | {"target": "/etc/passwd"},
        SOUND | {"target": "https://example.org/a.jpg"},
        SOUND | {"target": "\ud800.jpg"},
        SOUND | {"text": 5},
        SOUND | {"text": {"en": "x"}},
        SOUND | {"image_file": 5},
        SOUND | {"image_file": ["b.jpg", None]},
        SOUND | {"image_file": ["b.jpg", "../x.jpg"]},
        {"target": "a.jpg", "text": "x"},
        {"target": "a.jpg", "text": "x", "face": []},
        {"target": "a.jpg", "text": "x", "face": [[]]},
        {"target": "a.jpg", "text": "x", "face": [[[]]]},
        {"target": "a.jpg", "text": "x", "face": [[[[5, 6, 25, 30, 0.9]]]]},
        {"target": "a.jpg", "text": "x", "face": [5, 6, 25, 30, 0.9]},
        {"target": "a.jpg", "text": "x", "face": "5 6 25 30"},
        {"target": "a.jpg", "text": "x", "face": {"box": [5, 6, 25, 30]}},
        {"target": "a.jpg", "text": "x", "face": [None]},
        {"target": "a.jpg", "text": "x", "face": [[5, 6, [25], 30]]},
    ],
    ids=repr,
)
def test_a_bad_record_costs_itself(tmp_path, record):
    good = {"target": "c.jpg", "text": "a dog", "image_file": ["d/e.jpg"]}
    dataset = ingest(source(tmp_path, [good, record, good]), tmp_path / "out")
    assert ledger(dataset) == {("group", "easyref/set#1", 0): "bad_record"}
    assert image_ids(dataset) == ["easyref/c.jpg", "easyref/d/e.jpg"]
    assert set(groups(dataset)) == {"easyref/set#0", "easyref/set#2"}
    assert verify(dataset).sound


def test_an_unsafe_path_says_so_in_the_ledger(tmp_path):
    dataset = ingest(source(tmp_path, [SOUND, SOUND | {"target": "../a.jpg"}]), tmp_path / "out")
    (row,) = dataset.ledger("ingest").to_pylist()
    assert "does not lie in the source's folder" in row["detail"]


def test_a_missing_picture_costs_itself_with_its_text_and_faces(tmp_path):
    record = {"target": "gone.jpg", "text": "me", "image_file": ["b.jpg"], "face": [[5, 6, 25, 30, 0.9]]}
    dataset = ingest(source(tmp_path, [SOUND, record]), tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "easyref/gone.jpg", 0): "missing_file",
        ("whole", "easyref/gone.jpg#whole", 0): "image_failed",
        ("annotation", "easyref/gone.jpg#face0", 0): "image_failed",
        ("caption", "easyref/gone.jpg#caption0", 0): "image_failed",
    }
    assert image_ids(dataset) == ["easyref/a.jpg", "easyref/b.jpg"]
    assert verify(dataset).sound


def test_a_picture_that_was_missing_is_taken_by_retry_failed(tmp_path):
    made = source(tmp_path, [SOUND | {"image_file": ["late.jpg"]}])
    assert image_ids(ingest(made, tmp_path / "out")) == ["easyref/a.jpg"]
    (tmp_path / "images" / "late.jpg").write_bytes(pictures.encode_jpeg(gradient(60, 40), 90))
    with pytest.raises(Refused, match="--replace"):
        ingest(made, tmp_path / "out")
    dataset = ingest(made, tmp_path / "out", retry_failed=True)
    assert image_ids(dataset) == ["easyref/a.jpg", "easyref/late.jpg"]
    assert not ledger(dataset)


def test_paths_that_are_one_in_unicode_are_one_id(tmp_path):
    names = ("caf\u00e9.jpg", "cafe\u0301.jpg")
    record = {"target": names[0], "text": "x", "image_file": [names[1]]}
    dataset = ingest(source(tmp_path, [record], names), tmp_path / "out")
    assert image_ids(dataset) == ["easyref/caf\u00e9.jpg"]
    assert ledger(dataset)["image", "easyref/caf\u00e9.jpg", 1] == "duplicate"
    assert groups(dataset)["easyref/set#0"]["members"] == ["easyref/caf\u00e9.jpg"]


def test_a_group_is_in_the_unit_of_its_target(tmp_path):
    records = [
        {"target": "a.jpg", "text": "1", "image_file": ["b.jpg", "c.jpg"]},
        {"target": "c.jpg", "text": "2", "image_file": ["a.jpg"]},
        {"target": "d/e.jpg", "text": "3", "image_file": ["a.jpg"]},
        "bad",
    ]
    dataset = ingest(source(tmp_path, records, unit_size=2), tmp_path / "out")
    first, second = dataset.units()
    assert [len(dataset.read("images", ["image_id"], unit=unit)) for unit in (first, second)] == [2, 2]
    in_unit = [
        dataset.read("source_groups", ["group_id"], unit=unit)["group_id"].to_pylist() for unit in (first, second)
    ]
    assert in_unit == [["easyref/set#0"], ["easyref/set#1", "easyref/set#2"]]
    whole = ingest(source(tmp_path, records), tmp_path / "whole")
    assert groups(whole) == groups(dataset)
    assert image_ids(whole) == image_ids(dataset)
    assert ledger(whole) == ledger(dataset)
    assert verify(dataset).sound


def test_the_limit_keeps_groups_to_the_pictures_that_are_taken(tmp_path):
    records = [{"target": "a.jpg", "text": "1", "image_file": ["b.jpg", "c.jpg"]}, SOUND | {"target": "c.jpg"}]
    dataset = ingest(source(tmp_path, records, limit=2), tmp_path / "out")
    assert image_ids(dataset) == ["easyref/a.jpg", "easyref/b.jpg"]
    assert {key: row["members"] for key, row in groups(dataset).items()} == {
        "easyref/set#0": ["easyref/b.jpg", "easyref/a.jpg"]
    }
    assert verify(dataset).sound


def test_records_that_are_all_bad_leave_a_ledger(tmp_path):
    dataset = ingest(source(tmp_path, ["bad", {}]), tmp_path / "out")
    assert sorted(ledger(dataset).values()) == ["bad_record", "bad_record"]
    assert verify(dataset).sound


@pytest.mark.parametrize("document", [{"target": "a.jpg"}, [], "text"])
def test_what_is_no_list_of_records_is_refused(tmp_path, document):
    with pytest.raises(Refused, match="not a list of records"):
        source(tmp_path, document).plans()


def test_pictures_that_are_elsewhere_are_refused(tmp_path):
    with pytest.raises(Refused, match="--images"):
        source(tmp_path, [SOUND], names=("other.jpg",)).plans()


def test_links_point_at_the_pictures(tmp_path):
    dataset = ingest(source(tmp_path, [SOUND]), tmp_path / "out", link=True)
    row = dataset.read("images").to_pylist()[0]
    assert row["link"]["file"] == "a.jpg"
    assert dataset.picture(row) == (tmp_path / "images" / "a.jpg").read_bytes()


def test_the_identity_of_a_unit_changes_with_its_input(tmp_path):
    before = source(tmp_path, [SOUND]).plans()[0].units[0].identity
    assert source(tmp_path, [SOUND]).plans()[0].units[0].identity == before
    assert source(tmp_path, [SOUND | {"text": "x"}]).plans()[0].units[0].identity != before
    made = source(tmp_path, [SOUND])
    (tmp_path / "images" / "b.jpg").write_bytes(b"shorter")
    assert made.plans()[0].units[0].identity != before


@pytest.mark.shared
def test_subject_folders_written_as_records_come_back_as_groups(tmp_path, shared):
    folders = [group for group in json.loads((shared / "groups.json").read_text()) if len(group["files"]) > 2]
    records = [
        {"target": target, "text": group["label"], "image_file": [name for name in group["files"] if name != target]}
        for group in folders
        for target in group["files"][:2]
    ]
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(records))
    dataset = ingest(EasyRef(records=str(path), images=str(shared)), tmp_path / "out")
    assert not ledger(dataset)
    assert set(image_ids(dataset)) == {f"easyref/{name}" for group in folders for name in group["files"]}
    assert len(groups(dataset)) == len(records)
    assert verify(dataset).sound
