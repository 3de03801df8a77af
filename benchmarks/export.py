"""Exports for editing trainers as a share of a floor that reads, hashes and writes the same bytes, on one core."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import folder, sample
from benchmarks.table import Result, paired
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import job
from refloom.ingest.engine.heap import keep_freed_memory
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import parquet
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import load
from refloom.schemas.storage import Folder
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.sharing.export.api import Exported, export
from refloom.sharing.export.edit.settings import LAYOUTS, Edit
from refloom.sharing.export.reading import sample_files

_ASKED = 0.7
_VIDEOS = 4
_SUBJECTS = 3
"""References of each subject, so that most images of a sample are written."""
_NO_MODELS = ["models.face=none", "models.image_embedding=none", "models.classifier=none", "select.min_quality=0"]


def run(quick: bool) -> Result:
    """Milliseconds an image of each layout with whole images, and of each kind of reference, beside the floor."""
    keep_freed_memory()  # as workers do
    dataset = _dataset(4 if quick else 60)
    rounds = 2 if quick else 3
    rows, checks = [], []
    for layout in LAYOUTS:
        cells, share = _measured(dataset, Edit(layout=layout, reference="image", per_subject=_SUBJECTS), rounds)
        rows.append(cells)
        checks.append((f"{layout}, whole images: {share:.2f} of the floor, asked {_ASKED}", share >= _ASKED))
    for reference in ("box", "cutout"):
        rows.append(_measured(dataset, Edit(layout="uno", reference=reference, per_subject=_SUBJECTS), 1)[0])
    return Result(
        "Exports for editing trainers",
        ("layout", "reference", "images", "MB", "floor ms", "ours ms", "share of floor"),
        rows,
        "Milliseconds an image, CPU time of one process, median of paired runs, in memory (tmpfs). The floor reads the "
        "same files of samples and writes the very files that the export wrote, hashed and synced likewise, Bagel's by "
        "pyarrow. Ours is the whole command: examples, metadata stripped, names, the trainer's files, `sources.jsonl` "
        "and the page of the first examples, which is a fixed quarter of a second. Crops are cut from decoded images "
        "and encoded as JPEG: what they cost above whole images is decoding, cutting and encoding.",
        checks,
    )


def _dataset(times: int) -> Dataset:
    """Video samples of eight frames with masks, each many times under names of its own; made once."""
    tree, url = sample(4, _VIDEOS) / "ytvis/train", folder() / "export-videos"
    source = YouTubeVis(frames=str(tree / "JPEGImages"), annotations=str(tree / "instances.json"))
    job.ingest(source, str(url), job.Options(), Pool(workers=0))
    curate(str(url), load(Curation, None, [*_NO_MODELS, "compose.samples_per_video=4"]), Pool(workers=0))
    many = folder() / f"export-{times}"
    if not (many / "manifests").exists():
        rows = [row for row in Dataset(str(url)).read("samples").to_pylist() if row["kind"] == "video"]
        with UnitWriter(Dataset(str(many), create=True).folder, UnitKey("compose", "u0", "benchmark")) as out:
            for number in range(times):
                for row in rows:
                    size = sum(len(image["bytes"]) for image in row["images"])
                    out.add("samples", row | {"sample_id": f"{row['sample_id']}/{number}"}, weight=size, below="train")
    return Dataset(str(many))


def _measured(dataset: Dataset, edit: Edit, rounds: int) -> tuple[list[str], float]:
    """A row of the table, and the share of the floor."""
    ours, floor = folder() / "export-ours", folder() / "export-floor"
    options = {"reference": edit.reference, "per_subject": edit.per_subject, "workers": 0, "item_timeout": None}
    write: Callable[[], Exported] = partial(export, dataset, ours, "edit", layout=edit.layout, **options)  # type: ignore[arg-type]

    def clean() -> None:
        for place in (ours, floor):
            shutil.rmtree(place, ignore_errors=True)

    clean()
    images = write().written["images"]
    found = {str(path.relative_to(ours)): path for path in sorted(ours.rglob("*")) if path.parent != ours}
    files = {name: path.read_bytes() for name, path in found.items() if path.is_file() and path.suffix != ".parquet"}
    tables = {name: pq.read_table(path) for name, path in found.items() if path.suffix == ".parquet"}
    size = sum(map(len, files.values())) + sum(table.nbytes for table in tables.values())
    least, took, share = paired(partial(_floor, dataset, files, tables, floor), write, rounds, before=clean)
    clean()
    cells = [edit.layout, edit.reference, f"{images}", f"{size / 1e6:.0f}"]
    return [*cells, *(f"{1e3 * seconds / images:.2f}" for seconds in (least, took)), f"{share:.2f}"], share


def _floor(dataset: Dataset, files: dict[str, bytes], tables: dict[str, pa.Table], dest: Path) -> None:
    """Read every row group of the samples, pages checked as everywhere, and write these files and tables."""
    for file in sample_files(dataset, None):
        with parquet.opened(dataset.folder, file.path) as reader:
            for group in range(reader.num_row_groups):
                reader.read_row_group(group, use_threads=False)
    out = Folder(dest)
    for name, data in files.items():
        out.write(name, data)
    for name, table in tables.items():
        with out.create(name) as sink, pq.ParquetWriter(sink, table.schema, **parquet.options(table.schema)) as writer:
            writer.write_table(table)
