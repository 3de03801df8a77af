"""Several records of one file, with ids as tools write them, turned pictures, and several sets in one dataset."""

import json
import unicodedata
from pathlib import Path

import pytest
from drawing import encoded, gradient
from helpers import image_ids, ingest, ledger, object_ids, sa1b_members
from PIL import Image

from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify

WIDTH, HEIGHT = 64, 48
"""Of the stored picture; with orientation 6 it is 48 wide and 64 high upright."""

STORED, UPRIGHT = (WIDTH, HEIGHT), (HEIGHT, WIDTH)
TELLS_UPRIGHT = [4, 40, 30, 20]
TELLS_STORED = [40, 4, 20, 30]
TELLS_NOTHING = [10, 10, 20, 16]


def write(root: Path, records, annotations) -> Coco:
    """A COCO tree: id, file and declared size of each record; id, image_id and box of each annotation."""
    images = [
        {"id": identity, "file_name": name, **dict(zip(("width", "height"), size, strict=True))}
        for identity, name, size in records
    ]
    listed = [
        {"id": identity, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": box, "segmentation": []}
        for identity, image, box in annotations
    ]
    root.mkdir(parents=True, exist_ok=True)
    path = root / "set.json"
    content = {"images": images, "annotations": listed, "categories": [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps(content))
    return Coco(images=str(root), instances=str(path))


def picture(path: Path, orientation: int = 1, seed: int = 0) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(gradient(WIDTH, HEIGHT, seed)), "JPEG", exif=exif, quality=90))


def sound(dataset: Dataset) -> Dataset:
    findings = verify(dataset, decode_per_unit=-1)
    assert findings.sound, findings.problems
    return dataset


def boxes(dataset: Dataset) -> dict[str, list[float]]:
    return {row["object_id"].split("#")[1]: row["box"] for row in dataset.read("objects").to_pylist()}


# -- ids -------------------------------------------------------------------------------------------------------------


def test_annotation_ids_that_restart_in_every_record_of_a_file_are_all_kept(tmp_path):
    picture(tmp_path / "a.jpg")
    records = [(identity, "a.jpg", STORED) for identity in (7, 8, 9)]
    annotations = [(1, image, [number, 2, 20, 10]) for number, image in enumerate((7, 8, 9))]
    dataset = sound(ingest(write(tmp_path, records, annotations), tmp_path / "out"))
    assert image_ids(dataset) == ["coco/000000000007"]
    assert object_ids(dataset) == {f"coco/000000000007#{name}" for name in ("1", "1~2", "1~3")}


@pytest.mark.parametrize("ids", [(1, "1"), ("1", 1), (1, "01"), ("a", "b")])
def test_records_of_one_file_are_told_apart_by_the_type_of_their_ids(tmp_path, ids):
    picture(tmp_path / "a.jpg")
    records = [(ids[0], "a.jpg", STORED), (ids[1], "./a.jpg", (10, 10))]  # the second is of another picture
    annotations = [(10, ids[0], TELLS_NOTHING), (11, ids[1], TELLS_NOTHING)]
    dataset = sound(ingest(write(tmp_path, records, annotations), tmp_path / "out"))
    assert list(boxes(dataset)) == ["10"]
    assert [item[0] for item, reason in ledger(dataset).items() if reason == "size_mismatch"] == ["annotation"]


@pytest.mark.parametrize("written", [str, float])
def test_a_reference_in_another_spelling_means_the_joined_record(tmp_path, written):
    picture(tmp_path / "a.jpg")
    records = [(7, "a.jpg", (10, 10)), (8, "a.jpg", STORED)]
    source = write(tmp_path, records, [(1, written(7), TELLS_NOTHING), (2, written(8), TELLS_NOTHING)])
    dataset = sound(ingest(source, tmp_path / "out"))
    assert list(boxes(dataset)) == ["2"]


def test_two_files_whose_names_differ_in_an_accent_alone_are_two_pictures(tmp_path):
    names = [unicodedata.normalize(form, "\u00e9.jpg") for form in ("NFC", "NFD")]
    for seed, name in enumerate(names):
        picture(tmp_path / name, seed=seed)
    source = write(tmp_path, [(1, names[0], STORED), (2, names[1], STORED)], [(1, 2, TELLS_NOTHING)])
    dataset = sound(ingest(source, tmp_path / "out"))
    assert not ledger(dataset)
    assert len(set(dataset.read("images", ["sha256"])["sha256"].to_pylist())) == 2
    assert object_ids(dataset) == {"coco/000000000002#1"}


def test_a_record_that_is_refused_for_its_id_takes_no_file_from_another(tmp_path):
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        picture(tmp_path / name, seed=seed)
    records = [(1, "a.jpg", STORED), (1, "b.jpg", STORED), (2, "b.jpg", STORED)]
    source = write(tmp_path, records, [(1, 1, TELLS_NOTHING), (2, 2, TELLS_NOTHING)])
    dataset = sound(ingest(source, tmp_path / "out"))
    assert object_ids(dataset) == {"coco/000000000001#1", "coco/000000000002#2"}
    assert ledger(dataset) == {("image", "coco/000000000001", 1): "duplicate"}


