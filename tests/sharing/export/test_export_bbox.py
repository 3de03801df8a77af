"""`export --format bbox`: SimpleTuner's boxes beside each image, read as documented, and its Parquet column."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from exporting import make_mixed, rows, run
from PIL import Image
from publishing import digests
from trainerreaders import simpletuner

from refloom.schemas import masks
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.sharing.export.bbox import label, relative


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Dataset:
    return make_mixed(tmp_path_factory.mktemp("boxes"))


def written(out: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((out / "export.json").read_text())["written"]
    return found


def table(out: Path) -> list[dict]:
    return [row for split in ("train", "validation") if (out / f"{split}.parquet").exists()
            for row in pq.read_table(out / f"{split}.parquet").to_pylist()]  # fmt: skip


def test_every_object_comes_back_with_its_name_box_and_mask(mixed, tmp_path):
    assert run(mixed, tmp_path / "out", "bbox", workers=0) == 0
    out = tmp_path / "out"
    found_objects = rows(mixed, "objects", ["object_id", "image_id", "kind", "category", "box", "mask"])
    stored = [row for row in found_objects.values() if row["kind"] != "whole"]
    sizes = rows(mixed, "images", ["image_id", "width", "height"])
    expected = []
    for row in stored:
        width, height = (sizes[row["image_id"]][side] for side in ("width", "height"))
        box = tuple(round(edge / side, 6) for edge, side in zip(row["box"], (width, height) * 2, strict=True))
        expected.append((row["category"], box, masks.decode(row["mask"]).tobytes()))
    found = []
    for split in ("train", "validation"):
        if not (out / f"{split}.json").exists():
            continue
        for one in simpletuner(out, split):
            for entity in one.entities:
                mask = np.asarray(Image.open(out / entity["mask"]))
                assert mask.shape == one.image.shape[:2]
                assert set(np.unique(mask)) <= {0, 255}
                found.append((entity["label"], tuple(entity["bbox"]), (mask // 255).tobytes()))
    assert sorted(found) == sorted(expected)
    counts = written(out)
    assert (counts["images"], counts["boxes"], counts["masks"]) == (6, 12, 12)
    assert counts["left out: image, no object on it"] == 5
    assert counts["images"] + counts["left out: image, no object on it"] == len(sizes)


def test_the_parquet_column_says_what_the_files_beside_the_images_say(mixed, tmp_path):
    run(mixed, tmp_path / "out", "bbox", workers=0)
    listed = table(tmp_path / "out")
    assert len(listed) == 6
    for split in ("train", "validation"):
        root = tmp_path / "out" / split / "images"
        for row in pq.read_table(tmp_path / "out" / f"{split}.parquet").to_pylist() if root.exists() else ():
            path = root / row["filename"]
            assert json.loads(row["bounding_boxes"]) == json.loads(path.with_suffix(".bbox").read_text())
            assert row["caption"] == path.with_suffix(".txt").read_text()
            assert Image.open(path).size == (row["width"], row["height"])
            assert row["license"]


def test_splits_are_folders_and_one_can_be_chosen(mixed, tmp_path):
    run(mixed, tmp_path / "all", "bbox", workers=0)
    splits = rows(mixed, "splits", ["image_id", "split"])
    for row in table(tmp_path / "all"):
        assert (tmp_path / "all" / splits[row["image_id"]]["split"] / "images" / row["filename"]).is_file()
    run(mixed, tmp_path / "train", "bbox", split="train", workers=0)
    assert not (tmp_path / "train/validation.parquet").exists()
    run(mixed, tmp_path / "few", "bbox", limit=2, workers=0)
    assert len(table(tmp_path / "few")) == 2


def test_only_kept_objects_when_asked(mixed, tmp_path):
    run(mixed, tmp_path / "out", "bbox", kept=True, workers=0)
    kept = [row for row in rows(mixed, "selection", ["object_id", "verdict"]).values()
            if row["verdict"] == "keep" and row["object_id"].startswith("coco/")]  # fmt: skip
    assert written(tmp_path / "out").get("boxes", 0) == len(kept)


@pytest.mark.processes
def test_any_number_of_workers_writes_the_same_bytes(mixed, tmp_path):
    for workers in (0, 2):
        assert run(mixed, tmp_path / str(workers), "bbox", workers=workers) == 0
    assert digests(tmp_path / "0") == digests(tmp_path / "2")


def test_an_edit_option_is_refused(mixed, tmp_path):
    with pytest.raises(Refused, match="--seed is for --format edit, not bbox"):
        run(mixed, tmp_path / "out", "bbox", seed=1, workers=0)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"phrase": "a red\ncup", "category": "cup", "kind": "object"}, "a red cup"),
        ({"phrase": None, "category": "cup", "kind": "object"}, "cup"),
        ({"phrase": None, "category": None, "kind": "face"}, "face"),
        ({"phrase": " ", "category": None, "kind": "object"}, "object"),
    ],
)
def test_an_object_is_called_by_what_is_known_of_it(row, name):
    assert label(row) == name


def test_boxes_are_shares_of_the_sides_and_stay_inside():
    assert relative([16.0, 12.0, 80.0, 60.0], 160, 120) == [0.1, 0.1, 0.5, 0.5]
    assert relative([-1.0, 0.0, 161.0, 120.0], 160, 120) == [0.0, 0.0, 1.0, 1.0]
