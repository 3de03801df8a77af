"""Curation of pictures that lie elsewhere: samples hold their bytes, and one that has changed costs itself only."""

from pathlib import Path

import pytest
from curatedata import SMALL, rewritten, small, stamps
from drawing import gradient
from helpers import HERE, image_ids, ingest, ledger

from refloom.curation.job import curate
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.verify import verify


@pytest.fixture
def linked(tmp_path) -> Path:
    """Six linked pictures beside their COCO tree, not curated."""
    return Path(ingest(small(tmp_path), tmp_path / "data", link=True).url)


def change(root: Path, number: int) -> Path:
    """Another picture of the same length in place of a linked one."""
    path = root / f"coco/val2017/{number:012d}.jpg"
    data = bytearray(path.read_bytes())
    other = pictures.encode_jpeg(gradient(96, 80, 999), 60)
    assert len(other) <= len(data)
    path.write_bytes(other + bytes(len(data) - len(other)))
    return path


def test_samples_of_linked_pictures_hold_the_bytes_of_the_source(linked, tmp_path):
    curate(str(linked), SMALL, HERE)
    dataset = Dataset(str(linked))
    assert dataset.read("images", ["image"])["image"].null_count == 6
    samples = dataset.read("samples").to_pylist()
    assert samples
    for sample in samples:
        for picture, image in zip(sample["pictures"], sample["images"], strict=True):
            name = picture["image_id"].removeprefix("coco/")
            assert image["bytes"] == (tmp_path / f"coco/val2017/{name}.jpg").read_bytes()
    assert verify(dataset).sound


def test_a_linked_picture_that_changed_after_ingest_costs_itself_only(linked, tmp_path):
    picture = tmp_path / "coco/val2017/000000000003.jpg"
    original = picture.read_bytes()
    change(tmp_path, 3)
    curate(str(linked), SMALL, HERE)
    dataset = Dataset(str(linked))
    assert ledger(dataset, "measure") == {("image", "coco/000000000003", 0): "source_changed"}
    measured = dataset.read("image_scores", ["image_id"])["image_id"].to_pylist()
    assert measured == [name for name in image_ids(dataset) if name != "coco/000000000003"]
    assert dataset.counts("quality")["object"].failed == {"image_failed": 4}
    shown = dataset.read("samples", ["sample_id"])["sample_id"].to_pylist()
    assert "image/coco/000000000003" not in shown

    picture.write_bytes(original)
    before = stamps(linked)
    curate(str(linked), SMALL, HERE, retry_failed=True)
    measured = Dataset(str(linked)).read("image_scores", ["image_id"])["image_id"].to_pylist()
    assert measured == image_ids(dataset)
    assert rewritten(before, stamps(linked), "manifests/measure") == {
        "manifests/measure/coco.instances_val2017-00001.json"
    }


def test_no_sample_holds_other_bytes_than_those_that_were_measured(linked, tmp_path):
    curate(str(linked), SMALL, HERE, until="split")
    path = change(tmp_path, 3)
    curate(str(linked), SMALL, HERE)
    held = [image["bytes"] for row in Dataset(str(linked)).read("samples").to_pylist() for image in row["images"]]
    assert path.read_bytes() not in held
    assert ledger(Dataset(str(linked)), "compose")["image", "coco/000000000003", 0] == "source_changed"


def test_objects_of_a_picture_that_failed_are_not_rejected(linked, tmp_path):
    """A failure is of the run: the content is not to blame, and it is tried again."""
    change(tmp_path, 3)
    curate(str(linked), SMALL, HERE)
    counts = Dataset(str(linked)).counts("select")["object"]
    assert "image_rejected" not in counts.rejected
    assert counts.failed == {"image_failed": 4}
