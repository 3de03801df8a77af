"""What composing knows of the pictures at hand, and how it is read from the tables of their units."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.compose.memberships import Memberships
from refloom.curation.compose.settings import Compose
from refloom.curation.group.pose import Bools, pair_pose_changes, silhouettes
from refloom.curation.objects import found_objects, made_masks
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import is_found

Row = dict[str, Any]
Seen = dict[str, list[tuple[int, Row]]]
"""Subject id to where it is seen: places of pictures in the sample, and objects."""

_OBJECT_COLUMNS = (
    "object_id",
    "image_id",
    "track_id",
    "kind",
    "category",
    "phrase",
    "box",
    "confidence",
    "predicted_iou",
    "mask",
)
_SCORES = ("quality", "phrase_cosine", "sharpness")
_FACE_COLUMNS = ("face_id", "image_id", "object_id", "box", "landmarks", "det_score", "pose", "sharpness")


@dataclass(slots=True)
class ComposeInputs:
    """What is known of the pictures at hand, by id.

    Attributes:
        images: `images` rows without bytes.
        objects: kept objects of each picture: `objects` rows with effective mask and phrase, and `quality`,
            `phrase_cosine` and `sharpness` joined in.
        faces: `faces` rows of each picture, without crops and embeddings.
        embeddings: of objects.
        identities: identity embeddings of faces.
        text_space: embeddings of cut-outs in the space of texts.
        captions: made by a model, of pictures without one.
        memberships: which objects and faces show one subject.
        outlines: of objects with a mask, see `group.pose`; as far as they were asked for.
    """

    images: dict[str, Row] = field(default_factory=dict)
    objects: dict[str, list[Row]] = field(default_factory=dict)
    faces: dict[str, list[Row]] = field(default_factory=dict)
    embeddings: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    identities: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    text_space: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    memberships: Memberships = field(default_factory=Memberships)
    outlines: dict[str, Bools] = field(default_factory=dict)

    def outline(self, rows: Iterable[Row]) -> None:
        """Lay out the outlines of objects that are not yet: reading many masks at once is a third of the time."""
        new = {
            row["object_id"]: row["mask"]
            for row in rows
            if row["mask"] is not None and row["object_id"] not in self.outlines
        }
        if new:
            self.outlines |= zip(new, silhouettes(list(new.values())), strict=True)

    def pose_changes(self, shown: Sequence[Row], are_faces: Sequence[bool]) -> list[float | None]:
        """How much the pose differs between each pair (0,1), (0,2), ..., (1,2), ...; None where it is not known.

        Args:
            shown: N objects, which were outlined, or faces.
            are_faces: of each, whether it is a face.
        """
        boxes = np.array([row["box"] for row in shown], np.float32).reshape(-1, 4)
        outlines = [
            None if is_face else self.outlines.get(row["object_id"])
            for row, is_face in zip(shown, are_faces, strict=True)
        ]
        are_shaped = [not is_face and row["kind"] == "object" for row, is_face in zip(shown, are_faces, strict=True)]
        return pair_pose_changes(outlines, boxes, are_shaped)

    def read_seen(self, dataset: Dataset, unit: str, wanted: Collection[str] | None = None) -> None:
        """Add kept objects of a unit with masks, scores and embeddings, and its faces.

        Args:
            dataset, unit: where.
            wanted: ids of the objects and faces that are asked for; None for all.
        """
        selection = dataset.read("selection", ["object_id", "verdict"], unit=unit).to_pylist()
        kept = {row["object_id"] for row in selection if row["verdict"] == "keep"}
        kept = kept if wanted is None else kept.intersection(wanted)
        scores = {
            row["object_id"]: row
            for row in dataset.read("object_scores", ["object_id", *_SCORES], unit=unit).to_pylist()
            if row["object_id"] in kept
        }
        made = {object_id: row for object_id, row in made_masks(dataset, unit).items() if object_id in kept}
        for row in _kept_objects(dataset, unit, kept, made):
            row |= {name: scores[row["object_id"]][name] for name in _SCORES}
            self.objects.setdefault(row["image_id"], []).append(row)
        self._read_faces(dataset, unit, kept, wanted)
        if dataset.manifest("embed", unit) is not None:
            self.embeddings |= _vectors(dataset, "embeddings", "object_id", unit, kept)

    def _read_faces(self, dataset: Dataset, unit: str, kept: set[str], wanted: Collection[str] | None) -> None:
        """Faces with their identities; where not all are wanted, those that are and those of wanted objects."""
        rows = [
            row
            for row in optional(dataset, "faces", unit, _FACE_COLUMNS)
            if wanted is None or row["face_id"] in wanted or row["object_id"] in kept
        ]
        for row in rows:
            self.faces.setdefault(row["image_id"], []).append(row)
        if rows:
            self.identities |= _vectors(dataset, "faces", "face_id", unit, {row["face_id"] for row in rows})

    def read_words(self, dataset: Dataset, unit: str, config: Compose) -> None:
        """Add the phrases of objects that are at hand, and captions that a model made."""
        rows = {row["object_id"]: row for rows in self.objects.values() for row in rows}
        self.captions |= {row["image_id"]: row["caption"] for row in optional(dataset, "captions", unit)}
        for object_id, phrase in _phrases(dataset, unit, rows, config).items():
            rows[object_id]["phrase"] = phrase["phrase"]
            self.text_space[object_id] = np.array(phrase["embedding"], np.float32)


def _kept_objects(dataset: Dataset, unit: str, kept: set[str], made: dict[str, Row]) -> Iterator[Row]:
    """Rows of `objects` with effective masks: the source's objects, then those that were found on bare pictures."""
    for batch in dataset.batches("objects", _OBJECT_COLUMNS, unit=unit) if kept else ():
        ids = batch.column("object_id").to_pylist()
        for position in (index for index, object_id in enumerate(ids) if object_id in kept):
            (row,) = batch.slice(position, 1).to_pylist()
            if row["object_id"] in made:
                row |= {name: made[row["object_id"]][name] for name in ("mask", "box", "predicted_iou")}
            yield row
    yield from found_objects([row for object_id, row in made.items() if is_found(object_id)])


def _vectors(
    dataset: Dataset, table: str, key: str, unit: str, wanted: Collection[str]
) -> Iterable[tuple[str, npt.NDArray[np.float32]]]:
    """Id to vector of the rows that are wanted and have one."""
    rows = dataset.read(table, [key, "embedding"], unit=unit)
    return [
        (name, np.array(vector.values.to_numpy(), np.float32))
        for name, vector in zip(rows[key].to_pylist(), rows["embedding"], strict=True)
        if name in wanted and vector.is_valid
    ]


def _phrases(dataset: Dataset, unit: str, known: Mapping[str, Row], config: Compose) -> dict[str, Row]:
    """Rows of `phrases` that samples may use."""
    return {
        row["object_id"]: row
        for row in optional(dataset, "phrases", unit)
        if row["object_id"] in known
        and (
            row["origin"] == "source"
            or (row["probability"] >= config.min_phrase_probability and row["margin"] >= config.min_phrase_margin)
        )
    }


def optional(dataset: Dataset, table: str, unit: str, columns: tuple[str, ...] | None = None) -> list[Row]:
    """Rows of a table whose stage may not have been done."""
    rows: list[Row] = dataset.read(table, columns, unit=unit).to_pylist()
    return rows
