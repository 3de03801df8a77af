"""Publishing as a share of a plain copy, and of a floor that hashes, reads and writes the same bytes, on one core."""

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import folder, sample
from benchmarks.table import Result
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.coco import Coco
from refloom.schemas import parquet
from refloom.schemas.dataset import Dataset
from refloom.schemas.parquet import File
from refloom.schemas.settings import load
from refloom.schemas.storage import Folder
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.rows import listed

TABLES = ("samples", "images")


def run(quick: bool) -> Result:
    """MB/s of publishing samples and images, beside the floor and `shutil.copyfile` of the files that hold them."""
    images = 60 if quick else 600
    tree = sample(images, 4 if quick else 30)
    url = str(folder() / f"publish-{images}")
    for split in ("train2017", "val2017"):
        source = Coco(
            images=str(tree / "coco" / split), instances=str(tree / f"coco/annotations/instances_{split}.json")
        )
        job.ingest(source, url, job.Options(), Pool(workers=0))
    config = load(Curation, None, ["models.face=none", "models.image_embedding=none", "models.classifier=none"])
    curate(url, config, Pool(workers=0))
    return Result(
        "Publishing",
        ("what", "MB", "MB/s", "floor MB/s", "copy MB/s", "of copy", "of floor", "of floor, CPU"),
        measured(Dataset(url), 2 if quick else 5),
        "MB are those of the tables that are published, as they lie in the dataset. Wall time of one process, synced "
        "to disk, warm cache, least of rounds in turn. The copy is `shutil.copyfile` and an fsync of each file. The "
        "floor hashes each file, reads it with pyarrow and, with pictures, writes it again, hashed, the same way: "
        "what publishing in the order of the dataset would have to do. A fixed fifth of a second or so of CPU (card, "
        "croissant.json, settings) is in the numbers.",
        [],
    )


def measured(dataset: Dataset, rounds: int) -> list[list[str]]:
    """Rows of the table: with pictures, and without."""
    licenses = {row["license"] or "none" for row in dataset.read("images", ["license"]).to_pylist()}
    files = [file for one in listed(dataset, TABLES) for file in one.files]
    size = sum(file.bytes for file in files)
    rows = []
    for images_too in (True, False):
        options = Publish(
            tables=TABLES, images=images_too, accept_licenses=tuple(sorted(licenses)), shard_bytes=32 << 20
        )
        work = {
            "publish": partial(publish, dataset, str(folder() / "publish-out"), options),
            "floor": partial(_floor, dataset, files, folder() / "publish-out", write=images_too),
            "copy": partial(_copy, dataset, files, folder() / "publish-out"),
        }
        wall, cpu = measure(work, rounds, folder() / "publish-out")
        rows.append(
            [
                "with pictures" if images_too else "ids, masks, scores",
                f"{size / 1e6:.0f}",
                *(f"{size / wall[name] / 1e6:.0f}" for name in work),
                f"{wall['copy'] / wall['publish']:.2f}",
                f"{wall['floor'] / wall['publish']:.2f}",
                f"{cpu['floor'] / cpu['publish']:.2f}",
            ]
        )
    return rows


def measure(work: dict[str, Callable[[], object]], rounds: int, out: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Least wall and CPU seconds of each, each round in an empty folder."""
    wall, cpu = dict.fromkeys(work, math.inf), dict.fromkeys(work, math.inf)
    for _ in range(rounds + 1):
        for name, do in work.items():
            shutil.rmtree(out, ignore_errors=True)
            start, start_cpu = time.perf_counter(), time.process_time()
            do()
            wall[name] = min(wall[name], time.perf_counter() - start)
            cpu[name] = min(cpu[name], time.process_time() - start_cpu)
    shutil.rmtree(out)
    return wall, cpu


def _floor(dataset: Dataset, files: list[File], dest: Path, *, write: bool) -> None:
    """Hash, read and write with pyarrow, and nothing else."""
    for file in files:
        with dataset.folder.open(file.path) as source:
            hashlib.file_digest(source, "sha256")
        with ExitStack() as stack:
            source = stack.enter_context(pa.memory_map(dataset.folder.at(file.path)))
            reader = stack.enter_context(pq.ParquetFile(source))
            writer = None
            if write:
                sink = stack.enter_context(Folder(dest).create(file.path))
                schema = reader.schema_arrow
                writer = stack.enter_context(pq.ParquetWriter(sink, schema, **parquet.options(schema)))
            for group in range(reader.num_row_groups):
                rows = reader.read_row_group(group, use_threads=False)
                if writer is not None:
                    writer.write_table(rows, row_group_size=rows.num_rows)


def _copy(dataset: Dataset, files: list[File], dest: Path) -> None:
    """Copy files, synced as publishing syncs them."""
    for file in files:
        target = dest / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(dataset.folder.at(file.path), target)
        with target.open("rb+") as copied:
            os.fsync(copied.fileno())
