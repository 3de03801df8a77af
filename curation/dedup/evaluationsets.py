"""Evaluation sets: pictures that must not be trained on, looked at as those of the dataset are."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.measure import image_scores
from refloom.curation.dedup.columns import Pictures
from refloom.curation.neighbours.pairs import Floats
from refloom.inference.models.crops import cut_middle
from refloom.inference.models.embedders import ImageEmbedder
from refloom.ingest import files
from refloom.schemas import ids, pictures, roots
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.storage import Folder

Row = dict[str, Any]


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
                vectors.append(embedder.embed(cut_middle(picture.rgb, embedder.input_px)[None])[0])
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
                    moved = roots.moved(dataset)
                    remedy = moved[0] if moved else "bring the linked file back"
                    raise Refused(f"{where}: {row['image_id']} cannot be read ({problem}): {remedy}") from problem
        return
    names, _ = files.picture_names(folder)
    for name in names:
        data = folder.read(name)
        yield ids.image_id(files.stem(where), *name.split("/")), hashlib.sha256(data).hexdigest(), data
