"""Exports in the formats of EasyRef and MIP-Adapter, read as their loaders read them, and by our importers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import gradient
from exporting import CONFIG, make_mixed, rows, run
from helpers import HERE, blob, ingest
from PIL import Image

from refloom.curation.job import curate
from refloom.ingest.labelmap import label_map
from refloom.ingest.sources.easyref import EasyRef
from refloom.ingest.sources.subject10k import Subject10k, object_mask
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.sharing.export.subject10k import Thing, _name, draw


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Dataset:
    return make_mixed(tmp_path_factory.mktemp("mixed"))


# -- EasyRef -------------------------------------------------------------------------------------------------------


def read_easyref(record: dict[str, Any], root: Path) -> None:
    """What the published loader reads of a record (spec A3.1): target, text, then face or image_file."""
    target = Image.open(root / record["target"]).convert("RGB")
    text = record["text"]
    assert isinstance(text, str) or (isinstance(text, list) and all(isinstance(one, str) for one in text))
    if "face" in record:
        x1, y1, x2, y2 = record["face"][0][:4]  # two levels: the first box, as four numbers
        assert all(isinstance(edge, int | float) for edge in (x1, y1, x2, y2))
        assert 0 <= x1 < x2 <= target.width
        assert 0 <= y1 < y2 <= target.height
    else:
        files = record["image_file"] if isinstance(record["image_file"], list) else [record["image_file"]]
        assert files
        assert record["target"] not in files
        for name in files:
            Image.open(root / name).convert("RGB")


def test_every_easyref_record_can_be_read_as_the_loader_does(mixed, tmp_path):
    assert run(mixed, tmp_path / "out", "easyref") == 0
    records = json.loads((tmp_path / "out/records.json").read_text())
    for record in records:
        read_easyref(record, tmp_path / "out/images")
    groups = [record for record in records if "face" not in record]
    assert len(groups) == 5
    assert all(len(record["image_file"]) == 4 for record in groups)
    assert len([record for record in records if "face" in record]) == 8
    assert {record["license"] for record in records} == {"CC BY 4.0", None}


def test_easyref_comes_back_with_its_groups_faces_and_texts(mixed, tmp_path):
    run(mixed, tmp_path / "out", "easyref")
    out = tmp_path / "out"
    again = ingest(EasyRef(records=str(out / "records.json"), images=str(out / "images")), tmp_path / "again")
    assert again.ledger("ingest").num_rows == 0
    faces = [row for row in again.read("objects").to_pylist() if row["kind"] == "face"]
    stored = mixed.read("faces", ["box", "det_score"]).to_pylist()
    assert sorted(row["box"] for row in faces) == sorted(row["box"] for row in stored)
    assert sorted(row["confidence"] for row in faces) == pytest.approx(sorted(row["det_score"] for row in stored))
    groups = [row for row in again.read("source_groups").to_pylist() if len(row["members"]) > 1]
    assert len(groups) == 5
    assert {frozenset(row["members"]) for row in groups} == {frozenset(groups[0]["members"])}
    assert {row["target"] for row in groups} == set(groups[0]["members"])
    captions = {row["captions"][0] for row in again.read("images", ["captions"]).to_pylist() if row["captions"]}
    assert "A cat and a dog, number 1" in captions


def test_targets_that_a_source_named_stay_targets(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(pictures.encode_jpeg(gradient(60, 60, ord(name))))
    record = {"target": "b.jpg", "text": ["a thing"], "image_file": ["a.jpg", "c.jpg"]}
    (tmp_path / "r.json").write_text(json.dumps([record]))
    dataset = ingest(EasyRef(records=str(tmp_path / "r.json"), images=str(tmp_path)), tmp_path / "data")
    curate(dataset.url, CONFIG, HERE)
    run(dataset, tmp_path / "out", "easyref")
    (found,) = json.loads((tmp_path / "out/records.json").read_text())
    assert (found["target"], found["text"], sorted(found["image_file"])) == ("b.jpg", ["a thing"], ["a.jpg", "c.jpg"])
    again = ingest(
        EasyRef(records=str(tmp_path / "out/records.json"), images=str(tmp_path / "out/images")), tmp_path / "again"
    )
    columns = ["image_id", "sha256", "captions"]
    assert rows(again, "images", columns) == rows(dataset, "images", columns)


# -- subject_dataset_10k -------------------------------------------------------------------------------------------


def read_subject10k(root: Path, name: str) -> list[tuple[str, list[float], np.ndarray]]:
    """What the published loader reads of an id (spec B3.1): label, box and pixels of every object."""
    record = json.loads((root / "jsons" / f"{name}.json").read_text())
    image = Image.open(root / "images" / f"{name}.png").convert("RGB")
    mask = Image.open(root / "masks" / f"{name}.png")
    assert mask.mode in ("L", "P")
    assert mask.size == image.size
    assert isinstance(record["text"], str)
    assert [type(side) for side in record["original_size"]] == [int, int]
    labels = np.asarray(mask)
    found = []
    for entry in record["final_masks"]:
        if "box" not in entry:
            continue
        assert isinstance(entry["label"], str)
        assert isinstance(entry["logit"], float)
        x1, y1, x2, y2 = (round(edge) for edge in entry["box"])
        values, counts = np.unique(labels[max(y1, 0) : y2, max(x1, 0) : x2], return_counts=True)
        objects = values > values.min()
        value = values[objects][counts[objects].argmax()]
        found.append((entry["label"], entry["box"], labels == value))
    return found


def test_every_subject10k_picture_can_be_read_as_the_loader_does(mixed, tmp_path):
    assert run(mixed, tmp_path / "out", "subject10k") == 0
    names = sorted(path.stem for path in (tmp_path / "out/jsons").iterdir())
    assert names
    for folder in ("images", "masks"):
        assert sorted(path.stem for path in (tmp_path / "out" / folder).iterdir()) == names
    stored = rows(mixed, "objects", ["object_id", "category", "mask"])
    for name in names:
        found = read_subject10k(tmp_path / "out", name)
        assert len(found) >= 2
        record = json.loads((tmp_path / "out/jsons" / f"{name}.json").read_text())
        own = [stored[entry["object_id"]] for entry in record["final_masks"][1:]]
        union = np.any([pixels for _, _, pixels in found], axis=0)
        assert (union == np.any([masks.decode(row["mask"]) for row in own], axis=0)).all()
        for (label, _, pixels), row in zip(found, own, strict=True):
            assert label == row["category"]
            assert not (pixels & (masks.decode(row["mask"]) == 0)).any()
            assert label in record["text"]


def test_subject10k_comes_back_with_its_masks_and_phrases(mixed, tmp_path):
    run(mixed, tmp_path / "out", "subject10k")
    again = ingest(Subject10k(directory=str(tmp_path / "out")), tmp_path / "again")
    assert again.ledger("ingest").num_rows == 0
    found = {}
    for row in again.read("objects", ["source_json", "phrase", "mask", "box"]).to_pylist():
        found[json.loads(row["source_json"])["object_id"]] = row
    stored = rows(mixed, "objects", ["object_id", "category", "mask", "box"])
    same = 0
    for identity, row in found.items():
        own = stored[identity]
        assert row["phrase"] == own["category"]
        hidden = masks.decode(own["mask"]) - masks.decode(row["mask"])
        assert hidden.min() == 0  # what is behind another object is lost, nothing is added
        same += row["mask"] == own["mask"]
        if row["mask"] == own["mask"]:
            assert row["box"] == own["box"]
    assert same >= len(found) / 2
    sizes = {tuple(row) for row in again.read("images", ["original_size"])["original_size"].to_pylist()}
    assert sizes == {(48, 64)}


def test_pictures_of_sa1b_keep_the_name_by_which_they_are_known():
    assert _name({"image_id": "sa1b/223751"}) == "sa_223751"
    assert _name({"image_id": "subject10k/sa_5"}) == "sa_5"
    assert _name({"image_id": "ytvis/a/00001"}) == "ytvis_a_00001"


def thing(pixels: np.ndarray, label: str = "cat") -> Thing:
    mask = masks.encode(pixels)
    return Thing(label, mask, tuple(masks.tight_boxes([mask])[0].tolist()), None, label, ())


def test_an_object_that_fills_its_box_is_given_one_with_background():
    square = np.zeros((40, 40), np.uint8)
    square[10:20, 10:20] = 1
    labels, ((_, box),) = draw([thing(square)], 40, 40)
    assert box != [10, 10, 20, 20]
    assert object_mask(labels, box) == masks.encode(square)


def test_an_object_that_no_label_map_can_tell_is_left_out():
    everything = np.ones((40, 40), np.uint8)
    ring = np.zeros((40, 40), np.uint8)
    ring[5:35, 5:35] = 1
    ring[6:34, 6:34] = 0  # of its box nearly all belongs to the object inside
    inside = np.zeros((40, 40), np.uint8)
    inside[8:32, 8:32] = 1
    labels, shown = draw([thing(everything, "wall"), thing(ring, "ring"), thing(inside, "cat")], 40, 40)
    assert [one.label for one, _ in shown] == ["cat"]
    assert set(np.unique(labels)) == {0, 1}


def test_blobs_in_any_number_read_back_as_their_visible_pixels():
    for seed in range(20):
        shapes = [blob(60, 50, 10 * seed + number) for number in range(4)]
        labels, shown = draw([thing(shape, str(number)) for number, shape in enumerate(shapes)], 50, 60)
        for number, (_, box) in enumerate(shown, 1):
            assert object_mask(labels, box) == masks.encode(labels == number)


def test_label_maps_are_eight_bits_of_grey(mixed, tmp_path):
    run(mixed, tmp_path / "out", "subject10k")
    for file in (tmp_path / "out/masks").iterdir():
        assert label_map(file.read_bytes()).dtype == np.uint8
