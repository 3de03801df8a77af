"""Parquet as the contract wants it, written and read row group by row group.

Picture bytes are stored as they are, without codec, dictionary or statistics; everything else is zstd. Row groups are
cut at about 48 MB so that one random picture costs milliseconds, files at 450 MB. Page index and page checksums are on.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas.errors import DamagedFile, RefloomError, Refused
from refloom.schemas.features import with_features
from refloom.schemas.fields import leaves
from refloom.schemas.fingerprint import Fingerprint
from refloom.schemas.storage import Folder, HashingFile

ROW_GROUP_BYTES = 48 << 20
FILE_BYTES = 450 << 20
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 2048
_ZSTD_LEVEL = 3


@dataclass(frozen=True, slots=True)
class File:
    """One file of a unit: path in the dataset, rows, size and sha256."""

    path: str
    rows: int
    bytes: int
    sha256: str


def usual_name(path: str) -> str:
    """The name of a file of a unit that takes the place of none."""
    return re.sub(r"(-\d{3,})[a-z]\.parquet$", r"\1.parquet", path)


@dataclass(slots=True)
class _Written:
    """A file that is whole and not to be seen yet: it appears when `creating` ends."""

    creating: AbstractContextManager[HashingFile]
    path: str
    rows: int
    sink: HashingFile


class TableWriter:
    """Writes the rows of one table of one unit, in the order they come, to as many files as the bounds ask for.

    No file is to be seen before `show`, so that those of the unit that it takes the place of can be read until then.
    """

    def __init__(
        self,
        folder: Folder,
        directory: str,
        unit: str,
        schema: pa.Schema,
        *,
        taken: Collection[str] = (),
        row_group_bytes: int = ROW_GROUP_BYTES,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        """Nothing is created before the first row group is full.

        Args:
            folder: the dataset.
            directory: where the files go, e.g. `images` or `samples/train`.
            unit: the unit's name.
            schema: of the rows.
            taken: paths of files that stay as they are.
            row_group_bytes: a row group is written when it holds this many bytes.
            file_bytes: a file is closed when it holds this many bytes.
        """
        self._folder, self._prefix = folder, f"{directory}/unit-{unit}"
        self._schema = with_features(schema)
        self._columns = frozenset(schema.names)
        self._taken = frozenset(taken)
        self._row_group_bytes, self._file_bytes = row_group_bytes, file_bytes
        self._rows: list[dict[str, Any]] = []
        self._rows_bytes = 0
        self._batches: list[pa.RecordBatch] = []
        self._batches_bytes = 0
        self._fingerprint = fingerprint_of(schema)
        self._creating: AbstractContextManager[HashingFile] | None = None
        self._sink: HashingFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._file_rows = 0
        self._written: list[_Written] = []
        self.rows = 0
        self.files: list[File] = []

    def add(self, row: dict[str, Any], weight: int = 0) -> None:
        """Add one row.

        Args:
            row: column name to value; a missing column is null, an unknown one an error.
            weight: bytes of the pictures in it, which bound how many rows wait in memory.
        """
        self._check(row)
        self._rows.append(row)
        self._rows_bytes += weight
        self.rows += 1
        if len(self._rows) >= _BATCH_ROWS or self._rows_bytes >= _BATCH_BYTES:
            self._pack()

    def add_columns(self, columns: dict[str, Any]) -> None:
        """Add many rows at once: column name to a list or array of N values, NaN where a float is null."""
        self._check(columns)
        self._pack()
        rows = len(next(iter(columns.values())))
        arrays = [
            _array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
            for field in self._schema
        ]
        self.rows += rows
        for batch in pa.Table.from_arrays(arrays, schema=self._schema).to_batches(max_chunksize=_BATCH_ROWS):
            self._take(batch)

    def _check(self, columns: Collection[str]) -> None:
        if not self._columns.issuperset(columns):
            raise KeyError(f"{self._prefix}: no column {sorted(set(columns) - self._columns)}")

    def _pack(self) -> None:
        if not self._rows:
            return
        columns = [pa.array([row.get(field.name) for row in self._rows], field.type) for field in self._schema]
        self._rows, self._rows_bytes = [], 0
        self._take(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def _take(self, batch: pa.RecordBatch) -> None:
        self._fingerprint.update(batch)
        self._batches.append(batch)
        self._batches_bytes += batch.nbytes
        if self._batches_bytes >= self._row_group_bytes:
            self._write_row_group()

    def _write_row_group(self) -> None:
        if not self._batches:
            return
        group = pa.Table.from_batches(self._batches, self._schema)
        self._batches, self._batches_bytes = [], 0
        if self._writer is None:
            self._path = self._free(len(self._written))
            self._creating = self._folder.create(self._path)
            self._sink = self._creating.__enter__()
            self._writer = pq.ParquetWriter(self._sink, self._schema, **options(self._schema))
        self._writer.write_table(group, row_group_size=group.num_rows)
        self._file_rows += group.num_rows
        assert self._sink is not None
        if self._sink.size >= self._file_bytes:
            self._finish_file()

    def _free(self, number: int) -> str:
        """The usual name of a file, or where that is taken one that sorts with it."""
        names = (f"{self._prefix}-{number:03d}{letter}.parquet" for letter in ("", *ascii_lowercase[1:]))
        return next(name for name in names if name not in self._taken)

    def _finish_file(self) -> None:
        if self._writer is None or self._sink is None or self._creating is None:
            return
        self._writer.close()
        self._written.append(_Written(self._creating, self._path, self._file_rows, self._sink))
        self._writer, self._sink, self._creating, self._file_rows = None, None, None, 0

    def finish(self) -> None:
        """Write what is left; `rows` and `fingerprint` are then final. A table without rows has no file."""
        self._pack()
        self._write_row_group()
        self._finish_file()

    def show(self) -> None:
        """Let the files appear; `files` is then final."""
        for one in self._written[len(self.files) :]:
            one.creating.__exit__(None, None, None)
            self.files.append(File(one.path, one.rows, one.sink.size, one.sink.sha256))

    def close(self) -> None:
        """Write what is left and let it appear."""
        self.finish()
        self.show()

    def abort(self) -> None:
        """Drop the files that have not appeared."""
        if self._creating is not None and self._sink is not None and self._writer is not None:
            self._sink.discard()
            self._writer.close()  # else it writes its footer into a closed file when it is collected
            _drop(self._creating)
            self._creating = None
        for one in self._written[len(self.files) :]:
            _drop(one.creating)
        self._written = self._written[: len(self.files)]

    @property
    def fingerprint(self) -> str:
        """Over all rows added so far."""
        return self._fingerprint.hexdigest()


def _drop(creating: AbstractContextManager[HashingFile]) -> None:
    """End a file that is being created so that it does not appear."""
    stop = InterruptedError("dropped")
    with suppress(InterruptedError):
        creating.__exit__(InterruptedError, stop, None)


def _array(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Values of one column; what is Arrow's already is not copied value by value."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(kind)
    return pa.array(values, kind, from_pandas=True)


def fingerprint_of(schema: pa.Schema) -> Fingerprint:
    """A running fingerprint of rows of a table, which takes a picture's sha256 from the column that holds it."""
    return Fingerprint({"image.bytes": "sha256"} if {"image", "sha256"} <= set(schema.names) else None)


