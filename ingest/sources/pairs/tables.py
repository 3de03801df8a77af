"""Directed records that hold their images: rows of Parquet, read a few at a time, each image once.

A unit is a run of rows. A row that cannot be read costs itself; of a damaged row group the rows fail that come after
the damage.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refloom.ingest.source import Group, Picture, Record, UnitPlan
from refloom.ingest.sources.pairs.diptych import Diptych, padding_px
from refloom.ingest.sources.pairs.files import SOURCE, group, group_id
from refloom.ingest.sources.pairs.layouts import IN_PARQUET, LAYOUTS, Directed, told_by
from refloom.schemas import ids
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.storage import Folder

MAX_ROW_BYTES = 1 << 30
"""Of all images of a row: a table of kilobytes can repeat one value until no memory is left."""
_BATCH_ROWS = 1
"""A row has images of megabytes, and one that claims too many of them is alone."""
_BUFFER_BYTES = 1 << 20
_TAIL_BYTES = 8
_MAX_FOOTER_BYTES = 64 << 20
_OWN = {
    "bagel": ("image_list", "instruction", "instruction_list"),
    "subjects200k": ("image", "description", "quality_assessment"),
}
"""Columns of a layout that are no plain words and numbers."""

Row = dict[str, Any] | Rejected | Failed


class Table:
    """One Parquet file of directed records.

    Args:
        folder, name: where it lies.
        layout: `bagel`, `subjects200k` or auto.

    Raises:
        Refused: it is no Parquet, or of no known layout.
    """

    def __init__(self, folder: Folder, name: str, layout: str) -> None:
        place = f"{folder.url}/{name}"
        try:
            self.bytes = folder.size(name)
            with folder.open(name) as file:
                self.digest = _footer_digest(file, self.bytes)
                with pq.ParquetFile(file) as table:
                    self.rows = table.metadata.num_rows
                    columns = table.schema_arrow.names
        except FileNotFoundError:
            raise Refused(f"{place} does not exist") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Refused(f"{place} is not Parquet that can be read: fetch it again, or take it away") from error
        told = told_by(columns) if layout == "auto" else layout
        if told not in IN_PARQUET:
            has = ", ".join(columns)[:200]
            raise Refused(f"{place} is of no known layout (it has the columns {has}): give {' or '.join(IN_PARQUET)}")
        self.layout = told

    def units(self, key: str, stem: str, name: str, size: int, rows: int) -> list[UnitPlan]:
        """Cut its first rows into units of `size`.

        Args:
            key: begins the names of units.
            stem, name: of the file.
            size: rows in a unit.
            rows: how many to take.
        """
        made = []
        for unit, start in enumerate(range(0, rows, size)):
            stop = min(start + size, rows)
            made.append(
                UnitPlan(
                    name=f"{key}-{unit:05d}",
                    task={"file": name, "stem": stem, "layout": self.layout, "start": start, "stop": stop},
                    items={"group": stop - start},
                    size=self.bytes * (stop - start) // max(1, self.rows),
                    identity={"records": self.digest, "bytes": self.bytes},
                    group_ids=tuple(group_id(stem, number) for number in range(start, stop)),
                )
            )
        return made


def _footer_digest(file: Any, size: int) -> str:
    """sha256 of the footer, which says where everything lies and how much it is."""
    file.seek(max(0, size - _TAIL_BYTES))
    length = int.from_bytes(file.read(_TAIL_BYTES)[:4], "little")
    file.seek(max(0, size - _TAIL_BYTES - min(length, _MAX_FOOTER_BYTES)))
    digest = hashlib.sha256(file.read()).hexdigest()
    file.seek(0)
    return digest


def read(unit: UnitPlan, folder: Folder) -> Iterator[Record]:
    """The images of each row of a unit and the row as a group.

    Rows repeat their references byte for byte, as one image is composed with many others: it is one image here too.
    """
    task = unit.task
    known: dict[bytes, str] = {}
    for number, row in _rows(folder, task["file"], _OWN[task["layout"]], task["start"], task["stop"]):
        identity = group_id(task["stem"], number)
        try:
            if isinstance(row, Rejected | Failed):
                raise row
            record = LAYOUTS[task["layout"]](row)
        except (Rejected, Failed) as problem:
            yield Group(identity, "record", [], problem=problem)
            continue
        named = []
        for key, picture in _PICTURES[task["layout"]](record, f"{task['stem']}/{number}"):
            if key in known:
                named.append(known[key])
                continue
            if key is not None:
                known[key] = picture.image_id
            named.append(picture.image_id)
            yield picture
        references, target = (named, None) if record.target is None else (named[:-1], named[-1])
        yield group(identity, references, target, record.instructions, record.scores, record.rest)


def _rows(folder: Folder, name: str, own: Collection[str], start: int, stop: int) -> Iterator[tuple[int, Row]]:
    """Number and columns of the rows from `start` to before `stop`: `own` ones, and those of words and numbers."""
    with folder.open(name) as file, pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table:
        wanted = [one.name for one in table.schema_arrow if one.name in own or _is_word(one.type)]
        first = 0
        for number in range(table.metadata.num_row_groups):
            behind = first + table.metadata.row_group(number).num_rows
            if first < stop and behind > start:
                yield from _of_row_group(table, number, wanted, first, max(start, first), min(stop, behind))
            first = behind


def _of_row_group(
    table: pq.ParquetFile, number: int, columns: list[str], first: int, start: int, stop: int
) -> Iterator[tuple[int, Row]]:
    at, done = first, start
    try:
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, row_groups=[number], columns=columns):
            for place in range(max(0, start - at), min(len(batch), stop - at)):
                yield at + place, _row(batch, place)
                done = at + place + 1
            at += len(batch)
            if at >= stop:
                return
    except (pa.ArrowException, OSError, ValueError) as error:
        for missing in range(done, stop):
            yield missing, Failed("io_error", f"row group {number} cannot be read: {type(error).__name__}")


def _row(batch: pa.RecordBatch, place: int) -> Row:
    if batch.nbytes > MAX_ROW_BYTES:
        return Rejected("bad_record", f"the row holds {batch.nbytes:,} bytes")
    try:
        (row,) = batch.slice(place, 1).to_pylist()
        return dict(row)
    except (pa.ArrowException, ValueError) as error:  # bytes that are no text
        return Rejected("bad_record", f"the row cannot be read ({type(error).__name__})")


def _is_word(kind: pa.DataType) -> bool:
    """Whether a column holds texts, numbers, or truth values; what else a row says is not kept."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )


