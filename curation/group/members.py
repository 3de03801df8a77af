"""The members of a unit's groups: kept objects by track, by picture and by id, and the faces that stand for persons."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.masks import Mask

Row = dict[str, Any]

_COLUMNS = ("object_id", "image_id", "track_id", "kind", "area", "box", "mask")


@dataclass(frozen=True, slots=True)
class Member:
    """A kept object as groups see it.

    Attributes:
        object_id, image_id, frame_index: which, where and when.
        kind: object, whole or face.
        area: pixels of the source's mask, NaN without one.
        box: xyxy, pixels.
        mask: the source's, or None.
        outline: the effective mask, the source's or one that was made, or None.
        sharpness: `object_scores`' own, NaN where there is none.
    """

    object_id: str
    image_id: str
    frame_index: int | None
    kind: str
    area: float
    box: list[float]
    mask: Mask | None
    outline: Mask | None
    sharpness: float


@dataclass(frozen=True, slots=True)
class Portrait:
    """A face that is a member, or is held by one: pitch, yaw and roll in degrees or None; log10(1 + sharpness)."""

    pose: list[float] | None
    sharpness: float


class Members:
    """What groups of some units are made of, with embeddings; objects that can be in no group are left out."""

    def __init__(self, dataset: Dataset, units: tuple[str, ...], matched: set[str]) -> None:
        """Read them.

        Args:
            dataset: selected from.
            units: that hold members.
            matched: object and face ids of the groups over the whole dataset.
        """
        self.by_id: dict[str, Member] = {}
        self.by_track: dict[str, list[Member]] = defaultdict(list)
        self.whole: dict[str, Member] = {}
        self.embeddings: dict[str, npt.NDArray[np.float32]] = {}
        self.videos: dict[str, str | None] = {}
        self.portraits: dict[str, Portrait] = {}
        self._matched = pa.array(sorted(matched), pa.string())
        for unit in units:
            self._read(dataset, unit)

    def _read(self, dataset: Dataset, unit: str) -> None:
        selection = dataset.read("selection", ["object_id", "verdict"], unit=unit)
        kept = selection.filter(pc.equal(selection["verdict"], "keep"))["object_id"].combine_chunks()
        images = dataset.read("images", ["image_id", "video_id", "frame_index"], unit=unit).to_pylist()
        frames = {row["image_id"]: row["frame_index"] for row in images}
        self.videos |= {row["image_id"]: row["video_id"] for row in images}
        rows = {row["object_id"]: row for row in self._objects(dataset, unit, kept)}
        outlines = self._made(dataset, unit, rows, kept)
        scores = dataset.read("object_scores", ["object_id", "sharpness"], unit=unit)
        scores = scores.filter(pc.is_in(scores["object_id"], pa.array(list(rows), pa.string())))
        sharp = dict(zip(scores["object_id"].to_pylist(), scores["sharpness"].to_pylist(), strict=True))
        for object_id, row in rows.items():
            sharpness = sharp.get(object_id)
            member = Member(
                object_id,
                row["image_id"],
                frames[row["image_id"]],
                row["kind"],
                np.nan if row["area"] is None else float(row["area"]),
                row["box"],
                row["mask"],
                outlines.get(object_id, row["mask"]),
                np.nan if sharpness is None else sharpness,
            )
            self.by_id[object_id] = member
            if row["track_id"] is not None:
                self.by_track[row["track_id"]].append(member)
            elif row["kind"] == "whole":
                self.whole[row["image_id"]] = member
        self._read_faces(dataset, unit)
        if dataset.manifest("embed", unit) is not None:
            table = dataset.read("embeddings", ["object_id", "embedding"], unit=unit)
            table = table.filter(pc.is_in(table["object_id"], pa.array(list(rows), pa.string())))
            for object_id, vector in zip(table["object_id"].to_pylist(), table["embedding"], strict=True):
                self.embeddings[object_id] = np.array(vector.values.to_numpy(), np.float32)

    def _objects(self, dataset: Dataset, unit: str, kept: pa.Array) -> list[Row]:
        """Rows of kept objects that are on a track, a whole picture, or matched."""
        rows: list[Row] = []
        for batch in dataset.batches("objects", _COLUMNS, unit=unit):
            ids = batch.column("object_id")
            wanted = pc.or_(batch.column("track_id").is_valid(), pc.equal(batch.column("kind"), "whole"))
            wanted = pc.or_(wanted, pc.is_in(ids, self._matched))
            rows += batch.filter(pc.and_(wanted, pc.is_in(ids, kept))).to_pylist()
        return rows

    def _made(self, dataset: Dataset, unit: str, rows: dict[str, Row], kept: pa.Array) -> dict[str, Mask]:
        """Masks that were made for these objects; objects that were found on bare pictures are added to `rows`."""
        outlines: dict[str, Mask] = {}
        own = pa.array(list(rows), pa.string())
        for batch in dataset.batches("masks", ["object_id", "image_id", "box", "area", "mask"], unit=unit):
            ids = batch.column("object_id")
            wanted = pc.or_(pc.is_in(ids, own), pc.and_(pc.is_in(ids, self._matched), pc.is_in(ids, kept)))
            for row in batch.filter(wanted).to_pylist():
                outlines[row["object_id"]] = row["mask"]
                if row["object_id"] not in rows:
                    rows[row["object_id"]] = row | {"kind": "object", "track_id": None}
        return outlines

    def _read_faces(self, dataset: Dataset, unit: str) -> None:
        """Faces that are matched, or lie on an object that is; the best of several, which comes first."""
        if not len(self._matched):
            return
        faces = dataset.read("faces", ["face_id", "object_id", "pose", "sharpness"], unit=unit)
        for row in faces.to_pylist():
            sharpness = np.nan if row["sharpness"] is None else float(np.log10(1 + row["sharpness"]))
            for name in (row["face_id"], row["object_id"]):
                if name is not None:
                    self.portraits.setdefault(name, Portrait(row["pose"], sharpness))


def matched_units(dataset: Dataset, unit: str) -> tuple[str, ...]:
    """Other units that hold members of the groups over the whole dataset that begin in this unit."""
    rows = dataset.read("matches", ["units"], unit=unit)["units"].to_pylist()
    return tuple(dict.fromkeys(name for units in rows for name in units or ()))
