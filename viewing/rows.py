"""Rows by id out of the units that hold them: no row group is read beyond its ids unless a wanted row lies in it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.tables import TABLES

Row = dict[str, Any]


def fetch(dataset: Dataset, table: str, wanted: Mapping[str, set[str]], columns: Sequence[str]) -> Iterator[Row]:
    """Give rows of a table, in the order of units and rows, one row group in memory at a time.

    Args:
        dataset: where.
        table: a name in `TABLES`.
        wanted: unit to the ids of its rows; an id that is not there is passed over.
        columns: what to read of the wanted rows; what files of another version lack is None.
    """
    key, stage = TABLES[table].key, TABLES[table].stage
    for unit, ids in sorted(wanted.items()):
        manifest = dataset.manifest(stage, unit)
        known = pa.array(sorted(ids), pa.string())
        for file in manifest.files_of(table) if manifest is not None else []:
            with dataset.opened(table, file.path) as reader:
                known_columns = [name for name in columns if name in reader.schema_arrow.names]
                for group in range(reader.num_row_groups):
                    names = reader.read_row_group(group, columns=[key], use_threads=False).column(0)
                    hits = np.flatnonzero(pc.is_in(names, value_set=known))
                    if not len(hits):
                        continue
                    rows = reader.read_row_group(group, columns=known_columns, use_threads=False)
                    for hit in hits.tolist():  # one by one: a slice of pictures is not copied
                        yield dict.fromkeys(columns) | rows.slice(hit, 1).to_pylist()[0]


def units_of_pictures(dataset: Dataset, image_ids: set[str], units: Sequence[str]) -> dict[str, set[str]]:
    """Unit to those of some pictures that it holds, searching only until all are found."""
    found: dict[str, set[str]] = {}
    missing = set(image_ids)
    for unit in units:
        if not missing:
            break
        ids = dataset.read("images", ["image_id"], unit=unit)["image_id"]
        here = missing.intersection(ids.to_pylist())
        if here:
            found[unit] = here
            missing -= here
    return found


def search_order(dataset: Dataset, first: Sequence[str]) -> list[str]:
    """All units: the first ones to look into, then those of the same ingests, then the others."""
    manifests = dataset.manifests("ingest")
    likely = [unit for unit in dict.fromkeys(first) if unit in manifests]
    keys = {manifests[unit].key for unit in likely}
    others = [unit for unit in manifests if unit not in set(likely)]
    return likely + sorted(others, key=lambda unit: manifests[unit].key not in keys)
