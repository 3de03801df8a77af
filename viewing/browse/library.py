"""Rows and pixels by id, from the few row groups that hold them; what was asked for last is kept. Safe to share."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.schemas import pictures
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.viewing.browse.index import Index
from refloom.viewing.outlines import Pixels
from refloom.viewing.report.threshold import quality_settings
from refloom.viewing.rows import fetch

Row = dict[str, Any]
Value = TypeVar("Value")

_PICTURE_COLUMNS = ("image_id", "link", "image", "sha256")
_KEPT_PIXELS = 192 << 20
_KEPT_GROUPS = 160 << 20
_KEPT_ROWS = 400


class Kept(Generic[Value]):
    """The values that were used last, up to a size; a value is made once, whoever asks.

    Args:
        most: size of all values together; the newest one is kept whatever its size.
        size: of a value.
    """

    def __init__(self, most: int, size: Callable[[Value], int] = lambda _: 1) -> None:
        self._most, self._size = most, size
        self._values: OrderedDict[Any, Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()
        self._making: dict[Any, threading.Lock] = {}

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value of a key, made if it is not there."""
        with self._lock:
            own = self._making.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]
            value = make()
            with self._lock:
                self._values[key] = value
                self._total += self._size(value)
                while self._total > self._most and len(self._values) > 1:
                    _, gone = self._values.popitem(last=False)
                    self._total -= self._size(gone)
                self._making.pop(key, None)
        return value


class Library:
    """A dataset's rows by id.

    Args:
        dataset: where.
        index: says which unit holds what.

    Attributes:
        quality: settings that most qualities were made with; None where there are none.
    """

    def __init__(self, dataset: Dataset, index: Index) -> None:
        self.dataset, self.index = dataset, index
        for stage in STAGES:
            dataset.manifests(stage)  # read now, so that threads only look at them
        self.quality = quality_settings(dataset)
        self._pixels: Kept[Pixels | str] = Kept(_KEPT_PIXELS, lambda value: getattr(value, "nbytes", 64))
        self._groups: Kept[pa.Table] = Kept(_KEPT_GROUPS, lambda table: int(table.nbytes))
        self._layouts: Kept[list[tuple[str, list[int]]]] = Kept(_KEPT_ROWS)
        self._objects: Kept[list[Row]] = Kept(_KEPT_ROWS)

    def unit_of(self, view: str, row: int) -> str:
        """Name of the unit of a row of the index."""
        return self.index.units[int(self.index.listings[view].units[row])]

    def identity(self, view: str, row: int) -> str:
        """Id of a row of the index."""
        return str(self.index.listings[view].ids[int(row)].as_py())

    def one(self, table: str, unit: str, identity: str, columns: Sequence[str]) -> Row | None:
        """A row of a table, by its key."""
        return next(fetch(self.dataset, table, {unit: {identity}}, columns), None)

    # -- pictures ------------------------------------------------------------------------------------------------

    def pixels(self, row: int) -> Pixels | str:
        """The upright pixels of a picture of the index, or the word for why there are none."""
        return self._pixels.get(row, lambda: self._decode(row))

    def _decode(self, row: int) -> Pixels | str:
        found = self._picture(row)
        try:
            return pictures.decode(self.dataset.checked_picture(found))
        except (Rejected, Failed) as problem:
            return problem.reason

    def _picture(self, row: int) -> Row:
        """The row of a picture, straight from its row group: pages of pictures lie side by side."""
        unit = self.unit_of("pictures", row)
        place = int(self.index.places[row])
        for path, starts in self._layouts.get(unit, lambda: self._layout(unit)):
            if place < starts[-1]:
                group = int(np.searchsorted(starts, place, side="right")) - 1
                table = self._groups.get((path, group), lambda: self._read_group(path, group))  # noqa: B023
                found: Row = table.slice(place - starts[group], 1).to_pylist()[0]
                return found
            place -= starts[-1]
        raise KeyError(f"picture {row} is not in {unit}")

    def _layout(self, unit: str) -> list[tuple[str, list[int]]]:
        """Each file of a unit's pictures with the rows at which its row groups begin, and its end."""
        manifest = self.dataset.manifest("ingest", unit)
        layout = []
        for file in manifest.files_of("images") if manifest else []:
            with self.dataset.opened("images", file.path) as reader:
                sizes = [reader.metadata.row_group(group).num_rows for group in range(reader.num_row_groups)]
            layout.append((file.path, [0, *np.cumsum(sizes).tolist()]))
        return layout

    def _read_group(self, path: str, group: int) -> pa.Table:
        with self.dataset.opened("images", path) as reader:
            return reader.read_row_group(group, columns=list(_PICTURE_COLUMNS), use_threads=False)

    # -- what lies on them ---------------------------------------------------------------------------------------

    def objects_on(self, row: int) -> list[Row]:
        """The objects of a picture: rows of `objects` with effective mask, box and phrase, all scores and verdict."""
        return self._objects.get(row, lambda: self._read_objects(row))

    def _read_objects(self, row: int) -> list[Row]:
        listing = self.index.listings["objects"]
        mine = np.flatnonzero(listing.parent == row)
        ids = {self.identity("objects", at) for at in mine.tolist()}
        wanted = {self.unit_of("pictures", row): ids}
        columns = ["object_id", "image_id", "kind", "category", "phrase", "box", "area", "confidence", "mask"]
        found: dict[str, Row] = {one["object_id"]: one for one in fetch(self.dataset, "objects", wanted, columns)}
        for one in fetch(self.dataset, "masks", wanted, ["object_id", "image_id", "box", "area", "mask"]):
            found[one["object_id"]] = (
                dict.fromkeys(columns) | {"kind": "object"} | found.get(one["object_id"], {}) | one
            )
        for one in fetch(self.dataset, "phrases", wanted, ["object_id", "phrase"]):
            found[one["object_id"]]["phrase"] = one["phrase"]
        scores = {one["object_id"]: one for one in fetch(self.dataset, "object_scores", wanted, self.score_columns())}
        ordered = []
        for at in mine.tolist():
            one = found[self.identity("objects", at)]
            one["scores"] = {
                name: value for name, value in scores.get(one["object_id"], {}).items() if name[-3:] != "_id"
            }
            one["verdict"] = self.index.verdicts.at(at) or "undecided"
            ordered.append(one)
        return ordered

    @staticmethod
    def score_columns() -> list[str]:
        """Columns of `object_scores` that say something of an object."""
        from refloom.schemas.tables import TABLES

        return [name for name in TABLES["object_scores"].schema.names if name != "image_id"]

    def faces_on(self, row: int) -> list[Row]:
        """The faces of a picture, with their crops."""
        listing = self.index.listings["faces"]
        ids = {self.identity("faces", at) for at in np.flatnonzero(listing.parent == row).tolist()}
        columns = ["face_id", "object_id", "box", "landmarks", "det_score", "sharpness", "crop_box", "crop"]
        return list(fetch(self.dataset, "faces", {self.unit_of("pictures", row): ids}, columns)) if ids else []

    def groups_of(self, row: int) -> list[int]:
        """Rows of the groups that have a member on a picture."""
        members = self.index.members
        on_it = np.flatnonzero(self.index.listings["objects"].parent == row)
        return _distinct(members[np.isin(members[:, 0], on_it), 1])

    def samples_of(self, row: int) -> list[int]:
        """Rows of the samples that hold a picture."""
        return _distinct(self.index.shown[self.index.shown[:, 0] == row, 1])


def _distinct(values: npt.NDArray[np.int64]) -> list[int]:
    found: list[int] = np.unique(values).tolist()
    return found
