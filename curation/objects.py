"""The objects of one picture as columns, and the stream that gives them picture by picture.

Objects lie in their table in the order of the pictures, so a unit of any size is read side by side with its pictures,
one row group at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.boxes import Boxes
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import is_found
from refloom.schemas.masks import Mask
from refloom.schemas.tables import TABLES

_FOUND_COLUMNS = ("object_id", "image_id", "box", "area", "predicted_iou", "mask")
"""Columns of `masks` that an object found on a bare picture has."""

_COLUMNS = (
    "object_id",
    "image_id",
    "kind",
    "category",
    "phrase",
    "box",
    "area",
    "confidence",
    "predicted_iou",
    "mask",
)


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one picture, N of them.

    Attributes:
        ids: object ids.
        kinds: object, whole or face.
        categories, phrases: the source's words, or None.
        boxes: (N, 4) xyxy, pixels.
        areas: (N,) mask pixels; NaN without a mask.
        confidence: (N,) predicted IoU of the mask; NaN where there is none.
        masks: the effective masks, or None.
    """

    ids: list[str]
    kinds: list[str]
    categories: list[str | None]
    phrases: list[str | None]
    boxes: Boxes
    areas: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    masks: list[Mask | None]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> "Objects":
        """Some objects in a row; arrays are views."""
        cut: dict[str, Any] = {field.name: getattr(self, field.name)[start:stop] for field in fields(self)}
        return Objects(**cut)

    def plus(self, more: "Objects") -> "Objects":
        """These and then others."""
        joined: dict[str, Any] = {}
        for field in fields(self):
            one, two = getattr(self, field.name), getattr(more, field.name)
            joined[field.name] = one + two if isinstance(one, list) else np.concatenate([one, two])
        return Objects(**joined)


def columns(rows: pa.Table | pa.RecordBatch, made: dict[str, dict[str, Any]] | None = None) -> Objects:
    """Rows of `objects`, of one picture or many, as columns.

    Args:
        rows: with the columns of this module.
        made: object id to its row of `masks`, which wins over the source's mask.
    """
    ids: list[str] = rows.column("object_id").to_pylist()
    found = Objects(
        ids=ids,
        kinds=rows.column("kind").to_pylist(),
        categories=rows.column("category").to_pylist(),
        phrases=rows.column("phrase").to_pylist(),
        boxes=box_array(rows.column("box")),
        areas=float_array(rows.column("area")),
        confidence=float_array(rows.column("predicted_iou")),
        masks=rows.column("mask").to_pylist(),
    )
    for index, object_id in enumerate(ids):
        if made and object_id in made:
            row = made[object_id]
            found.masks[index], found.boxes[index], found.areas[index] = row["mask"], row["box"], row["area"]
            found.confidence[index] = np.nan if row["predicted_iou"] is None else row["predicted_iou"]
    return found


def box_array(column: pa.Array | pa.ChunkedArray) -> Boxes:
    """A column of boxes as (N, 4) float32."""
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.array(flat.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, 4)


def float_array(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A numeric column as float64, NaN where it is null."""
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.array(flat.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


class ObjectStream:
    """Objects of a unit, asked for picture by picture in the order of `images`."""

    def __init__(self, dataset: Dataset, unit: str, *, with_made_masks: bool = True) -> None:
        """Open the stream; no object is read before the first picture is asked for.

        Args:
            dataset, unit: where.
            with_made_masks: with the masks that the mask stage has made, and the objects that it found.
        """
        self._batches = dataset.batches("objects", _COLUMNS, unit=unit)
        self._made = made_masks(dataset, unit) if with_made_masks else {}
        self._found: dict[str, list[dict[str, Any]]] = {}
        for row in self._made.values():
            if is_found(row["object_id"]):
                self._found.setdefault(row["image_id"], []).append(row)
        self._rows = _EMPTY
        self._images: list[str] = []
        self._position = 0

    def take(self, image_id: str) -> Objects:
        """The objects of the next picture; pictures without objects give none.

        Pictures must be asked for in the order of the table, and each of them once.
        """
        found = self._here(image_id)
        while self._position == len(self._images) and self._next():
            found = found.plus(self._here(image_id))
        more = self._found.pop(image_id, None)
        return found.plus(columns(pa.RecordBatch.from_pylist(found_objects(more), _SCHEMA))) if more else found

    def _here(self, image_id: str) -> Objects:
        start = self._position
        while self._position < len(self._images) and self._images[self._position] == image_id:
            self._position += 1
        return self._rows.part(start, self._position)

    def _next(self) -> bool:
        batch = next(self._batches, None)
        if batch is None:
            return False
        self._images, self._position = batch.column("image_id").to_pylist(), 0
        self._rows = columns(batch, self._made)
        return True

    def finish(self) -> None:
        """Check that every object was asked for.

        Raises:
            AssertionError: objects lie in another order than their pictures; their scores would have been lost.
        """
        left = len(self._images) - self._position + sum(batch.num_rows for batch in self._batches)
        if left:
            raise AssertionError(f"{left} objects do not follow the order of their pictures")


def made_masks(dataset: Dataset, unit: str) -> dict[str, dict[str, Any]]:
    """Object id to its row of `masks`; none where the mask stage was not done."""
    if dataset.manifest("mask", unit) is None:
        return {}
    rows: Iterator[dict[str, Any]] = iter(dataset.read("masks", unit=unit).to_pylist())
    return {row["object_id"]: row for row in rows}


def found_objects(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `masks` that are objects of their own, as rows of `objects`."""
    known = _FOUND_COLUMNS
    return [{**dict.fromkeys(_NAMES), **{name: row[name] for name in known}, "kind": "object"} for row in rows]


def read_objects(dataset: Dataset, unit: str, names: Sequence[str]) -> pa.Table:
    """Objects of a unit in the order in which the pixel stages see them: those of the source, and those found.

    Args:
        dataset, unit: where.
        names: columns of `objects`.
    """
    source = dataset.read("objects", list(dict.fromkeys([*names, "image_id"])), unit=unit)
    held = [name for name in _FOUND_COLUMNS if name in {*names, "object_id", "image_id"}]
    made = dataset.read("masks", held, unit=unit)
    found = made.filter(pc.invert(pc.is_in(made["object_id"], _object_ids(dataset, unit, source))))
    if len(found):
        schema = pa.schema([TABLES["objects"].schema.field(name) for name in source.column_names])
        joined = pa.concat_tables([source.cast(schema), _as_objects(found, schema)])
        images = dataset.read("images", ["image_id"], unit=unit)["image_id"]
        place = pc.index_in(joined["image_id"], value_set=images.combine_chunks())
        source = joined.take(pa.array(np.argsort(place.to_numpy(), kind="stable")))
    return source.select(list(names))


def _object_ids(dataset: Dataset, unit: str, source: pa.Table) -> pa.ChunkedArray:
    """The ids of the source's objects, read only where they are not at hand."""
    held = source if "object_id" in source.column_names else dataset.read("objects", ["object_id"], unit=unit)
    return held["object_id"]


def _as_objects(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of `masks` that are objects of their own, with columns of `objects`; `found_objects` in columns."""
    known = {name: found[name] for name in found.column_names} | {"kind": pa.array(["object"] * len(found))}
    empty = pa.nulls(len(found))
    return pa.table([known.get(field.name, empty).cast(field.type) for field in schema], schema)


_NAMES = tuple(TABLES["objects"].schema.names)
_SCHEMA = pa.schema([TABLES["objects"].schema.field(name) for name in _COLUMNS])
_EMPTY = columns(_SCHEMA.empty_table())
