"""One small dataset of true formats and photographs, curated with the packaged models once for all tests."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import HERE, ingest, write_coco

from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest import sampledata
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.ytvis import YouTubeVis

FRAMES = 6
MANY = 24
NO_MODELS = ["--set", "models.face=none", "--set", "models.image_embedding=none", "--set", "models.classifier=none"]
STAGES = (
    "measure",
    "mask",
    "face",
    "embed",
    "quality",
    "dedup",
    "select",
    "match",
    "group",
    "split",
    "balance",
    "compose",
)

SMALL = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=100, min_area_share=0.01),
    select=Select(min_area_share=0.03, min_short_side_px=12.0, min_quality=0.1),
    compose=Compose(frames_per_sample=2, samples_per_video=1),
)
"""Bounds for the pictures of `small`, and no models."""


def once(make: Callable[[pytest.TempPathFactory], Path]) -> Callable[[pytest.TempPathFactory], Path]:
    """Make a thing the first time that a test of the session asks for it, for all workers of pytest-xdist together."""
    made: list[Path] = []

    @wraps(make)
    def get(factory: pytest.TempPathFactory) -> Path:
        if not made:
            own = factory.getbasetemp()
            place = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
            note = place / f"{make.__module__}.{make.__name__}.path"
            with FileLock(f"{note}.lock"):
                if not note.exists():
                    note.write_text(str(make(factory)), "utf-8")
                made.append(Path(note.read_text("utf-8")))
        return made[0]

    return get


@once
def tree(factory: pytest.TempPathFactory) -> Path:
    """Six COCO pictures in train2017 and val2017, one short video, five subject folders, one SA-1B tar."""
    root = factory.mktemp("sample") / "sample"
    sampledata.write(str(root), images=6, videos=1, seed=0)
    path = root / "ytvis/train/instances.json"
    document = json.loads(path.read_text())
    for video in document["videos"]:
        video |= {"length": FRAMES, "file_names": video["file_names"][:FRAMES]}
    for annotation in document["annotations"]:
        annotation |= {name: annotation[name][:FRAMES] for name in ("segmentations", "bboxes", "areas")}
    path.write_text(json.dumps(document))
    return root


@once
def ingested(factory: pytest.TempPathFactory) -> Path:
    """The tree as a dataset of five units: 6 COCO pictures, 6 frames, 8 pictures of subjects."""
    root, out = tree(factory), factory.mktemp("ingested") / "data"
    for split in ("train2017", "val2017"):
        instances, captions = (
            str(root / f"coco/annotations/{what}_{split}.json") for what in ("instances", "captions")
        )
        ingest(Coco(images=str(root / "coco" / split), instances=instances, captions=captions, unit_size=3), out)
    videos = root / "ytvis/train"
    ingest(YouTubeVis(frames=str(videos / "JPEGImages"), annotations=str(videos / "instances.json")), out)
    ingest(Subjects(directory=str(root / "subjects"), limit=8), out)
    return out


@once
def curated(factory: pytest.TempPathFactory) -> Path:
    """The dataset with every stage done by the packaged models; a test that changes it copies it."""
    out = copy(ingested(factory), factory.mktemp("curated"))
    curate(str(out), Curation(), HERE)
    return out


def copy(dataset: Path, where: Path) -> Path:
    """A copy of a dataset to change."""
    return Path(shutil.copytree(dataset, where / "data"))


def contents(dataset: Path) -> dict[str, str]:
    """Path in the dataset to sha256 of every file, those in runs/ left out."""
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and path.relative_to(dataset).parts[0] != "runs"
    }


@once
def many_units(factory: pytest.TempPathFactory) -> Path:
    """Small pictures in units of one, so that a job can be stopped between two of them."""
    root = factory.mktemp("many")
    images, instances, captions = write_coco(root / "coco", MANY, objects=2, size=(96, 80))
    source = Coco(images=str(images), instances=str(instances), captions=str(captions), unit_size=1)
    return Path(ingest(source, root / "data").url)


def small(root: Path, count: int = 6) -> Coco:
    """Pictures of 96 x 80 with four objects each, in units of two."""
    images, instances, captions = write_coco(root / "coco", count, objects=4, size=(96, 80))
    return Coco(images=str(images), instances=str(instances), captions=str(captions), unit_size=2)


def stamps(dataset: Path) -> dict[str, int]:
    """When each file was written; runs/ has clocks and locks and does not count."""
    files = [path for path in dataset.rglob("*") if path.is_file() and "runs" not in path.parts]
    return {str(path.relative_to(dataset)): path.stat().st_mtime_ns for path in files}


def rewritten(before: dict[str, int], after: dict[str, int], top: str) -> set[str]:
    """Names of files below a folder that are new or were written again."""
    return {path for path, stamp in after.items() if path.startswith(f"{top}/") and before.get(path) != stamp}


def wait_for(dataset: Path, stage: str, process: subprocess.Popen[str], units: int = 1) -> None:
    """Wait until a process has committed some units of a stage."""
    folder, deadline = dataset / "manifests" / stage, time.monotonic() + 300
    while not folder.is_dir() or len(list(folder.glob("*.json"))) < units:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no unit of {stage} in five minutes"
        time.sleep(0.002)
