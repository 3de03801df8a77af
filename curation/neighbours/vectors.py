"""Embeddings of a dataset as one array: ids and unit vectors, in memory or in a file that workers map."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.neighbours.pairs import Floats
from schemas.dataset import Dataset


def matrix(column: pa.ChunkedArray | pa.Array) -> Floats:
    """A column of lists of one length: (N, D); (0, 0) if it is empty."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in chunks if len(chunk)]
    return np.concatenate(parts).astype(np.float32, copy=False) if parts else np.zeros((0, 0), np.float32)


def read_vectors(
    dataset: Dataset,
    table: str,
    key: str,
    *,
    wanted: Callable[[str], bool] = lambda name: True,
    units: Sequence[str] | None = None,
    file: Path | None = None,
) -> tuple[list[str], Floats]:
    """Ids and embeddings of a table, unit after unit: no more than one unit is held twice.

    Args:
        dataset: where.
        table: `embeddings` or `faces`; the vectors are its column `embedding`.
        key: its id column.
        wanted: which ids to take.
        units: all by default.
        file: where to put the array instead of into memory; workers on the same disk map it.
    """
    ids: list[str] = []
    vectors: Floats | None = None
    for unit in dataset.units() if units is None else units:
        rows = dataset.read(table, [key, "embedding"], unit=unit)
        rows = rows.filter(pa.compute.is_valid(rows["embedding"]))
        names: list[str] = rows[key].to_pylist()
        chosen = np.array([wanted(name) for name in names], bool)
        if not chosen.any():
            continue
        part = matrix(rows["embedding"])[chosen]
        if vectors is None:
            vectors = _room(_count(dataset, table), part.shape[1], file)
        vectors[len(ids) : len(ids) + len(part)] = part
        ids += [name for name, taken in zip(names, chosen, strict=True) if taken]
    if vectors is None:
        return [], np.zeros((0, 0), np.float32)
    return ids, vectors[: len(ids)]


def _count(dataset: Dataset, table: str) -> int:
    return int(dataset.table_summary()[table]["rows"])


def _room(rows: int, width: int, file: Path | None) -> Floats:
    if file is None:
        return np.empty((rows, width), np.float32)
    mapped: Floats = np.lib.format.open_memmap(file, "w+", np.float32, (rows, width))
    return mapped