@pytest.mark.parametrize("size", [STORED, (None, None)])
def test_records_under_the_id_of_one_that_was_refused_are_counted_on(tmp_path, size):
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        picture(tmp_path / name, seed=seed)
    records = [(1, "a.jpg", STORED), (2, "a.jpg", size), (2, "b.jpg", STORED)]
    dataset = sound(ingest(write(tmp_path, records, []), tmp_path / "out"))
    assert ledger(dataset) == {("image", "coco/000000000002", at): "duplicate" for at in (1, 2)}


# -- turned pictures -------------------------------------------------------------------------------------------------


def test_each_record_of_a_turned_file_is_in_a_frame_of_its_own(tmp_path):
    picture(tmp_path / "a.jpg", orientation=6)
    records = [(1, "a.jpg", STORED), (2, "a.jpg", UPRIGHT), (3, "a.jpg", (5, 5))]
    told = [(1, 1, TELLS_STORED), (2, 1, TELLS_NOTHING), (3, 2, TELLS_UPRIGHT), (4, 2, TELLS_NOTHING)]
    dataset = sound(ingest(write(tmp_path, records, [*told, (5, 3, TELLS_NOTHING)]), tmp_path / "out"))
    found = boxes(dataset)
    assert found["2"] == [HEIGHT - 26, 10, HEIGHT - 10, 30]  # turned with its picture
    assert found["4"] == [10, 10, 30, 26]
    assert "5" not in found
    assert dataset.notes("ingest") == {}


def test_boxes_of_one_record_do_not_turn_those_of_another(tmp_path):
    picture(tmp_path / "a.jpg", orientation=6)
    records = [(1, "a.jpg", UPRIGHT), (2, "a.jpg", STORED)]
    source = write(tmp_path, records, [(1, 1, TELLS_UPRIGHT), (2, 2, TELLS_UPRIGHT), (3, 2, TELLS_NOTHING)])
    dataset = sound(ingest(source, tmp_path / "out"))
    assert boxes(dataset)["3"] == [10, 10, 30, 26]
    assert dataset.notes("ingest") == {"frame_by_boxes": 1}


def test_a_joined_record_decides_for_the_pictures_that_declare_as_it_does(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name, orientation=6)
    records = [(1, "a.jpg", UPRIGHT), (2, "a.jpg", STORED), (3, "b.jpg", STORED)]
    source = write(tmp_path, records, [(1, 1, TELLS_NOTHING), (2, 2, TELLS_UPRIGHT), (3, 3, TELLS_NOTHING)])
    dataset = sound(ingest(source, tmp_path / "out"))
    assert boxes(dataset)["3"] == [10, 10, 30, 26]
    assert dataset.notes("ingest") == {"frame_by_boxes": 1, "frame_by_unit": 1, "frame_undecided": 1}


# -- several sets ----------------------------------------------------------------------------------------------------


def test_joined_records_of_a_second_set_are_under_its_name(tmp_path):
    for seed, split in enumerate(("train", "valid")):
        picture(tmp_path / split / "a.jpg", seed=seed)
        records = [(0, "a.jpg", STORED), (1, "a.jpg", STORED)]
        source = write(tmp_path / split, records, [(0, 0, TELLS_NOTHING), (1, 1, TELLS_NOTHING)])
        named = Coco(images=source.images, instances=source.instances, name="valid") if seed else source
        dataset = sound(ingest(named, tmp_path / "out"))
    assert image_ids(dataset) == ["coco/000000000000", "coco/valid/000000000000"]
    assert object_ids(dataset) == {f"coco/{under}000000000000#{at}" for under in ("", "valid/") for at in (0, 1)}
    assert ("image", "coco/valid/000000000001", 1) in ledger(dataset)


def unpacked(folder: Path, numbers, size=(64, 48)) -> Path:
    folder.mkdir(parents=True)
    for name, data in sa1b_members(numbers, size=size):
        (folder / name).write_bytes(data)
    return folder


def test_unpacked_folders_of_one_numbering_go_under_their_names(tmp_path):
    ingest(Sa1b(tars=(str(unpacked(tmp_path / "one/sa_0", [1, 2])),)), tmp_path / "out")
    other = unpacked(tmp_path / "two/sa_0", [1, 2], size=(72, 56))
    with pytest.raises(Refused, match="--name"):
        ingest(Sa1b(tars=(str(other),)), tmp_path / "out")
    dataset = sound(ingest(Sa1b(tars=(str(other),), name="two"), tmp_path / "out", link=True))
    assert image_ids(dataset) == ["sa1b/1", "sa1b/2", "sa1b/two/1", "sa1b/two/2"]


def test_two_names_in_an_unpacked_folder_that_make_one_id_are_two_pictures(tmp_path):
    folder = unpacked(tmp_path / "sa_0", [1])
    (folder / "1.jpg").write_bytes((folder / "sa_1.jpg").read_bytes())
    record = json.loads((folder / "sa_1.json").read_text())
    record["image"]["file_name"] = "1.jpg"
    (folder / "1.json").write_text(json.dumps(record))
    dataset = sound(ingest(Sa1b(tars=(str(folder),)), tmp_path / "out"))
    assert sorted(image_ids(dataset)) == ["sa1b/1", "sa1b/1~2"]
    assert not ledger(dataset)
