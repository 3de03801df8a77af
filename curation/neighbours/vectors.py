"""Embeddings of a dataset, a row group at a time: ids and unit vectors."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pyarrow as pa

from refloom.curation.neighbours.pairs import Floats
from refloom.schemas.dataset import Dataset


def matrix(column: pa.ChunkedArray | pa.Array) -> Floats:
    """A column of lists of one length: (N, D); (0, 0) if it is empty."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in chunks if len(chunk)]
    return np.concatenate(parts).astype(np.float32, copy=False) if parts else np.zeros((0, 0), np.float32)


def vectors_of(
    dataset: Dataset, table: str, key: str, units: Sequence[str], wanted: Collection[str]
) -> Iterator[tuple[list[str], Floats]]:
    """Ids and embeddings of the wanted rows of a table that have one: memory does not grow with the unit.

    Args:
        dataset: where.
        table: `embeddings` or `faces`; the vectors are its column `embedding`.
        key: its id column.
        units: whose.
        wanted: ids to take.
    """
    for unit in units if wanted else ():  # what nobody wants is not read
        for batch in dataset.batches(table, [key, "embedding"], unit=unit):
            names = batch.column(key).to_pylist()
            known = batch.column("embedding").is_valid().to_pylist()
            chosen = np.array([there and name in wanted for name, there in zip(names, known, strict=True)], bool)
            if chosen.any():
                vectors = matrix(batch.column("embedding").filter(pa.array(chosen)))
                yield [name for name, taken in zip(names, chosen, strict=True) if taken], vectors
