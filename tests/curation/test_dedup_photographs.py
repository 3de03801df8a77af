"""Dedup of photographs: planted copies are found by hash and by look, leaks are, and different pictures are not."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from copytruth import copies
from helpers import HERE, ingest, ledger
from maderows import rows_after

from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.dedup.evaluationsets import read_evaluation
from refloom.curation.dedup.settings import Dedup
from refloom.curation.job import curate
from refloom.inference.models import registry
from refloom.ingest.sampledata import photos
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused

NEAR_COPY = registry.by_name("image_embedding", "efficientnet-lite0").thresholds["near_copy"]


def crop(pixels: np.ndarray, share: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    y, x = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return np.ascontiguousarray(pixels[y : height - y, x : width - x])


COPIES = {
    "q40": lambda pixels: pictures.encode_jpeg(pixels, 40),
    "quarter": lambda pixels: pictures.encode_jpeg(
        cv2.resize(pixels, (pixels.shape[1] // 4, pixels.shape[0] // 4), interpolation=cv2.INTER_AREA), 92
    ),
    "crop": lambda pixels: pictures.encode_jpeg(crop(pixels, 0.95), 92),
    "mirror": lambda pixels: pictures.encode_jpeg(np.ascontiguousarray(pixels[:, ::-1]), 92),
}
NAMES = ("astronaut", "chelsea", "coffee", "china", "flower")


@pytest.fixture(scope="module")
def originals() -> dict[str, np.ndarray]:
    known = [name for name in photos.catalogue() if any(name.startswith(part) for part in NAMES)][:5]
    assert len(known) >= 4
    return {name: photos.pixels(name) for name in known}


@pytest.fixture(scope="module")
def planted(originals: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photographs and four copies of each, as separate pictures."""
    root = tmp_path_factory.mktemp("planted")
    (root / "in").mkdir()
    for name, pixels in originals.items():
        (root / "in" / f"{name}.png").write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
        for kind, change in COPIES.items():
            (root / "in" / f"{name}_{kind}.jpg").write_bytes(change(pixels))
    dataset = ingest(PlainPictures(path=str(root / "in")), root / "data")
    curate(dataset.url, Curation(models=Models(face="none")), HERE, until="quality")
    dataset.refresh()
    return dataset


def after(dataset: Dataset, where: Path, *, embeds: bool = True, **options: Any) -> dict[str, dict[str, Any]]:
    """Rows of `duplicates` by id that dedup writes into a copy of a dataset."""
    copy = Dataset(str(shutil.copytree(dataset.url, where)))
    models = Models(face="none", image_embedding="auto" if embeds else "none")
    return {row["id"]: row for row in rows_after(copy, "dedup", Curation(models=models, dedup=Dedup(**options)))}


def test_planted_copies_are_found_and_different_photographs_are_not(
    planted: Dataset, originals: dict[str, np.ndarray], tmp_path: Path
):
    rows = after(planted, tmp_path / "data")
    assert {row["by"] for row in rows.values()} <= {"phash", "embedding"}
    missed = []
    for name in originals:
        mine = {image for image in planted.read("images", ["image_id"])["image_id"].to_pylist() if f"/{name}" in image}
        left = sorted(mine - set(rows))
        missed += left[1:]
        assert all(rows[image]["of"] in left for image in mine & set(rows))
        assert {f"{image}#whole" for image in mine & set(rows)} <= set(rows)
    assert len(missed) <= 0.05 * 4 * len(originals)


def test_without_a_model_hashes_find_what_they_can(planted: Dataset, tmp_path: Path):
    rows = after(planted, tmp_path / "data", embeds=False)
    assert {row["by"] for row in rows.values()} == {"phash"}
    found = [name for name in rows if "_q40" in name or "_quarter" in name]
    assert found


def test_copies_in_one_source_group_stay(originals: dict[str, np.ndarray], tmp_path: Path):
    for folder, name in (("one", "a"), ("one", "b"), ("two", "c")):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        data = pictures.encode_jpeg(next(iter(originals.values())), 90)
        (tmp_path / "in" / folder / f"{name}.jpg").write_bytes(data)
    dataset = ingest(Subjects(directory=str(tmp_path / "in")), tmp_path / "data")
    config = Curation(models=Models(face="none", image_embedding="none", classifier="none"))
    curate(dataset.url, config, HERE, until="quality")
    rows = {row["id"]: row for row in rows_after(dataset, "dedup", config)}
    assert [(name, row["of"]) for name, row in rows.items() if row["kind"] == "image"] == [
        ("subjects/two/c.jpg", "subjects/one/a.jpg")
    ]


def test_leaks_of_a_folder_and_of_a_dataset_are_found(
    planted: Dataset, originals: dict[str, np.ndarray], tmp_path: Path
):
    first, second, *_ = originals
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "x.jpg").write_bytes(pictures.encode_jpeg(originals[first], 70))
    (tmp_path / "bench" / "notes.txt").write_text("no picture")
    (tmp_path / "bench" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    rows = after(planted, tmp_path / "one", evaluation=(str(tmp_path / "bench"),))
    leaked = {name for name, row in rows.items() if row["by"] == "leak"}
    assert {row["of"] for row in rows.values() if row["by"] == "leak"} == {"bench/x.jpg"}
    assert len([name for name in leaked if name.endswith("#whole")]) >= 5
    assert all(f"/{first}" in name for name in leaked)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "y.jpg").write_bytes(COPIES["mirror"](originals[second]))
    other = ingest(PlainPictures(path=str(tmp_path / "other")), tmp_path / "set")
    rows = after(planted, tmp_path / "two", embeds=False, evaluation=(other.url,))
    assert {row["of"] for row in rows.values() if row["by"] == "leak"} == {"folder/y.jpg"}
    assert read_evaluation([]) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="no picture"):
        read_evaluation([str(tmp_path / "empty")])


def test_every_item_of_a_unit_is_settled_and_its_rows_are_the_true_ones(planted: Dataset, tmp_path: Path):
    out = Dataset(shutil.copytree(planted.url, tmp_path / "data"))
    curate(out.url, Curation(models=Models(face="none")), HERE, until="dedup")
    out.refresh()
    rows = sorted(out.read("duplicates").to_pylist(), key=lambda row: row["id"])
    true = copies(out, Dedup(), NEAR_COPY)
    assert rows == [row | {"similarity": pytest.approx(row["similarity"], abs=1e-6)} for row in true]
    assert out.counts("dedup")["object"].kept == out.counts("dedup")["image"].kept == 5 * len(NAMES)
    assert ledger(out, "dedup") == {}
    assert not (tmp_path / "data" / "work").exists()


@pytest.mark.shared
def test_msbench_copies_of_dreambooth_are_found_and_subjects_are_not_merged(shared: Path, tmp_path: Path):
    dataset = ingest(PlainPictures(path=str(shared / "subjects")), tmp_path / "data")
    curate(dataset.url, Curation(models=Models(face="none")), HERE, until="dedup")
    dataset.refresh()
    rows = dataset.read("duplicates").to_pylist()
    assert {(row["id"], row["of"]) for row in rows if row["kind"] == "image"} == {
        ("folder/msbench/living/cat.jpg", "folder/dreambooth/cat/03.jpg")
    }
