"""What dedup compares: columns of the pictures and objects of a dataset, and of the pictures of evaluation sets."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.decoded import Decoded
from curation.measure import image_scores
from curation.neighbours.pairs import Floats, Indices
from curation.neighbours.vectors import matrix, read_vectors
from curation.objects import float_array
from inference.models.crops import cut_out
from inference.models.embedders import ImageEmbedder
from ingest import files
from schemas import ids, pictures
from schemas.dataset import Dataset
from schemas.errors import Failed, Refused, Rejected
from schemas.fingerprint import of_json
from schemas.storage import Folder

Row = dict[str, Any]


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

    def joined(self, other: "Pictures") -> "Pictures":
        """These, then others."""
        return Pictures(
            self.ids + other.ids,
            self.sha256 + other.sha256,
            np.concatenate([self.sizes, other.sizes]),
            np.concatenate([self.phash, other.phash]),
            np.concatenate([self.light, other.light]),
            np.concatenate([self.quality, other.quality]),
            self.videos + other.videos,
            self.groups + other.groups,
        )

    def places(self) -> list[str]:
        """Where each was taken: its video, or itself. Objects of one place are never copies of each other."""
        return [video or name for video, name in zip(self.videos, self.ids, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Things:
    """Columns of M objects.

    Attributes:
        ids: object ids.
        images: (M,) places in `Pictures`.
        kinds: object, whole or face.
        boxes: (M, 4) xyxy, as shares of the picture's sides.
        quality: (M,) NaN where there is none.
        rows: (M,) rows in `vectors`, -1 for objects without an embedding.
        vectors: (R, D) float32, unit length.
    """

    ids: list[str]
    images: Indices
    kinds: list[str]
    boxes: Floats
    quality: npt.NDArray[np.float64]
    rows: Indices
    vectors: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What must not leak into training.

    Attributes:
        pictures: E of them.
        ids: of the embeddings: of pictures or of their objects.
        vectors: (V, D) float32, unit length, by the same model as the dataset's; (0, D) if there are none.
    """

    pictures: Pictures
    ids: list[str]
    vectors: Floats


def read_items(dataset: Dataset) -> tuple[Pictures, Things]:
    """Columns of all pictures and objects, without bytes and masks."""
    columns = ["image_id", "sha256", "width", "height", "video_id"]
    images = dataset.read("images", columns)
    image_ids: list[str] = images["image_id"].to_pylist()
    place = {name: row for row, name in enumerate(image_ids)}
    sizes = np.stack([images[side].to_numpy() for side in ("width", "height")], axis=1).astype(np.int64)
    phash, light = np.zeros(len(place), np.uint64), np.full((len(place), 2), np.nan)
    scores = dataset.read("image_scores", ["image_id", "phash", "brightness", "contrast"])
    rows = np.array([place[name] for name in scores["image_id"].to_pylist()], np.int64)
    phash[rows] = scores["phash"].to_numpy()
    light[rows] = np.stack([float_array(scores[name]) for name in ("brightness", "contrast")], axis=1)
    groups: dict[str, set[str]] = defaultdict(set)
    for row in dataset.read("source_groups", ["group_id", "members"]).to_pylist():
        for member in row["members"]:
            groups[member].add(row["group_id"])
    things = _things(dataset, place, sizes)
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
        [frozenset(groups.get(name, ())) for name in image_ids],
    ), things


def _things(dataset: Dataset, place: dict[str, int], sizes: Any) -> Things:
    objects = dataset.read("objects", ["object_id", "image_id", "kind", "box"])
    names: list[str] = objects["object_id"].to_pylist()
    images = np.array([place[name] for name in objects["image_id"].to_pylist()], np.int64)
    boxes = matrix(objects["box"]).reshape(-1, 4)
    scores = dataset.read("object_scores", ["object_id", "quality"])
    quality = dict(zip(scores["object_id"].to_pylist(), float_array(scores["quality"]), strict=True))
    embedded, vectors = read_vectors(dataset, "embeddings", "object_id")
    row = {name: number for number, name in enumerate(embedded)}
    return Things(
        names,
        images,
        objects["kind"].to_pylist(),
        (boxes / np.tile(sizes[images], 2)).astype(np.float32),
        np.array([quality.get(name, np.nan) for name in names], np.float64),
        np.array([row.get(name, -1) for name in names], np.int64),
        vectors,
    )


def read_evaluation(places: Sequence[str], embedder: ImageEmbedder | None = None) -> Evaluation | None:
    """The pictures of evaluation sets, looked at as those of the dataset are; None if no set is given.

    Args:
        places: folders of pictures, or refloom datasets; local or fsspec.
        embedder: the dataset's; None compares no embeddings.

    Ids are `<folder>/<path>`, or the dataset's own; pictures that do not decode count by their bytes alone.

    Raises:
        Refused: a place without any picture.
    """
    if not places:
        return None
    rows: list[Row] = []
    vectors: list[Any] = []
    for where in places:
        before = len(rows)
        for name, sha, data in _pictures(where):
            rows.append({"id": name, "sha256": sha, "size": (1, 1), "phash": 0, "light": (np.nan, np.nan)})
            try:
                picture = Decoded(pictures.decode(data))
            except Rejected:
                continue
            height, width = picture.size
            scores = image_scores(picture)
            rows[-1] |= {
                "size": (width, height),
                "phash": scores.phash,
                "light": (scores.brightness, scores.contrast),
                "vector": len(vectors),
            }
            if embedder is not None:
                crop = cut_out(picture.rgb, None, (0, 0, width, height), embedder.input_px)
                vectors.append(embedder.embed(crop[None])[0])
        if len(rows) == before:
            raise Refused(f"there is no picture at {where}: give a folder of pictures or a refloom dataset")
    return Evaluation(
        Pictures(
            [row["id"] for row in rows],
            [row["sha256"] for row in rows],
            np.array([row["size"] for row in rows], np.int64),
            np.array([row["phash"] for row in rows], np.uint64),
            np.array([row["light"] for row in rows], np.float64),
            np.full(len(rows), np.nan),
            [None] * len(rows),
            [frozenset()] * len(rows),
        ),
        [row["id"] for row in rows if "vector" in row] if embedder else [],
        np.stack(vectors) if vectors else np.zeros((0, embedder.dim if embedder else 0), np.float32),
    )


def fingerprint(evaluation: Evaluation | None) -> str:
    """Of the evaluation sets' bytes: what `duplicates` depends on besides the dataset and its settings."""
    return of_json([] if evaluation is None else sorted(evaluation.pictures.sha256))


def _pictures(where: str) -> Iterator[tuple[str, str, bytes]]:
    """Id, sha256 and bytes of every picture of a place."""
    folder = Folder(where)
    if folder.exists("dataset.json"):
        dataset = Dataset(where)
        for batch in dataset.batches("images", ["image_id", "sha256", "link", "image"]):
            for row in batch.to_pylist():
                try:
                    yield row["image_id"], row["sha256"], dataset.checked_picture(row)
                except Failed as problem:
                    raise Refused(f"{where}: {row['image_id']} cannot be read ({problem}): mend its link") from problem
        return
    names, _ = files.picture_names(folder)
    for name in names:
        data = folder.read(name)
        yield ids.image_id(files.stem(where), *name.split("/")), hashlib.sha256(data).hexdigest(), data
