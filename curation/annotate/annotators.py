"""Annotators: what each pixel stage makes of one decoded picture and its objects.

A pass decodes each picture once and shows it to every annotator that is due; each of them writes its own tables.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from refloom.curation.annotate import measure, quality
from refloom.curation.annotate.cutouts import CutOut, CutOuts
from refloom.curation.annotate.decoded import laplacian, sharpness, shrink
from refloom.curation.annotate.recognition import Recognition, Shown
from refloom.curation.annotate.scene import Scene
from refloom.curation.annotate.settings import Face
from refloom.curation.config import Curation
from refloom.curation.objects import Objects
from refloom.inference.models.crops import cut_square, square_face_box
from refloom.inference.models.embedders import ImageEmbedder
from refloom.inference.models.faces import Face as FoundFace
from refloom.inference.models.faces import FaceModel
from refloom.ingest.admission import settle
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Problem
from refloom.schemas import boxes, ids, masks, pictures
from refloom.schemas.components import COMPONENTS, SCORES, added_columns
from refloom.schemas.errors import Rejected
from refloom.schemas.unit import UnitWriter

Row = dict[str, Any]

_FACE_SHARPNESS_SIDE_PX = 128
_SCORED_TOGETHER = 2048
"""Objects whose components wait for their quality at most."""
_PERSON = "person"
_LEAST_HEADS = 8
"""Longer side of a person's box over the face's, from which the face of somebody who stands is large enough."""
_FACE_INSIDE = 0.7
"""Share of a face's box that must lie in the box of the object that holds it."""


class Annotator(Protocol):
    """One pixel stage at work on one unit.

    `look` is pure and may fail for one picture; `write` only writes, so that nothing is half written.
    """

    stage: str
    kind: str

    def count(self, image: Row, objects: Objects) -> int:
        """How many items of its kind a picture gives; it is not shown to a stage that has none there."""
        ...

    def look(self, image: Row, scene: Scene) -> Any:
        """What the stage makes of one picture and its objects; raises Rejected or Failed to give it up."""
        ...

    def write(self, image: Row, objects: Objects, looked: Any, out: UnitWriter) -> None:
        """Settle the picture, or its objects, now or later."""
        ...

    def finish(self, out: UnitWriter) -> None:
        """Settle what still waits, for example in a batch."""
        ...


def lose(annotator: Annotator, image_id: str, objects: Objects, problem: Problem, out: UnitWriter) -> None:
    """Settle a picture, or the objects on it, that an annotator cannot see."""
    if annotator.kind == "image":
        settle(out, "image", image_id, problem)
        return
    follow = type(problem)("image_rejected" if isinstance(problem, Rejected) else "image_failed", problem.reason)
    for object_id in objects.ids:
        settle(out, "object", object_id, follow)


class Measure:
    """Scores of whole pictures; a row means that the picture decodes."""

    stage, kind = "measure", "image"

    def count(self, image: Row, objects: Objects) -> int:
        """Every picture is an item."""
        return 1

    def look(self, image: Row, scene: Scene) -> Row:
        """Scores, those of plugins among them."""
        own = asdict(measure.image_scores(scene.picture))
        added = {name: SCORES[name].measure(scene.picture.rgb) for name in added_columns("image_scores")}
        return own | {name: None if value != value else float(value) for name, value in added.items()}

    def write(self, image: Row, objects: Objects, looked: Row, out: UnitWriter) -> None:
        """One row."""
        out.add("image_scores", {"image_id": image["image_id"], **looked})
        out.keep("image")

    def finish(self, out: UnitWriter) -> None:
        """Nothing waits."""


class Quality:
    """Components and quality of objects."""

    stage, kind = "quality", "object"

    def __init__(
        self, config: Curation, cosines: Callable[[list[str]], list[float | None]], recognition: Recognition | None
    ) -> None:
        """Make one.

        Args:
            config: settings.
            cosines: object ids to the cosine of phrase and cut-out, None where nobody has looked.
            recognition: asks a classifier; None where there is none.
        """
        self._config, self._cosines, self._recognition = config, cosines, recognition
        self._waiting: list[tuple[str, Objects, quality.Scores]] = []
        self._rows = 0

    def count(self, image: Row, objects: Objects) -> int:
        """Every object is an item."""
        return len(objects)

    def look(self, image: Row, scene: Scene) -> tuple[quality.Scores, list[Shown]]:
        """Components of the objects, and those objects that a classifier is still to see."""
        config = self._config
        scores = quality.score(scene.objects, scene.picture, config.quality, config.filter, scene.shapes)
        return scores, self._recognition.show(scene, scores.components) if self._recognition else []

    def write(self, image: Row, objects: Objects, looked: tuple[quality.Scores, list[Shown]], out: UnitWriter) -> None:
        """One row per object, many of them at once."""
        scores, shown = looked
        if self._recognition:
            self._recognition.add(shown)
        self._waiting.append((image["image_id"], objects, scores))
        self._rows += len(objects)
        if self._rows >= _SCORED_TOGETHER:
            self.finish(out)

    def finish(self, out: UnitWriter) -> None:
        """Write the rows that wait."""
        if not self._waiting:
            return
        lost = {}
        if self._recognition:
            self._recognition.finish()
            lost, self._recognition.lost = self._recognition.lost, {}
        kinds = [kind for _, objects, _ in self._waiting for kind in objects.kinds]
        names = tuple(COMPONENTS)
        # as the table holds them, so that a quality made of stored components is the same
        components = {
            name: np.concatenate([scores.components[name] for _, _, scores in self._waiting])
            .astype(np.float32)
            .astype(np.float64)
            for name in names
        }
        scores = components | {"quality": quality.quality(kinds, components, self._config.quality)}
        object_ids = [object_id for _, objects, _ in self._waiting for object_id in objects.ids]
        columns = {
            "object_id": object_ids,
            "phrase_cosine": self._cosines(object_ids),
            "image_id": [image_id for image_id, objects, _ in self._waiting for _ in range(len(objects))],
            "filtered": [reason for _, _, scores in self._waiting for reason in scores.filtered],
        }
        out.add_columns("object_scores", _without(columns | scores, [name in lost for name in object_ids]))
        out.keep("object", len(object_ids) - len(lost))
        for object_id, problem in lost.items():
            settle(out, "object", object_id, problem)
        self._waiting, self._rows = [], 0


