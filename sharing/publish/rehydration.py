"""Putting pictures back into a publication without bytes, from a local copy of the source, checked by sha256.

The result is what publishing with bytes would have written: the same rows in the same files.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from refloom.curation.annotate.decoded import shrink
from refloom.inference.models.crops import cut_square
from refloom.ingest.engine.pool import Status
from refloom.ingest.files import MAX_FILE_BYTES
from refloom.schemas import parquet, pictures
from refloom.schemas.errors import JobStopped, Refused, Rejected
from refloom.schemas.lease import Lease
from refloom.schemas.metadata.pieces import CannotStrip
from refloom.schemas.metadata.stripping import strip
from refloom.schemas.publication import MANIFEST, is_sound, parse
from refloom.schemas.storage import Folder
from refloom.sharing.publish.addresses import ADDRESSES, PICTURES_FIELD, Places
from refloom.sharing.publish.assembly import Show, assemble, silent
from refloom.sharing.publish.imagebytes import smaller_id
from refloom.sharing.publish.options import PICTURES, picture_column
from refloom.sharing.publish.rows import hash_ids, schema_of, spill_schema
from refloom.sharing.publish.sourceindex import LocalCopy, open_copy
from refloom.sharing.publish.spill import SpillWriter
from refloom.sharing.publish.staging import PRIVATE, Workbench

_ODD_ROWS = (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError, pa.ArrowException)
"""What values lead to that no publication has. Its files are somebody else's."""
_MOST_PICTURE_BYTES = 512 << 20


@dataclass(slots=True)
class Rehydrated:
    """What became of the pictures.

    Attributes:
        manifest: the content of MANIFEST.json.
        missing: ids of pictures that the copy does not have.
        differing: ids of pictures that it has with other bytes.
    """

    manifest: dict[str, Any] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    differing: set[str] = field(default_factory=set)


