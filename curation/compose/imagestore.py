"""Pictures of units by id: scalars in memory, bytes by row group, a few row groups kept."""

from collections import OrderedDict
from typing import Any

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed

_SCALARS = (
    "image_id",
    "source",
    "split",
    "width",
    "height",
    "orientation",
    "original_size",
    "captions",
    "video_id",
    "frame_index",
    "time_s",
    "license",
    "faces_blurred",
    "sha256",
)
_KEPT_ROW_GROUPS = 4


class PictureStore:
    """Random access to the pictures of one or more units; sequential access reads every row group once."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._places: dict[str, tuple[str, int, int]] = {}
        self._groups: OrderedDict[tuple[str, int], list[dict[str, Any]]] = OrderedDict()
        self.rows: dict[str, dict[str, Any]] = {}

    def open(self, unit: str) -> list[str]:
        """Read the scalars of a unit's pictures; returns their ids in order."""
        ids: list[str] = []
        manifest = self._dataset.manifest("ingest", unit)
        for file in manifest.files_of("images") if manifest else []:
            with self._dataset.opened("images", file.path) as reader:
                for group in range(reader.num_row_groups):
                    rows = reader.read_row_group(group, columns=list(_SCALARS), use_threads=False).to_pylist()
                    for position, row in enumerate(rows):
                        self._places[row["image_id"]] = (file.path, group, position)
                        self.rows[row["image_id"]] = row
                        ids.append(row["image_id"])
        return ids

    def data(self, image_id: str) -> tuple[bytes, str]:
        """A picture's bytes and file name.

        Raises:
            Failed: a linked file is gone.
            KeyError: the picture's unit was not opened.
        """
        path, group, position = self._places[image_id]
        if (path, group) not in self._groups:
            with self._dataset.opened("images", path) as reader:
                columns = ["image_id", "sha256", "link", "image"]
                rows = reader.read_row_group(group, columns=columns, use_threads=False).to_pylist()
            self._groups[path, group] = rows
            while len(self._groups) > _KEPT_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end((path, group))
        row = self._groups[path, group][position]
        if row["image"] is None and row["link"] is None:
            raise Failed("missing_file", f"{image_id} has neither bytes nor a link")
        name = row["image"]["path"] if row["image"] is not None else row["link"]["file"]
        return self._dataset.checked_picture(row), name

    def missing(self, image_id: str) -> Failed:
        """The failure of an item whose picture lies in no unit."""
        return Failed("missing_file", f"{image_id} is in no unit")
