"""What tests of publications share: a dataset that may be published, and what lies in a publication."""

import hashlib
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from curatedata import once
from helpers import HERE, ingest, write_coco, write_ytvis

from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.dedup.settings import Dedup
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import Dataset
from refloom.sharing.publish.options import Publish

CONFIG = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=100, min_area_share=0.01),
    dedup=Dedup(by=()),  # drawn pictures are alike
    select=Select(min_area_share=0.02, min_short_side_px=8.0, min_quality=0.0, min_box_fill=0.1),
    compose=Compose(frames_per_sample=3, samples_per_video=1),
)
ALL = Publish(tables=("all",))


def licensed_videos(root: Path, **options: Any) -> Path:
    """A YouTube-VIS tree whose videos are CC BY."""
    path = write_ytvis(root, **options)
    document = json.loads(path.read_text())
    document["licenses"] = [{"id": 1, "name": "CC BY 2.0", "url": ""}]
    for video in document["videos"]:
        video["license"] = 1
    path.write_text(json.dumps(document))
    return path


def build(
    root: Path,
    *,
    count: int = 8,
    unit_size: int = 4,
    size: tuple[int, int] = (96, 80),
    config: Curation = CONFIG,
    link: bool = False,
    name: str = "coco",
) -> Dataset:
    """COCO pictures and two videos, all under licenses that allow redistribution, curated without models."""
    out = root / "data"
    images, instances, captions = write_coco(root / "coco", count, size=size)
    texts = str(captions)
    source = Coco(images=str(images), instances=str(instances), captions=texts, unit_size=unit_size, name=name)
    ingest(source, out, link=link)
    videos = licensed_videos(root / "videos", videos=2, frames=6, size=size)
    frames = str(root / "videos/JPEGImages")
    ingest(YouTubeVis(frames=frames, annotations=str(videos), unit_size=unit_size), out, link=link)
    curate(str(out), config, HERE)
    return Dataset(str(out))


def digests(root: Path) -> dict[str, str]:
    """Path to sha256 of every file of a publication."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".refloom" not in path.relative_to(root).parts
    }


def rows(root: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a published table, in order of file and row."""
    files = sorted((root / "data" / table).glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


@once
def publishable(factory: pytest.TempPathFactory) -> Path:
    """A dataset of eight COCO pictures and two videos, all of them free to be passed on."""
    return Path(build(factory.mktemp("publish")).url)


def arguments(dataset: Dataset, dest: Path, **changed: Any) -> Any:
    options = {
        "dataset": dataset.url,
        "dest": str(dest),
        "tables": ["samples"],
        "no_images": False,
        "include_face_embeddings": False,
        "shard_mb": 400.0,
        "only_sources": [],
        "accept_license": [],
        "takedown": None,
        "ignore_unknown": False,
        "keep_metadata": False,
        "replace": False,
        "dry_run": False,
        "push": None,
        "public": False,
        "endpoint": None,
        "forget_history": False,
    }
    return Namespace(**options | changed)