def _without(columns: dict[str, Any], lost: list[bool]) -> dict[str, Any]:
    """Columns without the rows of objects that were lost."""
    if not any(lost):
        return columns
    return {
        name: [value for value, gone in zip(values, lost, strict=True) if not gone] for name, values in columns.items()
    }


class Faces:
    """Faces with crops, landmarks and identity embeddings; pictures of sources that blur faces are rejected."""

    stage, kind = "face", "image"

    def __init__(self, config: Face, model: FaceModel) -> None:
        self._config, self._model = config, model

    def count(self, image: Row, objects: Objects) -> int:
        """Every picture is an item."""
        return 1

    def look(self, image: Row, scene: Scene) -> list[Row]:
        """Rows of the faces; Rejected if there are none, with another word where a person should have one."""
        if image["faces_blurred"]:
            raise Rejected("faces_blurred")
        config = self._config
        found = self._model.find(
            scene.picture.rgb,
            min_det_score=config.min_det_score,
            min_side_px=config.min_side_px,
            max_faces=config.max_faces,
        )
        if not found:
            person = largest_person(scene.objects, _LEAST_HEADS * config.min_side_px)
            raise Rejected("no_face_of_person", person) if person else Rejected("no_face")
        return [self._row(face, image["image_id"], index, scene) for index, face in enumerate(found)]

    def _row(self, face: FoundFace, image_id: str, index: int, scene: Scene) -> Row:
        picture = scene.picture
        height, width = picture.size
        face_id = ids.face_id(image_id, index)
        square = square_face_box(face.box, width, height, self._config.crop_expand)
        crop = cut_square(picture.rgb, square, self._config.crop_max_side_px)
        x0, y0, x1, y1 = boxes.pad(face.box, width, height)
        gray = shrink(picture.gray[y0:y1, x0:x1], _FACE_SHARPNESS_SIDE_PX)
        return {
            "face_id": face_id,
            "image_id": image_id,
            "object_id": holder(face, scene.objects, width, height),
            "box": face.box,
            "landmarks": face.landmarks.tolist(),
            "det_score": face.det_score,
            "pose": None if face.pose is None else list(face.pose),
            "sharpness": sharpness(laplacian(gray)),
            "embedding": face.embedding,
            "crop_box": square,
            "crop": {"bytes": pictures.encode_jpeg(crop, self._config.crop_quality), "path": f"{face_id}.jpg"},
        }

    def write(self, image: Row, objects: Objects, looked: list[Row], out: UnitWriter) -> None:
        """One row per face."""
        for row in looked:
            out.add("faces", row, weight=len(row["crop"]["bytes"]))
        out.keep("image")

    def finish(self, out: UnitWriter) -> None:
        """Nothing waits."""


def largest_person(objects: Objects, min_side_px: float) -> str | None:
    """The largest object of the class person whose box is as long as that, or None."""
    sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]).max(axis=1, initial=0)
    found = [
        (-float(sides[index]), object_id)
        for index, (object_id, category) in enumerate(zip(objects.ids, objects.categories, strict=True))
        if category is not None and category.strip().lower() == _PERSON and sides[index] >= min_side_px
    ]
    return min(found)[1] if found else None


def holder(face: FoundFace, objects: Objects, width: int, height: int) -> str | None:
    """The smallest object that holds a face: its centre on the mask, and most of its box in the object's box.

    Whole pictures hold a face only where no object does.
    """
    x0, y0, x1, y1 = (float(edge) for edge in face.box)
    centre_x = min(int((x0 + x1) / 2), width - 1)
    centre_y = min(int((y0 + y1) / 2), height - 1)
    candidates = []
    for index, (object_id, box, mask) in enumerate(zip(objects.ids, objects.boxes, objects.masks, strict=True)):
        if objects.kinds[index] == "face":
            continue
        shared = max(0.0, min(x1, box[2]) - max(x0, box[0])) * max(0.0, min(y1, box[3]) - max(y0, box[1]))
        if shared < _FACE_INSIDE * (x1 - x0) * (y1 - y0):
            continue
        spot = (centre_x, centre_y, centre_x + 1, centre_y + 1)
        if mask is not None and not masks.decode_box(mask, spot)[0, 0]:
            continue
        size = float((box[2] - box[0]) * (box[3] - box[1]))
        candidates.append((objects.kinds[index] == "whole", size, object_id))
    return min(candidates)[2] if candidates else None


class Embeddings(CutOuts):
    """Embeddings of objects, cut out on white, and of the middles of whole pictures.

    Objects that the decode-free filter spares are rejected.
    """

    stage, table, middles = "embed", "embeddings", True

    def __init__(self, model: ImageEmbedder, watch: Watch) -> None:
        super().__init__(model.input_px, model.batch_size, watch)
        self._model = model

    def rows(self, shown: list[CutOut]) -> list[Row]:
        """One row per object."""
        vectors = self._model.embed(np.stack([item.crop for item in shown if item.crop is not None]))
        return [
            {"object_id": item.object_id, "image_id": item.image_id, "embedding": vector}
            for item, vector in zip(shown, vectors, strict=True)
        ]