def options(schema: pa.Schema) -> dict[str, Any]:
    """What `pyarrow.parquet.ParquetWriter` is told for a table of this schema."""
    binary = {path for path, kind in leaves(schema) if pa.types.is_binary(kind)}
    others = [path for path, _ in leaves(schema) if path not in binary]
    # a column of floats or of long strings does not repeat itself: a dictionary would be built and thrown away
    repeating = [
        path
        for path, kind in leaves(schema)
        if path in others and not pa.types.is_floating(kind) and not path.endswith(("counts", "source_json", "sha256"))
    ]
    return {
        "compression": dict.fromkeys(binary, "NONE") | dict.fromkeys(others, "ZSTD"),
        "compression_level": dict.fromkeys(others, _ZSTD_LEVEL),
        "use_dictionary": repeating,
        "write_statistics": others,
        "write_page_index": True,
        "write_page_checksum": True,
        "store_schema": True,
    }


def read(
    folder: Folder,
    files: Sequence[File],
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    *,
    check_pages: bool = True,
) -> pa.Table:
    """Read whole files of one table; a column that came into the schema after a file was written is null in its rows.

    Args:
        folder: the dataset.
        files: in row order.
        schema: of the table; an empty list of files gives an empty table of it.
        columns: top-level or dotted columns; all by default.
        check_pages: compare every page with its checksum; not where rows have checksums of their own, so that a
            damaged one costs itself.

    Raises:
        Refused: a file lacks a column that must be there.
    """
    parts, wanted = [], None if columns is None else list(columns)
    for file in files:
        with opened(folder, file.path, check_pages=check_pages) as reader:
            _refuse_lost(file, reader.schema_arrow, schema, columns)
            parts.append(filled(reader.read(columns=wanted, use_threads=False), schema, columns))
    if not parts:
        return filled(schema.empty_table(), schema, columns)
    return pa.concat_tables(parts).replace_schema_metadata(None)