_Keyed = list[tuple[bytes | None, Picture]]
"""Images of a row, each with what it shares with its like in other rows; None for one that stands alone."""


def _whole_images(record: Directed, place: str) -> _Keyed:
    made: _Keyed = []
    for number, data in enumerate([*record.references, record.target]):
        picture = _picture(record, place, number, partial(bytes, data))
        made.append((None if picture.captions else hashlib.sha256(data).digest(), picture))
    return made


def _halves(record: Directed, place: str) -> _Keyed:
    diptych = Diptych(record.references[0], padding_px(record.rest.get("collection")))
    made: _Keyed = []
    for number in range(2):
        picture = _picture(record, place, number, bytes)
        picture.load = partial(_cut, picture, diptych, number)
        made.append((None, picture))
    return made


def _cut(picture: Picture, diptych: Diptych, number: int) -> bytes:
    data, picture.cut = diptych.part(number)
    return data


_PICTURES: Mapping[str, Callable[[Directed, str], _Keyed]] = {
    "bagel": _whole_images,
    "subjects200k": _halves,
}


def _picture(record: Directed, place: str, number: int, load: Callable[[], bytes]) -> Picture:
    identity = ids.image_id(SOURCE, f"{place}/{number}")
    texts = record.captions[number] if number < len(record.captions) else []
    return Picture(
        image_id=identity,
        file=f"{place}/{number}",
        load=load,
        captions=[(f"{identity}#caption{at}", text) for at, text in enumerate(texts)],
        whole=True,
        whole_phrase=record.phrase,
        whole_category=record.category,
    )