def read_manifest(url: str) -> tuple[Folder, dict[str, Any]]:
    """A publication and its MANIFEST.json.

    Raises:
        Refused: no publication, or of another version.
    """
    folder = Folder(url)
    try:
        return folder, parse(folder.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Refused(f"{url} is no finished publication of refloom's (no sound {MANIFEST})") from error
    except ValueError as error:
        raise Refused(f"{url} is no finished publication of refloom's (no sound {MANIFEST}: {error})") from error


def rehydrate(published: str, source: str, dest: str, *, replace: bool = False, show: Show = silent) -> Rehydrated:
    """Join a publication without bytes with a copy of its source.

    Args:
        published: folder or fsspec URL of the publication.
        source: folder of pictures or tars, or a refloom dataset.
        dest: new or empty local folder; an interrupted call resumes there.
        replace: throw away another publication that lies in `dest`.
        show: makes the progress display of a phase.

    Returns:
        MANIFEST.json and the ids of pictures that stayed null.

    Raises:
        Refused: not a publication, one that has its bytes, or files that are not those of its MANIFEST.json.
    """
    folder, manifest = read_manifest(published)
    if manifest["options"]["images"]:
        raise Refused(f"{published} has the bytes of its pictures: there is nothing to rehydrate")
    settings = manifest["options"] | {"images": True}
    bench = Workbench(dest, {"publication": manifest["fingerprint"], "source": source}, replace=replace)
    result = Rehydrated()
    with Lease(bench.folder.below(PRIVATE)):
        complete = bench.complete
        if complete is not None and is_sound(complete) and not complete.get("missing"):
            result.manifest = complete
        else:
            try:
                _join(bench, folder, manifest, settings, source, result, show)
            except _ODD_ROWS as error:
                raise Refused(
                    f"{published} holds rows that `refloom publish` does not write ({type(error).__name__}: {error}): "
                    "get it again"
                ) from error
    bench.take_place()
    return result


def _join(
    bench: Workbench,
    folder: Folder,
    manifest: dict[str, Any],
    settings: dict[str, Any],
    source: str,
    result: Rehydrated,
    show: Show,
) -> None:
    index = _Index.read(folder, manifest)
    copy = open_copy(source)
    shaper = _Shaper(manifest["facts"]["made"])
    parts = _spilled(folder, manifest, bench, index, shaper, show)
    provider = _Rehydrator(index, copy, shaper, result)
    try:
        result.manifest = assemble(
            bench,
            parts,
            settings,
            manifest["facts"],
            provider,
            show,
            missing=lambda: len(result.missing | result.differing),
        )
    finally:
        copy.places.close()


@dataclass(frozen=True, slots=True)
class _Index:
    """The table `pictures`: records by number, numbers by the hash of the picture's id."""

    rows: pa.Table
    hashes: Any
    order: Any

    @classmethod
    def read(cls, folder: Folder, manifest: dict[str, Any]) -> "_Index":
        parts = list(_batches(folder, manifest, PICTURES, "train"))
        rows = pa.Table.from_batches(parts).combine_chunks()
        bounds = pc.min_max(rows["bytes"]).as_py()
        if rows.num_rows and not 0 <= (bounds["min"] or 0) <= (bounds["max"] or 0) <= MAX_FILE_BYTES:
            raise Refused(f"{folder.url} says of a picture that it has no bytes, or more than any has: get it again")
        hashes = hash_ids(rows["picture_id"].to_pylist())
        order = np.argsort(hashes, kind="stable")
        return cls(rows, hashes[order], order)

    def number(self, picture_id: str) -> int | None:
        """The record of a picture, if there is one."""
        key = hash_ids([picture_id])[0]
        position = int(np.searchsorted(self.hashes, key))
        found = position < len(self.hashes) and self.hashes[position] == key
        return int(self.order[position]) if found else None

    def record(self, number: int) -> dict[str, Any]:
        """One row."""
        row: dict[str, Any] = self.rows.slice(number, 1).to_pylist()[0]
        return row


def _splits(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    return [(table, split) for table, splits in manifest["rows"].items() for split in splits if table != PICTURES]


def _batches(folder: Folder, manifest: dict[str, Any], table: str, split: str) -> Iterator[pa.RecordBatch]:
    for file in manifest["files"]:
        if not file["path"].startswith(f"data/{table}/{split}-"):
            continue
        _check(folder, file)
        with folder.open(file["path"]) as source, pq.ParquetFile(source) as reader:
            schema = schema_of(table)
            needed = [field.name for field in schema if not field.nullable]
            lost = [name for name in needed if name not in reader.schema_arrow.names]
            if lost:
                raise Refused(f"{folder.url}/{file['path']} has no column {lost[0]}: get the publication again")
            for group in range(reader.num_row_groups):
                rows = parquet.filled(reader.read_row_group(group, use_threads=False), schema)
                yield from rows.replace_schema_metadata(None).combine_chunks().to_batches()


def _check(folder: Folder, file: dict[str, Any]) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with folder.open(file["path"]) as source:
            while data := source.read(8 << 20):
                digest.update(data)
                size += len(data)
    except FileNotFoundError:
        size = -1
    if size != file["bytes"] or digest.hexdigest() != file["sha256"]:
        raise Refused(f"{folder.url}/{file['path']} is not the file that {MANIFEST} names: get it again")


def _spilled(
    folder: Folder, manifest: dict[str, Any], bench: Workbench, index: _Index, shaper: "_Shaper", show: Show
) -> list[tuple[str, str]]:
    """Rows of the publication with the records of their pictures, as if they came from the dataset."""
    bench.spill.mkdir(parents=True, exist_ok=True)
    parts = _splits(manifest)
    status = Status(units=len(parts), weight=sum(manifest["rows"][table][split] for table, split in parts))
    report = show("read")
    for table, split in parts:
        writer = SpillWriter(bench.spill, table, split)
        for batch in _batches(folder, manifest, table, split):
            addresses = _addresses(table, batch, index, shaper)
            fields = [field for field in spill_schema(table) if field.name != PICTURES_FIELD]
            columns = [batch.column(field.name) for field in fields]
            writer.add(pa.RecordBatch.from_arrays([*columns, addresses], schema=spill_schema(table)))
            status.tally["begun"] += batch.num_rows
            report(status)
        writer.close()
        status.done += 1
    return parts


def _addresses(table: str, batch: pa.RecordBatch, index: _Index, shaper: "_Shaper") -> pa.Array:
    """Entries whose `place` is the number of the picture's record."""
    if picture_column(table) is None:
        return pa.nulls(batch.num_rows, ADDRESSES)
    if table == "samples":
        rows = [[one["image_id"] for one in row] for row in batch.column("pictures").to_pylist()]
        numbers = [[_either(index, smaller_id(name), name) for name in row] for row in rows]
    else:
        key = "face_id" if table == "faces" else "image_id"
        numbers = [[index.number(name)] for name in batch.column(key).to_pylist()]
    if table == "faces":
        for row, box in zip(numbers, batch.column("crop_box").to_pylist(), strict=True):
            if row[0] is not None:
                shaper.boxes[row[0]] = box
    entries = [[_entry(index, number) for number in row] for row in numbers]
    if table != "samples":
        return pa.array([row if row[0] else None for row in entries], ADDRESSES)
    return pa.array(entries, ADDRESSES)


def _either(index: _Index, first: str, second: str) -> int | None:
    number = index.number(first)
    return index.number(second) if number is None else number


def _entry(index: _Index, number: int | None) -> dict[str, Any] | None:
    if number is None:
        return None
    record = index.record(number)
    if not 0 <= record["bytes"] <= _MOST_PICTURE_BYTES:
        raise ValueError(f"a picture of {record['bytes']} bytes")
    return {
        "place": number,
        "offset": 0,
        "length": record["bytes"],
        "stored": record["bytes"],
        "sha256": record["sha256"],
        "published_sha256": None,
        "path": record["path"],
    }


class _Shaper:
    """Makes what is not the source's own bytes: re-encoded pictures and face crops, as the stages made them."""

    def __init__(self, made: dict[str, Any]) -> None:
        self._made = made
        self.boxes: dict[int, list[float]] = {}

    def shape(self, number: int, kind: str, data: bytes) -> bytes:
        """The bytes of a record, given those of its picture; Rejected if they do not decode."""
        if kind == "picture":
            return data
        pixels = pictures.decode(data)
        if kind == "smaller":
            made = self._made["compose"]
            return pictures.encode_jpeg(shrink(pixels, made["max_side_px"]), made["jpeg_quality"])
        made = self._made["face"]
        if not _is_near(self.boxes[number], pixels):
            raise Rejected("bad_box", "a crop that does not lie on its picture")
        crop = cut_square(pixels, self.boxes[number], made["crop_max_side_px"])
        return pictures.encode_jpeg(crop, made["crop_quality"])


def _is_near(box: list[float], pixels: pictures.Pixels) -> bool:
    """Whether a box reaches no further than its picture's size beyond it; the crop of another would fill the memory."""
    side = max(pixels.shape[:2])
    return len(box) == 4 and all(-side <= edge <= 2 * side for edge in box)


class _Rehydrator:
    """Gives pictures out of a local copy; notes those that it does not have."""

    def __init__(self, index: _Index, copy: LocalCopy, shaper: _Shaper, result: Rehydrated) -> None:
        self._index, self._copy, self._shaper, self._result = index, copy, shaper, result
        self.nulls = 0

    def fill(self, address: dict[str, Any], into: memoryview) -> bool:
        """The published bytes, if any candidate has the source's or, made of them, these."""
        record = self._index.record(address["place"])
        tried = False
        for place, offset, length in self._copy.candidates(record["image_id"], _name(record)):
            data = self._read(place, offset, length)
            if data is None:
                continue
            tried = True
            try:
                made = _as_published(self._shaper.shape(address["place"], record["kind"], data), record)
            except (Rejected, CannotStrip, ValueError):  # the last where a crop's box is none
                continue
            if made is not None:
                into[:] = made
                return True
        self.nulls += 1
        (self._result.differing if tried else self._result.missing).add(record["picture_id"])
        return False

    def _read(self, place: int, offset: int, length: int) -> bytes | None:
        places: Places = self._copy.places
        try:
            size = places.size(place) if length < 0 else length
            if not 0 < size <= MAX_FILE_BYTES:  # a pipe has none, and would keep whoever opens it waiting
                return None
            data = bytearray(size)
            places.fill(place, offset, memoryview(data))
        except (JobStopped, OSError):
            return None
        return bytes(data)


def _as_published(data: bytes, record: dict[str, Any]) -> bytes | None:
    """The published bytes of a picture, given the source's or those themselves; None if it is another one."""
    published = record.get("published_sha256") or record["sha256"]
    found = hashlib.sha256(data).hexdigest()
    if found == record["sha256"] != published:
        data = strip(data)
        found = hashlib.sha256(data).hexdigest()
    return data if found == published else None


def _name(record: dict[str, Any]) -> str | None:
    """The file name of a picture; a crop's own path names nothing in the source."""
    path: str | None = record["path"]
    return path if record["kind"] != "crop" and path is not None and Path(path).suffix != ".tar" else None
