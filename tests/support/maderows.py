"""Stages over the whole dataset on made rows: a tiny dataset of them in memory, curated, and the rows of its table."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from helpers import HERE

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.passes.sizes import TaskSizes
from refloom.schemas import lease
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.storage import Folder
from refloom.schemas.tables import TABLES
from refloom.schemas.unit import UnitKey, UnitWriter

Row = dict[str, Any]
Rows = Mapping[str, Sequence[Row]]
"""Table to its rows."""

_USUAL: dict[str, Row] = {
    "images": {"width": 640, "height": 480, "orientation": 1, "faces_blurred": False},
    "objects": {"kind": "object", "box": [64, 48, 576, 432]},
    "faces": {"box": [0, 0, 100, 100], "crop_box": [0, 0, 100, 100]},
    "image_scores": {"phash": 0, "brightness": 0.5, "contrast": 0.2},
    "source_groups": {"kind": "folder"},
    "selection": {"verdict": "keep"},
}
"""Columns where a row does not say otherwise; all others are null."""
_ASKED = ("ingest", "measure", "quality", "select")
"""Stages that must be there, with or without rows, for dedup and match."""
_numbers = itertools.count()
FINE = TaskSizes(part_rows=1, slab_mb=0.02, chunk_mb=0.02, chunk_gflop=1e-5, batch_pairs=3)
"""Nearly everything in a task of its own."""


def digest(word: str) -> str:
    """The sha256 of a picture whose bytes are a word."""
    return hashlib.sha256(word.encode()).hexdigest()


def together(image: Row) -> str:
    """All pictures in one unit."""
    return "u0"


def scattered(image: Row) -> str:
    """Pictures over four units by their ids, those of one video in one."""
    return f"u{int(digest(image.get('video_id') or image['image_id'])[:8], 16) % 4}"


@contextmanager
def made(tables: Rows, unit_of: Callable[[Row], str] = together) -> Iterator[Dataset]:
    """A dataset of made rows in memory, gone at the end.

    Args:
        tables: the rows; each lies in the unit of its picture, a source group in that of its first member.
        unit_of: the unit of a row of `images`.
    """
    url = f"memory://made-{next(_numbers)}"
    try:
        yield committed(url, tables, unit_of)
    finally:
        Folder(url).remove_tree("")


def committed(url: str, tables: Rows, unit_of: Callable[[Row], str] = together) -> Dataset:
    """Commit made rows as the stages that write their tables; see `made`."""
    dataset = Dataset(url, create=True)
    where = {row["image_id"]: unit_of(row) for row in tables["images"]}
    for stage in sorted({TABLES[name].stage for name in tables}.union(_ASKED)):
        by_unit: dict[str, list[tuple[str, Row]]] = defaultdict(list)
        for name, rows in tables.items():
            for row in rows if TABLES[name].stage == stage else ():
                by_unit[where[_picture(name, row)]].append((name, _USUAL.get(name, {}) | row))
        for unit in sorted(set(where.values())):
            with UnitWriter(dataset.folder, UnitKey(stage, unit, "made")) as out:
                for name, row in by_unit[unit]:
                    out.add(name, row)
    return dataset


def _picture(table: str, row: Row) -> str:
    if table == "source_groups":
        return str(row["members"][0])
    return str(row.get("image_id") or image_of(row[TABLES[table].key]))


def rows_after(dataset: Dataset, stage: str, config: Curation) -> list[Row]:
    """Curate one stage in this process; returns the rows of its table by id."""
    with mock.patch.object(lease, "_SETTLE_S", 0.0):  # no other writer can come to a store in memory
        curate(dataset.url, config, HERE, only=stage)
    dataset.refresh()
    (table,) = (one for one in TABLES.values() if one.stage == stage)
    rows: list[Row] = dataset.read(table.name).to_pylist()
    return sorted(rows, key=lambda row: str(row[table.key]))


def rows_of(stage: str, tables: Rows, config: Curation, unit_of: Callable[[Row], str] = together) -> list[Row]:
    """The rows that `refloom curate --only <stage>` writes for made rows."""
    with made(tables, unit_of) as dataset:
        return rows_after(dataset, stage, config)