@dataclass(frozen=True, slots=True)
class Look:
    """A look at some columns of a row group that says whether the rest of it is read.

    Attributes:
        columns: top-level or dotted.
        wants: called with them, in order of row groups.
    """

    columns: Sequence[str]
    wants: Callable[[pa.Table], bool]


def batches(
    folder: Folder,
    files: Sequence[File],
    columns: Sequence[str] | None = None,
    schema: pa.Schema | None = None,
    look: Look | None = None,
) -> Iterator[pa.RecordBatch]:
    """Read files of one table a row group at a time, so that memory does not grow with the unit.

    Args:
        folder, files, columns: as for `read`.
        schema: of the table, to add columns that a file lacks; None gives rows as they are stored.
        look: passes over row groups that it does not want, without their pictures being read.
    """
    wanted = None if columns is None else list(columns)
    for file in files:
        with opened(folder, file.path) as reader:
            _refuse_lost(file, reader.schema_arrow, schema or reader.schema_arrow, columns)
            for group in range(reader.num_row_groups):
                if look is not None:
                    first = reader.read_row_group(group, columns=list(look.columns), use_threads=False)
                    if not look.wants(first):
                        continue
                rows = reader.read_row_group(group, columns=wanted, use_threads=False)
                yield from (filled(rows, schema, columns) if schema is not None else rows).to_batches()


@contextmanager
def opened(folder: Folder, path: str, *, check_pages: bool = True) -> Iterator[pq.ParquetFile]:
    """A file of rows to read, every page of which is checked against its checksum, unless that is not wanted.

    Raises:
        DamagedFile: it is gone, or cut, or holds other bytes than were written; also while it is read in the block.
    """
    try:
        with folder.open(path) as source, pq.ParquetFile(source, page_checksum_verification=check_pages) as reader:
            yield reader
    except RefloomError:
        raise
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} is gone") from error
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the store, not the file
        raise DamagedFile(f"{path} is damaged ({' '.join(str(error).split())})") from error


def _refuse_lost(file: File, stored: pa.Schema, schema: pa.Schema, columns: Sequence[str] | None) -> None:
    lost = [
        name
        for name in _tops(schema, columns)
        if name not in stored.names and name in schema.names and not schema.field(name).nullable
    ]
    if lost:
        raise Refused(
            f"{file.path} has no column {lost[0]}: another refloom wrote it; use that one, or build the dataset anew"
        )


def filled(rows: pa.Table, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows with the columns, and the fields of columns, that came into a table after their file was written, as nulls.

    Args:
        rows: as they are stored.
        schema: of the table.
        columns: that were asked for, top-level or dotted, and their order; all by default.
    """
    for name in _tops(schema, columns):
        if name in schema.names and name not in rows.column_names:
            rows = rows.append_column(schema.field(name), pa.nulls(len(rows), schema.field(name).type))
    if columns is None or not any("." in name for name in columns):  # parts of a column are as they were asked for
        rows = _widened(rows, schema)
    return rows.select([name for name in _tops(schema, columns) if name in rows.column_names])


def _widened(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    for position, field in enumerate(rows.schema):
        if field.name in schema.names:
            now = schema.field(field.name)
            if field.type != now.type and field.type == as_stored(now, field).type:
                rows = rows.set_column(position, now, rows.column(position).cast(now.type))
    return rows


def as_stored(field: pa.Field, stored: pa.Field) -> pa.Field:
    """A field of a schema without the nullable fields below it that a stored one lacks: equal if that is all."""
    return field.with_type(_narrowed(field.type, stored.type))


def _narrowed(kind: pa.DataType, stored: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) and pa.types.is_list(stored):
        return pa.list_(kind.value_field.with_type(_narrowed(kind.value_type, stored.value_type)))
    if pa.types.is_struct(kind) and pa.types.is_struct(stored):
        names = {field.name for field in stored}
        return pa.struct(
            [
                as_stored(field, stored.field(field.name)) if field.name in names else field
                for field in kind
                if field.name in names or not field.nullable
            ]
        )
    return kind


def _tops(schema: pa.Schema, columns: Sequence[str] | None) -> list[str]:
    """Top-level names of columns, all by default."""
    return list(schema.names) if columns is None else list(dict.fromkeys(name.split(".")[0] for name in columns))
