"""Row groups in memory: each read once while its window lasts, the latest kept within a bound in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from training.data.catalogue import Catalogue
from training.data.index import Index
from training.data.sample import Sample


class Result(Protocol):
    """What a started piece of work will give; `concurrent.futures.Future` is one."""

    def result(self) -> Any:
        """Wait for it."""


Submit = Callable[..., Result]


class AcceptedRows:
    """The accepted rows of one row group."""

    def __init__(self, table: pa.Table, rows: Sequence[int]) -> None:
        """Of rows that are not accepted nothing is kept.

        Args:
            table: the row group.
            rows: numbers of the accepted rows, at least one.
        """
        if len(rows) < table.num_rows:
            table = table.take(pa.array(rows))
        self._rows = table.combine_chunks()
        self._images = self._rows.column("images").chunk(0)
        self._rest = self._rows.drop_columns(["images"])

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def sample(self, row: int) -> Sample:
        """An accepted row; its bytes are not copied."""
        (rest,) = self._rest.slice(row, 1).to_pylist()
        images = self._images[row].values.field("bytes")
        return Sample(rest, [one.as_buffer() for one in images])


class RowGroups:
    """Row groups of some datasets, read when they are asked for."""

    def __init__(
        self, indexes: Sequence[Index], catalogues: Sequence[Catalogue], submit: Submit, limit_bytes: int
    ) -> None:
        """Nothing is read yet.

        Args:
            indexes, catalogues: of the datasets.
            submit: starts a piece of work: (function, arguments).
            limit_bytes: of the row groups that are kept; those in use may be more.
        """
        self._indexes, self._catalogues = indexes, catalogues
        self._starts = [catalogue.starts for catalogue in catalogues]
        self._submit, self._limit = submit, limit_bytes
        self._kept: OrderedDict[tuple[int, int], tuple[Result, int]] = OrderedDict()
        self.reads = 0
        self.read_bytes = 0

    def get(self, source: int, group: int) -> Result:
        """A row group, as work whose result is `AcceptedRows`; started now unless it is there."""
        key = (source, group)
        if key not in self._kept:
            size = int(self._catalogues[source].group_bytes[group])
            self._kept[key] = (self._submit(self._read, source, group), size)
            self.reads, self.read_bytes = self.reads + 1, self.read_bytes + self._indexes[source].group_bytes[group]
            while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _read(self, source: int, group: int) -> AcceptedRows:
        index, catalogue = self._indexes[source], self._catalogues[source]
        start = int(self._starts[source][group])
        rows = np.asarray(catalogue.rows[start : start + int(catalogue.counts[group])])
        return AcceptedRows(index.read(index.groups[group]), rows.tolist())
