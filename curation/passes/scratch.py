"""The scratch folder of a stage over the whole dataset: what its passes leave for each other.

    work/<stage>/<fingerprint of inputs and settings>/
      inputs.json               the inputs' fingerprints: when one of them changes, the folder is garbage
      results/<pass>/<task>.json  the last that a task writes: what is there is done
      <what>/<part>.arrow       columns of a part of the dataset
      <what>/<part>.bin         rows of fixed size, little endian: read by ranges, wherever the dataset lies

Files appear whole, so a task that was killed is done again, and writes the same bytes.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.schemas.dataset import INPUTS, WORK
from refloom.schemas.storage import Folder

_GAP_BYTES = 1 << 16
"""Ranges nearer than this are read as one: a request to a store costs more than these bytes."""
_BATCH_BYTES = 64 << 20

TaskResult = dict[str, Any]


class Rows:
    """Rows of fixed size in one file, read by ranges."""

    def __init__(self, folder: Folder, path: str, dtype: npt.DTypeLike, width: int | None = None) -> None:
        """Nothing is read yet.

        Args:
            folder, path: where.
            dtype: of a row, or of its numbers.
            width: numbers in a row; None for one.
        """
        self._folder, self._path = folder, path
        self._dtype, self._width = np.dtype(dtype), width
        self._row_bytes = self._dtype.itemsize * (width or 1)

    def all(self) -> npt.NDArray[Any]:
        """Every row."""
        return self._array(self._folder.read(self._path))

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows from `start` to before `stop`."""
        if stop <= start:
            return self._array(b"")
        (data,) = self._folder.read_ranges(self._path, [(start * self._row_bytes, stop * self._row_bytes)])
        return self._array(data)

    def take(self, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """(T,) rows at rising places; near ones are read together."""
        if not len(places):
            return self._array(b"")
        apart = np.flatnonzero((places[1:] - places[:-1]) * self._row_bytes > _GAP_BYTES) + 1
        runs = [(int(run[0]), int(run[-1]) + 1, run) for run in np.split(places, apart)]
        parts = []
        for batch in _batches(runs, self._row_bytes):
            ranges = [(first * self._row_bytes, last * self._row_bytes) for first, last, _ in batch]
            read = self._folder.read_ranges(self._path, ranges)
            parts += [self._array(data)[run - first] for data, (first, _, run) in zip(read, batch, strict=True)]
        return np.concatenate(parts)

    def _array(self, data: bytes) -> npt.NDArray[Any]:
        flat = np.frombuffer(data, self._dtype)
        return flat if self._width is None else flat.reshape(-1, self._width)


Run = tuple[int, int, npt.NDArray[np.int64]]


def _batches(runs: list[Run], row_bytes: int) -> Iterator[list[Run]]:
    """Runs that are read at once."""
    batch: list[Run] = []
    held = 0
    for run in runs:
        size = (run[1] - run[0]) * row_bytes
        if batch and held + size > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(run)
        held += size
    yield batch


class Scratch:
    """One stage's scratch folder for one state of its inputs."""

    def __init__(self, dataset: Folder, stage: str, fingerprint: str) -> None:
        """Nothing is made yet.

        Args:
            dataset: the dataset's folder.
            stage: whose.
            fingerprint: of inputs and settings.
        """
        self._dataset, self._stage, self.fingerprint = dataset, stage, fingerprint
        self.folder = dataset.below(f"{WORK}/{stage}/{fingerprint}")

    def begin(self, inputs: Mapping[str, str]) -> None:
        """Make the folder, and remove what other states of the stage's inputs have left."""
        for other in self._dataset.folders(f"{WORK}/{self._stage}"):
            if other != self.fingerprint:
                self._dataset.remove_tree(f"{WORK}/{self._stage}/{other}")
        if not self.folder.exists(INPUTS):
            self.folder.write(INPUTS, json.dumps(dict(inputs), sort_keys=True).encode())

    def remove(self) -> None:
        """The stage is committed."""
        self._dataset.remove_tree(f"{WORK}/{self._stage}")
        if not self._dataset.folders(WORK) and not self._dataset.names(WORK):
            self._dataset.remove_tree(WORK)

    # -- results ------------------------------------------------------------------------------------------------

    def done(self, pass_name: str) -> set[str]:
        """Names of the tasks of a pass that are done."""
        return {
            name.removesuffix(".json") for name in self.folder.names(f"results/{pass_name}") if name.endswith(".json")
        }

    def sign(self, pass_name: str, task: str, result: TaskResult) -> None:
        """The last act of a task."""
        self.write_json(f"results/{pass_name}/{task}.json", result)

    def result(self, pass_name: str, task: str) -> TaskResult:
        """What a task of an earlier pass said."""
        found: TaskResult = self.read_json(f"results/{pass_name}/{task}.json")
        return found

    def results(self, pass_name: str) -> dict[str, TaskResult]:
        """Task to what it said, for all tasks of a pass."""
        return {task: self.result(pass_name, task) for task in sorted(self.done(pass_name))}

    # -- files ---------------------------------------------------------------------------------------------------

    def write_json(self, path: str, value: Any) -> None:
        """A json value."""
        self.folder.write(path, json.dumps(value, separators=(",", ":")).encode())

    def read_json(self, path: str) -> Any:
        """A json value."""
        return json.loads(self.folder.read(path))

    def write_table(self, path: str, table: pa.Table) -> None:
        """Columns."""
        with self.folder.create(path) as file, pa.ipc.new_file(pa.PythonFile(file, "w"), table.schema) as writer:
            writer.write_table(table)

    def read_table(self, path: str) -> pa.Table:
        """Columns."""
        return pa.ipc.open_file(pa.BufferReader(self.folder.read(path))).read_all()

    def write_array(self, path: str, array: npt.NDArray[Any]) -> None:
        """Rows of fixed size."""
        with self.rows(path) as write:
            write(array)

    @contextmanager
    def rows(self, path: str) -> Iterator[Any]:
        """A function that adds rows of fixed size to a file."""
        with self.folder.create(path) as file:

            def write(array: npt.NDArray[Any]) -> None:
                if len(array):
                    file.write(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)

            yield write

    def array(self, path: str, dtype: npt.DTypeLike, width: int | None = None) -> Rows:
        """Rows of fixed size, to be read."""
        return Rows(self.folder, path, dtype, width)

    # -- rows of all parts ---------------------------------------------------------------------------------------

    def take(self, what: str, rows: npt.NDArray[np.int64]) -> pa.Table:
        """Columns of rows numbered by `row_number`, in their order; reads part after part."""
        tables = [
            self.read_table(f"{what}/{part_name(part)}.arrow").take(pa.array(places))
            for part, places, _ in by_part(rows)
        ]
        return pa.concat_tables(tables).take(pa.array(_back(rows)))

    def vectors(self, what: str, rows: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.float32]:
        """(T, D) vectors of rows numbered by `row_number`, in their order."""
        out = np.empty((len(rows), width), np.float32)
        for part, places, where in by_part(rows):
            out[where] = self.array(f"{what}/{part_name(part)}.bin", np.float32, width).take(places)
        return out


_PART_SHIFT = 32


def part_name(part: int) -> str:
    """The name of a part's files."""
    return f"{part:06d}"


def row_number(part: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers of rows over all parts, from their places in one."""
    return places.astype(np.int64) | np.int64(part << _PART_SHIFT)


def part_of(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The parts of rows numbered over all parts."""
    return rows >> _PART_SHIFT


def by_part(
    rows: npt.NDArray[np.int64],
) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Rows part by part: the part, rising places in it, and where the rows stand among those given."""
    if not len(rows):
        return
    order = np.argsort(rows, kind="stable")
    parts = part_of(rows[order])
    numbers, starts = np.unique(parts, return_index=True)
    for part, where in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield part, rows[where] & ((1 << _PART_SHIFT) - 1), where


def _back(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each of the rows stands when they are in rising order."""
    back = np.empty(len(rows), np.int64)
    back[np.argsort(rows, kind="stable")] = np.arange(len(rows))
    return back
