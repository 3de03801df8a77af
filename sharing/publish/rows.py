"""Rows of a dataset on their way into a publication: scalars as they are, and addresses in the place of bytes."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas import parquet, tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.metadata.pieces import CannotStrip
from refloom.schemas.metadata.stripping import strip
from refloom.schemas.parquet import File
from refloom.schemas.storage import Folder
from refloom.schemas.wording import quoted
from refloom.sharing.publish.addresses import ADDRESSES, PICTURES_FIELD, WITHHELD, Places, chunk_of, locate
from refloom.sharing.publish.options import PICTURES, picture_column

_ALL_OF = {"images": "image.bytes", "faces": "crop.bytes", "samples": "images.list.element.bytes"}

PICTURES_SCHEMA = pa.schema(
    [
        pa.field(
            "picture_id", pa.string(), nullable=False, metadata={"doc": "image id; `<image_id>!` for a re-encoded"}
        ),
        pa.field("image_id", pa.string(), nullable=False, metadata={"doc": "the picture that it is made of"}),
        pa.field("kind", pa.string(), nullable=False, metadata={"doc": "picture | smaller (re-encoded) | crop"}),
        pa.field("sha256", pa.string(), nullable=False, metadata={"doc": "of the source's bytes, hexadecimal"}),
        pa.field(
            "published_sha256",
            pa.string(),
            nullable=False,
            metadata={"doc": "of the published bytes, which lack the metadata of the source's"},
        ),
        pa.field("bytes", pa.int64(), nullable=False, metadata={"doc": "how many are published", "unit": "B"}),
        pa.field("path", pa.string(), metadata={"doc": "the file's name in its source"}),
    ],
    {"refloom.table": PICTURES, "refloom.version": str(VERSION)},
)
"""Which bytes belong to a publication without bytes; `refloom rehydrate` puts them there."""


PUBLISHED_SHA256 = pa.field(
    "published_sha256",
    pa.string(),
    metadata={"doc": "of the published bytes, hexadecimal: without metadata they are others; null for bytes withheld"},
)


def schema_of(table: str) -> pa.Schema:
    """Columns of a published table."""
    if table == PICTURES:
        return PICTURES_SCHEMA
    schema = tables.TABLES[table].schema
    return schema.insert(schema.get_field_index("sha256") + 1, PUBLISHED_SHA256) if table == "images" else schema


def key_of(table: str) -> str:
    """The column whose hash orders a published table."""
    return "picture_id" if table == PICTURES else tables.TABLES[table].key


def doc_of(table: str) -> str:
    """One line for the card."""
    if table == PICTURES:
        return "Which bytes belong here: `refloom rehydrate` finds them in your copy of the source."
    return tables.TABLES[table].doc


def spill_schema(table: str) -> pa.Schema:
    """Columns of a table without its pictures, with `_pictures` instead."""
    fields = [field for field in schema_of(table) if field.name != picture_column(table)]
    return pa.schema([*fields, pa.field(PICTURES_FIELD, ADDRESSES)])


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one table and split, over all units in order."""

    table: str
    split: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Of all of them."""
        return sum(file.bytes for file in self.files)


def listed(dataset: Dataset, wanted: tuple[str, ...]) -> list[Files]:
    """What there is of the wanted tables, `all` for all that have rows; other tables than samples are one split.

    What people said of objects is their own: labels are published where they are named, and not as one of all.
    """
    everything = "all" in wanted
    names = [name for name in tables.TABLES if name in wanted or (everything and name != "labels")]
    found: dict[tuple[str, str], list[File]] = {}
    for name in names:
        for manifest in dataset.manifests(tables.TABLES[name].stage).values():
            for file in manifest.files_of(name):
                split = file.path.split("/")[1] if name == "samples" else "train"
                found.setdefault((name, split), []).append(file)
        if (name == "labels" or not everything) and not any(table == name for table, _ in found):
            command = "browse --label" if name == "labels" else "curate"
            raise Refused(
                f"the dataset has no rows in {name}: `refloom {command} {quoted(dataset.url)}` makes them (stage "
                f"{tables.TABLES[name].stage}), or choose other --tables"
            )
    return [Files(name, split, tuple(files)) for (name, split), files in sorted(found.items())]


def scalars(dataset: Dataset, files: Files, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows without pictures, a row group at a time; no picture is read."""
    schema = tables.TABLES[files.table].schema
    names = columns or [field.name for field in schema if field.name != picture_column(files.table)]
    for file in files.files:
        with dataset.opened(files.table, file.path) as reader:
            for group in range(reader.num_row_groups):
                rows = reader.read_row_group(group, columns=names, use_threads=False)
                yield _one(parquet.filled(rows, schema, names))


