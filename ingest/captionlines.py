"""Tables that name pictures and say something of each: lines of json, CSV, or Parquet.

    {file_name | file | image | path: relative to the table's folder,
     text | caption | captions | prompt: str | [str], url, license}

`metadata.jsonl`, `metadata.csv` and `metadata.parquet` are those of Hugging Face's ImageFolder. A line that names no
picture costs itself.
"""

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from refloom.ingest import jsons
from refloom.ingest.annotationfile import is_text
from refloom.ingest.companions import TEXTS, Said, said_by
from refloom.ingest.files import safe_name, table_name
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_NAMES = ("file_name", "file", "image", "path")
_KEYS_SHOWN = 8
_MAX_CELL_CHARACTERS = 1 << 20


@dataclass(slots=True)
class Lines:
    """What a table says.

    Attributes:
        pictures: number of the line, name of the picture, what is said of it.
        wrong: kind, id, reason and detail of lines that name none.
        digest: sha256 of the file.
        keys: of the first line.
    """

    pictures: list[tuple[int, str, Said]] = field(default_factory=list)
    wrong: list[tuple[str, str, str | None, str]] = field(default_factory=list)
    digest: str = ""
    keys: tuple[str, ...] = ()

    def note(self, name: str) -> str | None:
        """What a person should know of a table without captions."""
        if not self.pictures or any(said.texts for *_, said in self.pictures):
            return None
        keys = ", ".join(self.keys[:_KEYS_SHOWN])
        return f"{name} gives no captions: it has {keys}, and none of {', '.join(TEXTS)}"


def read(folder: Folder, name: str) -> Lines:
    """Read a table.

    Raises:
        Refused: the file cannot be read, or is no Parquet.
    """
    try:
        with folder.open(name) as file:
            return parse(file, name, f"{folder.url}/{name}")
    except OSError as error:
        raise Refused(f"{folder.url}/{name} cannot be read: {error.strerror or error}") from error


def parse(file: IO[bytes], name: str, place: str) -> Lines:
    """Read a table from an open file.

    Args:
        file: seekable.
        name: says the format, and names the lines.
        place: for messages.

    Raises:
        Refused: it is called Parquet and is none.
    """
    found = Lines()
    digest = hashlib.sha256()
    for number, row in rows(file, name, digest, place):
        try:
            if isinstance(row, Rejected):
                raise row
            found.keys = found.keys or tuple(table_name(str(key)) for key in row)
            found.pictures.append((number, _picture(row), said_by(row)))
        except Rejected as problem:
            found.wrong.append(("record", f"{table_name(name)}#{number}", problem.reason, problem.detail))
    found.digest = digest.hexdigest()
    return found


def rows(file: IO[bytes], name: str, digest: Any, place: str) -> Iterator[tuple[int, "dict[str, Any] | Rejected"]]:
    """Number of the line (of Parquet, the row, from 1) and what it holds, or why it holds no record.

    Args:
        file, name, place: as for `parse`.
        digest: a hash that is fed all bytes of the file.

    Raises:
        Refused: it is called Parquet and is none.
    """
    return {"csv": _csv, "uet": _parquet}.get(name.lower()[-3:], _json)(file, digest, place)


def _picture(record: dict[str, Any]) -> str:
    lower = {str(key).lower(): value for key, value in record.items()} | record
    key = next((key for key in _NAMES if key in lower), None)
    if key is None:
        raise Rejected("bad_record", f"the line has none of {', '.join(_NAMES)}")
    return safe_name(lower[key])


_Rows = Iterator[tuple[int, "dict[str, Any] | Rejected"]]


def _json(file: IO[bytes], digest: Any, place: str) -> _Rows:
    for number, line in enumerate(jsons.lines(file), 1):
        digest.update(line)
        if not line.strip():
            continue
        if len(line) > jsons.MAX_LINE_BYTES:
            yield number, Rejected("bad_record", f"the line has more than {jsons.MAX_LINE_BYTES} bytes")
            continue
        try:
            record = jsons.loads(line)
        except ValueError as error:
            yield number, Rejected("bad_record", f"the line is not json ({error})"[:200])
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            yield number, Rejected("bad_record", f"the line is {type(record).__name__}, not an object")


def _csv(file: IO[bytes], digest: Any, place: str) -> _Rows:
    data = file.read()
    digest.update(data)
    text = data.decode("utf-8-sig", "surrogateescape")
    before = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        header: list[str] | None = None
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, Rejected("bad_record", f"the line is not CSV ({error})"[:200])
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
            elif len(cells) > len(header):
                detail = f"{len(cells)} cells under {len(header)} columns: a comma in a text needs quotes around it"
                yield reader.line_num, Rejected("bad_record", detail)
            elif cells:  # an empty cell says nothing
                row = {key: cell for key, cell in zip(header, cells, strict=False) if cell or key in _NAMES}
                yield reader.line_num, row
    finally:
        csv.field_size_limit(before)


def _parquet(file: IO[bytes], digest: Any, place: str) -> _Rows:
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    try:
        with pq.ParquetFile(file) as table:
            wanted = [field.name for field in table.schema_arrow if _is_words(field.type)]
            number = 0
            for batch in table.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"{place} is not Parquet that can be read: fetch it again, or take it away") from error


def _is_words(kind: pa.DataType) -> bool:
    """Whether a column holds texts, lists of texts, or numbers; others say nothing here."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))


def is_table(name: str) -> bool:
    """Whether a file is ImageFolder's table."""
    return name.rpartition("/")[2] in METADATA and is_text(name)
