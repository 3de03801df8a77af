"""Time of one random row of each table that holds pictures."""

import random
import time

import pyarrow.parquet as pq

from benchmarks.data import coco_like, folder, sample
from benchmarks.table import Result
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.coco import Coco
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import load


def run(quick: bool) -> Result:
    """Milliseconds for one picture and one sample at random, warm cache."""
    images = 60 if quick else 600
    tree = sample(images, 4 if quick else 30)
    annotations = coco_like(tree / "coco/annotations/instances_train2017.json")
    url = str(folder() / f"rows-{images}")
    source = Coco(images=str(tree / "coco/train2017"), instances=str(annotations))
    job.ingest(source, url, job.Options(), Pool(workers=0))
    config = load(Curation, None, ["models.face=none", "models.image_embedding=none", "models.classifier=none"])
    curate(url, config, Pool(workers=0))
    dataset = Dataset(url)
    rows = []
    for table, directory in (("images", "images"), ("samples", "samples/train")):
        files = [file for unit in dataset.manifests("ingest" if table == "images" else "compose").values()
                 for file in unit.files_of(directory)]  # fmt: skip
        groups = [
            (dataset.folder.at(file.path), group, reader.metadata.row_group(group))
            for file in files
            for reader in [pq.ParquetFile(dataset.folder.at(file.path))]
            for group in range(reader.num_row_groups)
        ]
        size = sum(group.total_byte_size for *_, group in groups) / len(groups)
        rng, taken = random.Random(0), []
        for _ in range(20 if quick else 100):
            path, number, group = rng.choice(groups)
            start = time.perf_counter()
            read = pq.ParquetFile(path).read_row_group(number, use_threads=False)
            read.slice(rng.randrange(group.num_rows), 1).to_pylist()
            taken.append(time.perf_counter() - start)
        taken.sort()
        per_group = sum(group.num_rows for *_, group in groups) / len(groups)
        rows.append([table, f"{per_group:.0f}", f"{size / 1e6:.0f}", f"{taken[len(taken) // 2] * 1e3:.1f}"])
    return Result(
        "One random row",
        ("table", "rows a group", "MB a group", "ms, median"),
        rows,
        "Open the file, read the row group that holds the row, take the row; local disk, warm cache.",
        [],
    )
