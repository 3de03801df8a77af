"""What dedup compares: columns of the pictures and objects of a dataset."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.neighbours.pairs import Floats, Indices
from refloom.curation.neighbours.vectors import matrix
from refloom.curation.objects import float_array
from refloom.schemas.dataset import Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Columns of N pictures.

    Attributes:
        ids: image ids.
        sha256: of their bytes.
        sizes: (N, 2) width and height, pixels.
        phash: (N,) uint64.
        light: (N, 2) brightness and contrast, 0 to 1; NaN where the picture was not measured: its hash is not used.
        quality: (N,) of its best object; NaN where it has none.
        videos: of frames, else None.
        groups: source groups that it is in.
    """

    ids: list[str]
    sha256: list[str]
    sizes: npt.NDArray[np.int64]
    phash: npt.NDArray[np.uint64]
    light: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    videos: list[str | None]
    groups: list[frozenset[str]]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Indices) -> "Pictures":
        """Some of them."""
        return Pictures(
            [self.ids[row] for row in rows],
            [self.sha256[row] for row in rows],
            self.sizes[rows],
            self.phash[rows],
            self.light[rows],
            self.quality[rows],
            [self.videos[row] for row in rows],
            [self.groups[row] for row in rows],
        )

    def places(self) -> list[str]:
        """Where each was taken: its video, or itself. Objects of one place are never copies of each other."""
        return [video or name for video, name in zip(self.videos, self.ids, strict=True)]

    def table(self) -> pa.Table:
        """As a table without groups, which may reach beyond the part that was read: 100 bytes a picture."""
        return pa.table(
            [
                pa.array(self.ids, pa.string()),
                pa.array([bytes.fromhex(name) for name in self.sha256], pa.binary(32)),
                *(pa.array(side, pa.int32()) for side in self.sizes.T),
                pa.array(self.phash, pa.uint64()),
                *(pa.array(value, pa.float64()) for value in self.light.T),
                pa.array(self.quality, pa.float64()),
                pa.array(self.videos, pa.string()),
            ],
            _SCHEMA,
        )


_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "sha256": pa.binary(32),
        "width": pa.int32(),
        "height": pa.int32(),
        "phash": pa.uint64(),
        "brightness": pa.float64(),
        "contrast": pa.float64(),
        "quality": pa.float64(),
        "video_id": pa.string(),
    }
)


def pictures_of(table: pa.Table, groups: dict[str, frozenset[str]]) -> Pictures:
    """The inverse of `Pictures.table`, with the source groups of pictures that are in any."""
    ids = table["image_id"].to_pylist()
    return Pictures(
        ids,
        [digest.hex() for digest in table["sha256"].to_pylist()],
        np.stack([table[side].to_numpy() for side in ("width", "height")], axis=1).astype(np.int64),
        table["phash"].to_numpy(),
        np.stack([table[name].to_numpy() for name in ("brightness", "contrast")], axis=1),
        table["quality"].to_numpy(),
        table["video_id"].to_pylist(),
        [groups.get(name, frozenset()) for name in ids],
    )


@dataclass(frozen=True, slots=True, eq=False)
class Things:
    """Columns of M objects.

    Attributes:
        ids: object ids.
        images: (M,) places in `Pictures`.
        kinds: object, whole or face.
        boxes: (M, 4) xyxy, as shares of the picture's sides.
        quality: (M,) NaN where there is none.
    """

    ids: list[str]
    images: Indices
    kinds: list[str]
    boxes: Floats
    quality: npt.NDArray[np.float64]


def read_columns(dataset: Dataset, units: Sequence[str]) -> tuple[Pictures, Things]:
    """Columns of the pictures and objects of some units, without source groups and embeddings."""
    images = _read(dataset, "images", ["image_id", "sha256", "width", "height", "video_id"], units)
    image_ids: list[str] = images["image_id"].to_pylist()
    place = {name: row for row, name in enumerate(image_ids)}
    sizes = np.stack([images[side].to_numpy() for side in ("width", "height")], axis=1).astype(np.int64)
    phash, light = np.zeros(len(place), np.uint64), np.full((len(place), 2), np.nan)
    scores = _read(dataset, "image_scores", ["image_id", "phash", "brightness", "contrast"], units)
    rows = np.array([place[name] for name in scores["image_id"].to_pylist()], np.int64)
    phash[rows] = scores["phash"].to_numpy()
    light[rows] = np.stack([float_array(scores[name]) for name in ("brightness", "contrast")], axis=1)
    things = _things(dataset, units, place, sizes)
    best = np.full(len(place), -np.inf)
    known = ~np.isnan(things.quality)
    np.maximum.at(best, things.images[known], things.quality[known])
    return Pictures(
        image_ids,
        images["sha256"].to_pylist(),
        sizes,
        phash,
        light,
        np.where(np.isinf(best), np.nan, best),
        images["video_id"].to_pylist(),
        [frozenset()] * len(image_ids),
    ), things


def source_groups(dataset: Dataset, wanted: Collection[str]) -> dict[str, frozenset[str]]:
    """Image id to the source groups that it is in, for wanted pictures in any; reads unit by unit."""
    found: dict[str, set[str]] = defaultdict(set)
    for unit in dataset.units():
        for row in dataset.read("source_groups", ["group_id", "members"], unit=unit).to_pylist():
            for member in row["members"]:
                if member in wanted:
                    found[member].add(row["group_id"])
    return {name: frozenset(groups) for name, groups in found.items()}


def _read(dataset: Dataset, table: str, columns: list[str], units: Sequence[str]) -> pa.Table:
    return pa.concat_tables([dataset.read(table, columns, unit=unit) for unit in units])


def _things(dataset: Dataset, units: Sequence[str], place: dict[str, int], sizes: npt.NDArray[np.int64]) -> Things:
    objects = _read(dataset, "objects", ["object_id", "image_id", "kind", "box"], units)
    names: list[str] = objects["object_id"].to_pylist()
    images = np.array([place[name] for name in objects["image_id"].to_pylist()], np.int64)
    boxes = matrix(objects["box"]).reshape(-1, 4)
    scores = _read(dataset, "object_scores", ["object_id", "quality"], units)
    quality = dict(zip(scores["object_id"].to_pylist(), float_array(scores["quality"]), strict=True))
    return Things(
        names,
        images,
        objects["kind"].to_pylist(),
        (boxes / np.tile(sizes[images], 2)).astype(np.float32),
        np.array([quality.get(name, np.nan) for name in names], np.float64),
    )