class Origin:
    """Reads whole tables with the addresses of their pictures.

    Args:
        dataset: opened.
        places: gets the files that hold pictures.
        hashes: whether the sha256 of every picture is wanted.
        strips: whether pictures are published without their metadata.
        on_bytes: told how many bytes were read.
    """

    def __init__(
        self, dataset: Dataset, places: Places, *, hashes: bool, strips: bool, on_bytes: Callable[[int], None]
    ) -> None:
        self._dataset, self._places, self._hashes, self._on_bytes = dataset, places, hashes, on_bytes
        self._strips = strips

    def batches(self, files: Files) -> Iterator[pa.RecordBatch]:
        """Rows as `spill_schema` has them, a row group at a time.

        Raises:
            Refused: a file is not the one that was committed.
        """
        schema = spill_schema(files.table)
        for file in self._checked(files.files):
            with self._mapped(file.path) as source, pq.ParquetFile(source) as reader:
                for group in range(reader.num_row_groups):
                    rows = reader.read_row_group(group, use_threads=False)
                    rows = _one(parquet.filled(rows, tables.TABLES[files.table].schema))
                    addresses = self._addresses(files.table, file, rows, source, reader, group)
                    if files.table == "images":
                        published = _published(addresses, rows.column("sha256"))
                        rows = rows.append_column(PUBLISHED_SHA256, published)
                    columns = [rows.column(name) for name in schema.names[:-1]]
                    yield pa.RecordBatch.from_arrays([*columns, addresses], schema=schema)
            self._on_bytes(file.bytes)

    def _checked(self, files: tuple[File, ...]) -> Iterator[File]:
        """Files one by one; each is checked while the rows of the one before are read."""
        pool = ThreadPoolExecutor(1)
        try:
            coming = [pool.submit(self._check, file) for file in files[:1]]
            for number, file in enumerate(files, start=1):
                coming.pop().result()
                coming = [pool.submit(self._check, other) for other in files[number : number + 1]]
                yield file
        finally:
            pool.shutdown(cancel_futures=True)

    def _check(self, file: File) -> None:
        """The file against its manifest: nobody should publish what a disk has damaged."""
        try:
            with self._dataset.folder.open(file.path) as source:
                found = hashlib.file_digest(cast(Any, source), "sha256").hexdigest()
        except FileNotFoundError:
            found = None
        if found != file.sha256:
            raise Refused(
                f"{file.path} is not the file that was committed: mend it with "
                f"`refloom mend {quoted(self._dataset.url)}`, then publish again"
            )

    def _mapped(self, path: str) -> pa.NativeFile:
        """A file whose bytes are at hand without a copy, where it lies on a disk of this machine."""
        folder = self._dataset.folder
        return pa.memory_map(folder.at(path)) if folder.is_local else pa.PythonFile(folder.open(path), mode="r")

    def _addresses(
        self, table: str, file: File, rows: pa.RecordBatch, source: pa.NativeFile, reader: pq.ParquetFile, group: int
    ) -> pa.Array:
        column = picture_column(table)
        if column is None:
            return pa.nulls(rows.num_rows, ADDRESSES)
        pictures = rows.column(column)
        values = pictures.flatten() if pa.types.is_list(pictures.type) else pictures
        data, paths = values.field("bytes"), values.field("path").to_pylist()
        present = data.drop_null()
        start, length = chunk_of(reader, group, _ALL_OF[table])
        source.seek(start)
        offsets = iter(locate(present, source.read_buffer(length), start, file.path))
        place = self._places.number(self._dataset.folder, file.path)
        entries: list[dict[str, Any] | None] = []
        known = rows.column("sha256").to_pylist() if table == "images" else [None] * len(paths)
        for value, path, sha256 in zip(data, paths, known, strict=True):
            if not value.is_valid:
                entries.append(None)
                continue
            buffer = value.as_buffer()
            digest = (sha256 or hashlib.sha256(buffer).hexdigest()) if self._hashes else None
            entry = _entry(place, next(offsets), buffer.size, digest, path)
            entries.append(_stripped(entry, buffer.to_pybytes()) if self._strips else entry)
        if table == "images":
            entries = [
                entry or self._linked(row)
                for entry, row in zip(entries, rows.select(["link", "sha256"]).to_pylist(), strict=True)
            ]
        if pa.types.is_list(pictures.type):
            cuts = np.cumsum([0, *pictures.value_lengths().to_pylist()])
            return pa.array([entries[start:stop] for start, stop in pairwise(cuts)], ADDRESSES)
        return pa.array([[entry] if entry else None for entry in entries], ADDRESSES)

    def _linked(self, row: dict[str, Any]) -> dict[str, Any]:
        link = row["link"]
        roots = self._dataset.index.get("roots", {})
        if link["root"] not in roots:
            raise Refused(f"root {link['root']} of linked pictures is not in dataset.json: put its folder there")
        place = self._places.number(Folder(roots[link["root"]]), link["file"])
        entry = _entry(place, link["offset"], link["length"], row["sha256"], link["file"])
        return _stripped(entry, read_checked(self._places, entry)) if self._strips else entry


