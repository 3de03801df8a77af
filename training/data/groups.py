"""Row groups in memory: each read once while its window lasts, the latest kept within a bound in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from refloom.training.data.buckets import Size
from refloom.training.data.catalogue import Catalogue
from refloom.training.data.draws import Purpose, generator
from refloom.training.data.index import Index
from refloom.training.data.sample import Sample
from refloom.training.views.example import Example
from refloom.training.views.subjects import shown_in
from refloom.training.views.variants import chosen, placed, variant
from refloom.training.views.view import View

if TYPE_CHECKING:  # it reads this package's index
    from refloom.training.features.store import Store, StoredRows


class Result(Protocol):
    """What a started piece of work will give; `concurrent.futures.Future` is one."""

    def result(self) -> Any:
        """Wait for it."""


Submit = Callable[..., Result]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which example of a row is wanted.

    Attributes:
        view: that makes it.
        size: (height, width) of the target, pixels.
        seed: of the run.
        position: in the stream.
        variants: of each target, one of which is drawn; None for an example of this position's own.
    """

    view: View
    size: Size
    seed: int
    position: int
    variants: int | None

    def number(self) -> int:
        """Of the variant."""
        return chosen(self.seed, self.position, self.variants or 1)


class Rows(Protocol):
    """The accepted rows of one row group."""

    def __len__(self) -> int: ...

    def sample_id(self, row: int) -> str:
        """Of an accepted row."""
        ...

    def example(self, row: int, target: int, wanted: Wanted) -> Example:
        """Of an accepted row and one of its targets.

        Raises:
            Rejected: something of it is damaged.
        """
        ...


class AcceptedRows:
    """Rows whose examples are made of their pictures; see `Rows`."""

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

    def sample_id(self, row: int) -> str:
        """See `Rows.sample_id`."""
        return str(self._rest.column("sample_id")[row].as_py())

    def example(self, row: int, target: int, wanted: Wanted) -> Example:
        """See `Rows.example`."""
        sample, view = self.sample(row), wanted.view
        if wanted.variants is None:
            rng = generator(wanted.seed, wanted.position, Purpose.VIEW)
            made = replace(view.example(sample, target, wanted.size, rng), position=wanted.position)
        else:
            made = variant(view, sample, target, wanted.size, wanted.number())
            made = placed(made, view, wanted.seed, wanted.position)
        return replace(made, shows=shown_in(sample.row))


class KeptRows:
    """Rows whose features were computed before; see `Rows`.

    Args:
        kept: their features.
        rows: numbers of the accepted rows in the row group.
        pictures: the rows themselves, where the method reads pictures of references; None decodes nothing.
    """

    def __init__(self, kept: "StoredRows", rows: Sequence[int], pictures: AcceptedRows | None) -> None:
        self._kept, self._rows, self._pictures = kept, rows, pictures

    def __len__(self) -> int:
        return len(self._rows)

    def sample_id(self, row: int) -> str:
        """See `Rows.sample_id`."""
        return self._kept.sample_id(self._rows[row])

    def example(self, row: int, target: int, wanted: Wanted) -> Example:
        """See `Rows.example`."""
        number = self._rows[row]
        if self._pictures is None:
            made = self._kept.example(number, target, wanted.number())
            return placed(made, wanted.view, wanted.seed, wanted.position)
        stored = self._kept.stored(self._kept.record(number, target, wanted.number()))
        return replace(self._pictures.example(row, target, wanted), stored=stored)


class RowGroups:
    """Row groups of some datasets, read when they are asked for."""

    def __init__(
        self,
        indexes: Sequence[Index],
        catalogues: Sequence[Catalogue],
        submit: Submit,
        limit_bytes: int,
        stores: Sequence["Store"] | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            indexes, catalogues: of the datasets.
            submit: starts a piece of work: (function, arguments).
            limit_bytes: of the row groups that are kept; those in use may be more.
            stores: features of the datasets; None reads pictures.
        """
        self._indexes, self._catalogues, self._stores = indexes, catalogues, stores
        self._starts = [catalogue.starts for catalogue in catalogues]
        self._submit, self._limit = submit, limit_bytes
        self._kept: OrderedDict[tuple[int, int], tuple[Result, int]] = OrderedDict()
        self.reads = 0
        self.read_bytes = 0

    def get(self, source: int, group: int) -> Result:
        """A row group, as work whose result is `Rows`; started now unless it is there."""
        key = (source, group)
        if key not in self._kept:
            size, read = self._sizes(source, group)
            self._kept[key] = (self._submit(self._read, source, group), size)
            self.reads, self.read_bytes = self.reads + 1, self.read_bytes + read
            while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _sizes(self, source: int, group: int) -> tuple[int, int]:
        """Bytes that are kept of a row group, and bytes that are read for that."""
        index, kept = self._indexes[source], int(self._catalogues[source].group_bytes[group])
        if self._stores is None:
            return kept, index.group_bytes[group]
        store = self._stores[source]
        features = store.bytes_of(index.groups[group])
        return (features, features) if store.summary.whole else (kept + features, index.group_bytes[group] + features)

    def _read(self, source: int, group: int) -> Rows:
        index, catalogue = self._indexes[source], self._catalogues[source]
        start = int(self._starts[source][group])
        rows = np.asarray(catalogue.rows[start : start + int(catalogue.counts[group])]).tolist()
        key = index.groups[group]
        if self._stores is None:
            return AcceptedRows(index.read(key), rows)
        store = self._stores[source]
        return KeptRows(store.read(key), rows, None if store.summary.whole else AcceptedRows(index.read(key), rows))
