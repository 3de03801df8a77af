"""Publishing as a share of a plain copy of the same bytes, on one core."""

import os
import shutil
import statistics
import time
from pathlib import Path

from benchmarks.data import folder, sample
from benchmarks.table import Result
from curation.config import Curation
from curation.job import curate
from curation.share.options import Publish
from curation.share.publication import publish
from ingest import job
from ingest.engine import Pool
from ingest.sources.coco import Coco
from schemas.dataset import Dataset
from schemas.settings import load


def run(quick: bool) -> Result:
    """MB/s of publishing samples and images, beside `shutil.copyfile` of the files that it makes."""
    images = 60 if quick else 600
    tree = sample(images, 4 if quick else 30)
    url = str(folder() / f"publish-{images}")
    for split in ("train2017", "val2017"):
        source = Coco(
            images=str(tree / "coco" / split), instances=str(tree / f"coco/annotations/instances_{split}.json")
        )
        job.ingest(source, url, job.Options(), Pool(workers=0))
    config = load(Curation, None, ["models.face=none", "models.image_embedding=none"])
    curate(url, config, Pool(workers=0))
    dataset = Dataset(url)
    licenses = {row["license"] or "none" for row in dataset.read("images", ["license"]).to_pylist()}
    rows = []
    for images_too in (True, False):
        options = Publish(
            tables=("samples", "images"), images=images_too, accept_licenses=tuple(licenses), shard_bytes=32 << 20
        )
        took, copied, size = _measure(dataset, options, 2 if quick else 5)
        what = "with pictures" if images_too else "ids, masks, scores"
        rows.append(
            [
                what,
                f"{size / 1e6:.0f}",
                f"{size / took / 1e6:.0f}",
                f"{size / copied / 1e6:.0f}",
                f"{copied / took:.2f}",
            ]
        )
    return Result(
        "Publishing",
        ("what", "MB", "MB/s", "copy MB/s", "share"),
        rows,
        "Wall time of one process, synced to disk, warm cache, median of rounds in turn. The copy is `shutil.copyfile` "
        "and an fsync of each file of the publication. Publishing reads every file twice and hashes what it reads and "
        "what it writes; without pictures it still has to read and hash all of them.",
        [],
    )


def _measure(dataset: Dataset, options: Publish, rounds: int) -> tuple[float, float, int]:
    """Median seconds of publishing and of copying what was published, and its bytes."""
    out, copy = folder() / "publish-out", folder() / "publish-copy"
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(copy, ignore_errors=True)
        start = time.perf_counter()
        publish(dataset, str(out), options)
        middle = time.perf_counter()
        size = _copy(out, copy)
        times.append((middle - start, time.perf_counter() - middle))
    shutil.rmtree(out)
    shutil.rmtree(copy)
    counted = times[1:]
    return statistics.median(one for one, _ in counted), statistics.median(other for _, other in counted), size


def _copy(source: Path, dest: Path) -> int:
    """Copy the files of a publication, synced as publishing syncs them; returns their bytes."""
    size = 0
    for path in sorted((source / "data").rglob("*.parquet")):
        target = dest / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())
        size += path.stat().st_size
    return size
