"""Which rows go into which file, and writing one file. The cut is a pure function of sizes, the order the spill's."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas.features import with_features
from refloom.schemas.fields import IMAGE
from refloom.schemas.parquet import ROW_GROUP_BYTES, File, options
from refloom.schemas.storage import Folder
from refloom.sharing.publish.addresses import PICTURES_FIELD
from refloom.sharing.publish.options import picture_column
from refloom.sharing.publish.rows import schema_of
from refloom.sharing.publish.spill import Spill

Int64 = npt.NDArray[np.int64]

_PER_MILLE = 1000


class Provider(Protocol):
    """Gives the bytes of pictures when a file is written.

    Attributes:
        nulls: how often it could not give a picture.
    """

    nulls: int

    def fill(self, address: dict[str, Any], into: memoryview) -> bool:
        """Put a picture's bytes into memory of its length; False if it has to stay null."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a table and split: rows `start` to `stop` of the spill."""

    table: str
    split: str
    number: int
    count: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """`data/<config>/<split>-00000-of-00003.parquet`."""
        return f"data/{self.table}/{self.split}-{self.number:05d}-of-{self.count:05d}.parquet"


def cut(weights: Int64, target: int) -> list[tuple[int, int]]:
    """Cut N rows where their sum passes a multiple of the target: rows of each part as (start, stop).

    Every part but the last is the target's size but for one row at each end; there is at least one part.
    """
    before = np.cumsum(weights) - weights
    numbers = before // max(target, 1)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(weights)], strict=True))


def plan(spill: Spill, target: int, *, images: bool) -> list[Shard]:
    """The files of a spill.

    Args:
        spill: rows in order.
        target: bytes of a file.
        images: whether pictures' bytes are written.

    The share to which the rest is compressed is measured on the first row group, so it is the same for the same rows.
    """
    if not len(spill):
        return []
    first = cut(spill.scalars, ROW_GROUP_BYTES)[0][1]
    empty, full = (_encoded(spill, rows) for rows in (0, first))
    measured = int(spill.scalars[:first].sum())
    ratio = max(1, (full - empty) * _PER_MILLE // max(measured, 1))
    weights = spill.scalars * ratio // _PER_MILLE + (spill.pictures if images else 0)
    parts = cut(weights, max(target - empty, target // 2))
    return [
        Shard(spill.table, spill.split, number, len(parts), start, stop) for number, (start, stop) in enumerate(parts)
    ]


def _encoded(spill: Spill, rows: int) -> int:
    """Bytes of a file with the first rows and no pictures."""
    sink = io.BytesIO()
    schema = with_features(schema_of(spill.table))
    with pq.ParquetWriter(sink, schema, **options(schema_of(spill.table))) as writer:
        if rows:
            writer.write_table(_with_pictures(spill.take(0, rows), spill.table, None), row_group_size=rows)
    return sink.tell()


def write(
    shard: Shard, spill: Spill, folder: Folder, provider: Provider | None, on_row_group: Callable[[int, int], None]
) -> File:
    """Write one file; memory holds a row group of about 48 MB.

    Args:
        shard: which rows.
        spill: holds them.
        folder: of the publication.
        provider: of pictures; None writes nulls.
        on_row_group: told rows and bytes after every row group.
    """
    schema = with_features(schema_of(shard.table))
    weights = spill.scalars + (spill.pictures if provider is not None else 0)
    with folder.create(shard.path) as sink:
        with pq.ParquetWriter(sink, schema, **options(schema_of(shard.table))) as writer:
            for start, stop in cut(weights[shard.start : shard.stop], ROW_GROUP_BYTES):
                before = sink.size
                rows = spill.take(shard.start + start, shard.start + stop)
                whole = _with_pictures(rows, shard.table, provider)
                writer.write_table(whole, row_group_size=whole.num_rows)
                on_row_group(whole.num_rows, sink.size - before)
        return File(shard.path, shard.stop - shard.start, sink.size, sink.sha256)


def _with_pictures(rows: pa.Table, table: str, provider: Provider | None) -> pa.Table:
    """Rows of a spill as rows of their table."""
    schema, column = with_features(schema_of(table)), picture_column(table)
    columns = [
        _pictures(rows, table, provider) if field.name == column else rows.column(field.name) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _pictures(rows: pa.Table, table: str, provider: Provider | None) -> pa.Array:
    addresses = rows.column(PICTURES_FIELD).to_pylist()
    flat = [one for row in addresses for one in (row or [None])]
    values = _filled(flat, provider)
    kind = schema_of(table).field(picture_column(table)).type
    if not pa.types.is_list(kind):
        return values
    lengths = np.array([len(row) for row in addresses], np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=kind)


def _filled(flat: list[dict[str, Any] | None], provider: Provider | None) -> pa.Array:
    """N pictures as one array of structs, read into one buffer."""
    if provider is None:
        return pa.nulls(len(flat), IMAGE)
    lengths = np.array([one["length"] if one else 0 for one in flat], np.int64)
    ends = np.cumsum(lengths)
    buffer = np.empty(int(lengths.sum()), np.uint8)
    view = buffer.data
    present = np.zeros(len(flat), bool)
    for index, one in enumerate(flat):
        if one is not None:
            present[index] = provider.fill(one, view[int(ends[index] - lengths[index]) : int(ends[index])])
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    bits = pa.py_buffer(np.packbits(present, bitorder="little").tobytes())
    data = pa.Array.from_buffers(pa.binary(), len(flat), [bits, pa.py_buffer(offsets.tobytes()), pa.py_buffer(buffer)])
    paths = pa.array(
        [one["path"] if one and here else None for one, here in zip(flat, present, strict=True)], pa.string()
    )
    return pa.StructArray.from_arrays([data, paths], fields=list(IMAGE), mask=pa.array(~present))
