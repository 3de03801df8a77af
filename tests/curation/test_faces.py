"""The stage face: what becomes of pictures without a face, and that a missed person is told apart from none."""

import json

import numpy as np
import pytest
from helpers import HERE, ingest, write_coco
from skimage import data

from refloom.curation.annotate.annotators import largest_person
from refloom.curation.config import Curation, Models
from refloom.curation.job import curate
from refloom.curation.objects import Objects
from refloom.ingest import losses
from refloom.ingest.sources.coco import Coco
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset

NO_OTHERS = Models(segmenter="none", image_embedding="none", text_embedding="none", captioner="none")


def people(*rows: tuple[str, str | None, float]) -> Objects:
    """Objects of an id, a class and the longer side of the box."""
    many = len(rows)
    nothing = np.full(many, np.nan)
    corners = np.array([[5, 5, 5 + side / 2, 5 + side] for _, _, side in rows], float).reshape(-1, 4)
    ids, categories = [name for name, *_ in rows], [category for _, category, _ in rows]
    return Objects(ids, ["object"] * many, categories, [None] * many, corners, nothing, nothing, [None] * many)


def test_the_largest_person_counts_and_only_if_a_face_would_be_large_enough():
    assert largest_person(people(("a", "person", 170), ("b", "Person", 300), ("c", "dog", 500)), 160) == "b"
    assert largest_person(people(("a", "person", 160)), 160) == "a"
    assert largest_person(people(("a", "person", 159), ("b", None, 300)), 160) is None
    assert largest_person(people(), 160) is None


@pytest.fixture(scope="module")
def faced(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five photographs: a person whose face is not seen, three animals, and the astronaut."""
    root = tmp_path_factory.mktemp("faced")
    images, instances, _ = write_coco(root / "coco", 5, objects=1, size=(1000, 900))
    document = json.loads(instances.read_text())
    document["categories"][1]["name"] = "person"
    document["annotations"][0]["category_id"] = 2
    instances.write_text(json.dumps(document))
    canvas = np.full((900, 1000, 3), 90, np.uint8)
    canvas[:512, :512] = data.astronaut()
    (images / f"{5:012d}.jpg").write_bytes(pictures.encode_jpeg(canvas))
    dataset = ingest(Coco(images=str(images), instances=str(instances)), root / "data")
    curate(dataset.url, Curation(models=NO_OTHERS), HERE, until="face")
    return Dataset(dataset.url)


def test_a_missed_person_is_told_apart_from_nothing_to_find(faced: Dataset):
    counts = faced.counts("face")["image"]
    assert (counts.input, counts.kept, counts.failed.total()) == (5, 1, 0)
    assert counts.rejected == {"no_face": 3, "no_face_of_person": 1}
    rows = [row for row in faced.ledger("face").to_pylist() if row["reason"] == "no_face_of_person"]
    assert [(row["item_id"], row["detail"]) for row in rows] == [("coco/000000000001", "coco/000000000001#10")]


def test_the_default_model_gives_the_face_five_points_and_its_crop(faced: Dataset):
    (face,) = faced.read("faces").to_pylist()
    assert face["image_id"] == "coco/000000000005"
    assert np.isfinite(np.array(face["landmarks"])).all()
    assert face["landmarks"][0] == pytest.approx((204, 102), abs=6)
    assert len(face["embedding"]) == 128
    assert face["crop"]["bytes"]
    assert {manifest.models["face"].partition("@")[0] for manifest in faced.manifests("face").values()} == {"yunet"}


def test_the_console_measures_missed_people_where_there_was_something_to_find(faced: Dataset):
    counts = faced.counts("face")["image"]
    assert losses.lines(faced, "face", {"image": counts}, None) == []  # one of two was found
    counts.kept, counts.input = 0, 4
    (line,) = losses.lines(faced, "face", {"image": counts}, None)
    assert line.startswith(
        "100 % of the items `image` where there was something to find (1) were rejected: no_face_of_person, "
        "first coco/000000000001: coco/000000000001#10. People turned away"
    )
    counts.rejected.update(no_face=7)
    counts.input += 7
    lines = losses.lines(faced, "face", {"image": counts}, None)
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["no_face", "no_face_of_person"]
