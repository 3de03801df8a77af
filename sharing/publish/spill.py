"""The rows of one table and split between the two passes: in a file on disk, any row at hand, in the order to come.

What is in memory is 40 bytes a row: two halves of the key's hash, batch and row in the file, bytes of the pictures
and of the rest.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.schemas import strict
from refloom.schemas.storeerrors import full_disk_stops
from refloom.sharing.publish.addresses import PICTURES_FIELD
from refloom.sharing.publish.rows import key_of, spill_schema
from refloom.sharing.publish.sizes import row_sizes

Int64 = npt.NDArray[np.int64]

_COLUMNS = ("high", "low", "batch", "row", "pictures", "scalars")


class SpillWriter:
    """Takes batches; `close` makes the spill appear as a whole."""

    def __init__(self, folder: Path, table: str, split: str) -> None:
        """Files `<table>.<split>.arrow` and `.npz` in `folder`."""
        self._stem = folder / f"{table}.{split}"
        self._table = table
        self._columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._batches = 0
        self._where = str(folder)
        self._file = open(self._partial, "wb")  # noqa: SIM115  closed by close
        self._writer = pa.ipc.new_file(self._file, spill_schema(table))

    @property
    def _partial(self) -> Path:
        return self._stem.with_name(self._stem.name + ".arrow.partial")

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows of `spill_schema`."""
        if not batch.num_rows:
            return
        keys = batch.column(key_of(self._table)).to_pylist()
        digests = np.frombuffer(b"".join(hashlib.sha256(key.encode()).digest()[:16] for key in keys), ">u8")
        halves = digests.astype(np.uint64).reshape(-1, 2)
        scalars = batch.select([name for name in batch.schema.names if name != PICTURES_FIELD])
        found = {
            "high": halves[:, 0],
            "low": halves[:, 1],
            "batch": np.full(batch.num_rows, self._batches, np.int32),
            "row": np.arange(batch.num_rows, dtype=np.int32),
            "pictures": _picture_bytes(batch.column(PICTURES_FIELD)),
            "scalars": row_sizes(scalars),
        }
        for name, values in found.items():
            self._columns[name].append(values)
        with full_disk_stops(self._where):
            self._writer.write_batch(batch)
        self._batches += 1

    def close(self) -> None:
        """Finish; the index comes last and says that the rows are all there."""
        with full_disk_stops(self._where):
            self._writer.close()
            self._file.close()
            os.replace(self._partial, self._stem.with_name(self._stem.name + ".arrow"))
            arrays = {
                name: np.concatenate(parts) if parts else np.empty(0, np.int64) for name, parts in self._columns.items()
            }
            index = self._stem.with_name(self._stem.name + ".partial.npz")
            np.savez(index, allow_pickle=False, **arrays)
            os.replace(index, self._stem.with_name(self._stem.name + ".npz"))


class Spill:
    """A finished spill: rows in the order of their keys' hashes, each key once."""

    def __init__(self, folder: Path, table: str, split: str) -> None:
        stem = folder / f"{table}.{split}"
        with np.load(stem.with_name(stem.name + ".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _COLUMNS}
        order = np.lexsort((arrays["low"], arrays["high"]))
        high, low = arrays["high"][order], arrays["low"][order]
        fresh = np.ones(len(order), bool)
        fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        order = order[fresh]
        self.table, self.split = table, split
        self.pictures: Int64 = arrays["pictures"][order].astype(np.int64)
        self.scalars: Int64 = arrays["scalars"][order].astype(np.int64)
        self._batch = arrays["batch"][order]
        self._row = arrays["row"][order]
        self._source = pa.memory_map(str(stem.with_name(stem.name + ".arrow")))
        self._reader = pa.ipc.open_file(self._source)

    def __len__(self) -> int:
        return len(self._batch)

    def take(self, start: int, stop: int) -> pa.Table:
        """Rows `start` to `stop` in order, in memory of their own."""
        batches, rows = self._batch[start:stop], self._row[start:stop]
        by_batch = np.argsort(batches, kind="stable")
        numbers, firsts = np.unique(batches[by_batch], return_index=True)
        pieces = [
            self._reader.get_batch(int(number)).take(pa.array(rows[positions]))
            for number, positions in zip(numbers, np.split(by_batch, firsts[1:]), strict=True)
        ]
        together = pa.Table.from_batches(pieces, spill_schema(self.table)).combine_chunks()
        back = np.empty(stop - start, np.int64)
        back[by_batch] = np.arange(stop - start)
        return together.take(pa.array(back)).combine_chunks()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()


def _picture_bytes(addresses: pa.Array) -> Int64:
    """Bytes of all pictures of each row (N,)."""
    lengths = addresses.flatten().field("length").fill_null(0).to_numpy(zero_copy_only=False)
    total = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    counts = addresses.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(counts, dtype=np.int64)
    return np.asarray(total[ends] - total[ends - counts], np.int64)


def save_json(path: Path, value: Any) -> None:
    """Write json whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(strict.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")
    os.replace(partial, path)


def load_json(path: Path) -> Any:
    """What `save_json` wrote, or None."""
    try:
        return strict.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