def read_checked(places: Places, entry: dict[str, Any]) -> bytes:
    """The bytes that lie at an address.

    Raises:
        JobStopped: they are gone, too few, or others than were ingested.
    """
    data = bytearray(entry["stored"])
    places.fill(entry["place"], entry["offset"], memoryview(data))
    if entry["sha256"] is not None and hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise JobStopped(
            f"{places.name(entry['place'])} is not what was ingested: put the old file back, or ingest again"
        )
    return bytes(data)


def _entry(place: int, offset: int, length: int, sha256: str | None, path: str | None) -> dict[str, Any]:
    where = {"place": place, "offset": offset, "length": length, "stored": length}
    return where | {"sha256": sha256, "published_sha256": None, "path": path}


def _stripped(entry: dict[str, Any], data: bytes) -> dict[str, Any]:
    """An address with what is published of its bytes."""
    try:
        made = strip(data)
    except CannotStrip:
        return entry | {"place": WITHHELD, "length": 0}
    if made is data:
        return entry
    return entry | {"length": len(made), "published_sha256": hashlib.sha256(made).hexdigest()}


def _published(addresses: pa.Array, sha256: pa.Array) -> pa.Array:
    """The sha256 of the published bytes of N pictures."""
    found = [
        None if row is None or row[0]["place"] == WITHHELD else row[0]["published_sha256"] or own
        for row, own in zip(addresses.to_pylist(), sha256.to_pylist(), strict=True)
    ]
    return pa.array(found, pa.string())


def _one(rows: pa.Table) -> pa.RecordBatch:
    """A table of one row group as one batch."""
    found = rows.replace_schema_metadata(None).combine_chunks().to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], rows.schema)


Hashes = npt.NDArray[np.uint64]


def hash_ids(ids: list[str]) -> Hashes:
    """First 64 bits of the sha256 of N ids (N,): what large sets of ids are kept as."""
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in ids)
    return np.frombuffer(digests, ">u8").astype(np.uint64)
