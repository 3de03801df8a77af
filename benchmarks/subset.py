"""Making a subset as a share of its floor: hash and read the source, write what stays, hashed, on one core."""

import hashlib
import json
import os
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import folder, sample
from benchmarks.publish import measure
from benchmarks.table import Result
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.coco import Coco
from refloom.schemas import parquet
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.settings import load
from refloom.schemas.storage import Folder
from refloom.sharing.datasets.choice import Choice
from refloom.sharing.datasets.subset import take

WANTED = 0.7
_OUT = "subset-out"
SHARES = (1.0, 0.5, 0.1)


def run(quick: bool) -> Result:
    """MB/s of subsets of several shares, beside the floor."""
    images, copies = (60, 1) if quick else (300, 4)
    url = str(folder() / f"subset-{images}-{copies}")
    _build(sample(images, 4), url, copies)
    rows, checks = [], []
    for share in SHARES:
        row, reached = measured(Dataset(url), share, 2 if quick else 5)
        rows.append(row)
        checks.append((f"share {share:g}: {reached:.2f} of the floor; {WANTED} wanted", reached >= WANTED))
    return Result(
        "Subsets",
        ("share of samples", "MB read", "MB written", "MB/s read", "floor MB/s", "of floor", "of floor, CPU"),
        rows,
        "Wall time of one process, synced to disk, warm cache, least of rounds in turn. The floor hashes every file of "
        "the source, reads it with pyarrow, drops the rows that go, and writes the others the same way, hashed: "
        "groups, ledgers and counts stay wrong in it, and no manifest is written. The choice of what stays, a lease, "
        "the card and dataset.json are in ours, which small datasets feel most.",
        checks,
    )


def _build(tree: Path, url: str, copies: int) -> None:
    """The pictures of train2017 several times, under ids of their own, in units of the usual size."""
    place = folder() / f"{Path(url).name}-source"
    place.mkdir(exist_ok=True)
    document = json.loads((tree / "coco/annotations/instances_train2017.json").read_text())
    images, annotations = document["images"], document["annotations"]
    document |= {"images": [], "annotations": []}
    for copy in range(copies):
        for image in images:
            name = f"{copy}-{image['file_name']}"
            if not (place / name).exists():
                os.link(tree / "coco/train2017" / image["file_name"], place / name)
            document["images"].append(image | {"id": image["id"] * copies + copy, "file_name": name})
        for one in annotations:
            ids = {name: one[name] * copies + copy for name in ("id", "image_id")}
            document["annotations"].append(one | ids)
    (place / "instances.json").write_text(json.dumps(document))
    source = Coco(images=str(place), instances=str(place / "instances.json"))
    job.ingest(source, url, job.Options(), Pool(workers=0))
    settings = ["models.face=none", "models.image_embedding=none", "models.classifier=none", "dedup.by=[]"]
    curate(url, load(Curation, None, settings), Pool(workers=0))


def measured(dataset: Dataset, share: float, rounds: int) -> tuple[list[str], float]:
    """A row of the table, and the share of the floor that is reached."""
    files = [file for stage in STAGES for one in dataset.manifests(stage).values() for file in one.files]
    size = sum(file.bytes for file in files)
    out = folder() / _OUT
    work = {
        "ours": partial(take, dataset.url, str(out), Choice(share=share), Pool(workers=0)),
        "floor": partial(_floor, dataset, [file.path for file in files], out, share),
    }
    wall, cpu = measure(work, rounds, out)
    take(dataset.url, str(out), Choice(share=share), Pool(workers=0))
    made = Dataset(str(out))
    written = sum(file.bytes for stage in STAGES for one in made.manifests(stage).values() for file in one.files)
    shutil.rmtree(out)
    reached = wall["floor"] / wall["ours"]
    speeds = [f"{size / wall[name] / 1e6:.0f}" for name in work]
    cells = [f"{share:g}", f"{size / 1e6:.0f}", f"{written / 1e6:.0f}", *speeds]
    return [*cells, f"{reached:.2f}", f"{cpu['floor'] / cpu['ours']:.2f}"], reached


def _floor(dataset: Dataset, paths: list[str], dest: Path, share: float) -> None:
    """Hash, read, drop rows, write with pyarrow, and nothing else."""
    for path in paths:
        with dataset.folder.open(path) as source:
            data = source.read()
        hashlib.sha256(data)
        with ExitStack() as stack:
            reader = stack.enter_context(pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True))
            sink = stack.enter_context(Folder(dest).create(path))
            schema = reader.schema_arrow
            writer = stack.enter_context(pq.ParquetWriter(sink, schema, **parquet.options(schema)))
            for group in range(reader.num_row_groups):
                rows = reader.read_row_group(group, use_threads=False)
                kept = np.zeros(rows.num_rows, np.bool_)
                kept[: round(share * rows.num_rows)] = True
                rows = rows.filter(pa.array(kept))
                writer.write_table(rows, row_group_size=max(1, rows.num_rows))
