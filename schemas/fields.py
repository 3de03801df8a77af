"""What the tables of a refloom dataset are made of: types of columns, and fields that say what they mean."""

from dataclasses import dataclass

import pyarrow as pa

VERSION = 1
"""Version of the on-disk contract. A dataset of another version is refused.

A column that may be null can be added without a new one: it reads as null in units that were written before it, and the
version of its stage is bumped, so that `curate` asks for `--replace`.
"""

MASK = pa.struct([pa.field("size", pa.list_(pa.int32(), 2)), pa.field("counts", pa.string())])
BOX = pa.list_(pa.float32(), 4)
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
LINK = pa.struct(
    [
        pa.field("root", pa.string()),
        pa.field("file", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
    ]
)
STRINGS = pa.list_(pa.string())
VECTOR = pa.list_(pa.float32())
LANDMARKS = pa.list_(pa.list_(pa.float32(), 2), 5)

MASK_DOC = "compressed COCO RLE of the upright picture; null where there is none"
BOX_DOC = "xyxy, pixels of the upright picture"


def field(
    name: str,
    kind: pa.DataType,
    doc: str,
    *,
    unit: str | None = None,
    span: str | None = None,
    model: str | None = None,
    required: bool = False,
) -> pa.Field:
    """A field whose metadata says what it means; `span` is the range of values, `model` the kind that makes it."""
    metadata = {"doc": doc, "unit": unit, "range": span, "model": model}
    return pa.field(
        name, kind, nullable=not required, metadata={key: value for key, value in metadata.items() if value}
    )


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the contract.

    Attributes:
        name: the folder.
        stage: the only stage that writes it.
        key: the column that names a row, unique over the dataset.
        doc: one line for the card.
        schema: fields without the Hugging Face metadata, which the writer adds.
    """

    name: str
    stage: str
    key: str
    doc: str
    schema: pa.Schema


def table(name: str, stage: str, key: str, doc: str, fields: list[pa.Field]) -> Table:
    """A table, with its name and the contract's version in the schema."""
    metadata = {"refloom.table": name, "refloom.version": str(VERSION)}
    return Table(name, stage, key, doc, pa.schema(fields, metadata))


def metadata_of(field: pa.Field) -> dict[str, str]:
    """A field's doc, unit, range and model as text."""
    raw: dict[bytes, bytes] = field.metadata or {}
    return {key.decode(): value.decode() for key, value in raw.items()}


def leaves(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """Every leaf column as Parquet names it, e.g. ("images.list.element.bytes", binary)."""
    out: list[tuple[str, pa.DataType]] = []

    def walk(path: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for field in kind:
                walk(f"{path}.{field.name}", field.type)
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            walk(f"{path}.list.element", kind.value_type)
        else:
            out.append((path, kind))

    for field in schema:
        walk(field.name, field.type)
    return out
