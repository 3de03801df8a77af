"""What a classifier makes of objects: alone as in its box, certain or not; what it cannot see costs nobody else."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from curating import LOOSE, coco, curated
from drawing import gradient

from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.recognition import Recognition, entropy
from refloom.curation.annotate.scene import Scene
from refloom.curation.annotate.settings import Models
from refloom.curation.objects import Objects
from refloom.inference.models import registry
from refloom.inference.models.entry import Entry, Package
from refloom.ingest.engine.watch import Watch
from refloom.schemas import masks
from refloom.schemas.components import COMPONENTS

WIDTH, HEIGHT = 120, 90
FULL, HALF, BARE = (10, 10, 50, 50), (60, 10, 100, 50), (10, 55, 50, 85)


class Colours:
    """An image classifier: its vector is the mean colour of a crop, its classes are the three colours."""

    dim, input_px, batch_size = 3, 32, 2

    def __init__(self) -> None:
        self.seen: list[int] = []

    def embed(self, batch: np.ndarray) -> np.ndarray:
        means = batch.reshape(len(batch), -1, 3).mean(axis=1)
        if (means.sum(axis=1) < 3).any():
            raise RuntimeError("black crops are more than this model can take")
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

    def describe(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.seen.append(len(batch))
        vectors = self.embed(batch)
        return vectors, vectors / vectors.sum(axis=1, keepdims=True)


def scene(rgb: np.ndarray | None = None) -> Scene:
    """A red object that fills its box, one beside green that fills half of its box, one without a mask, and a whole."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8) if rgb is None else rgb
    if rgb is None:
        pixels[:, :, 0] = 200
        pixels[:, 80:, :] = (0, 200, 0)
    shapes = []
    for x0, y0, x1, y1 in (FULL, (60, 10, 80, 50)):
        shape = np.zeros((HEIGHT, WIDTH), np.uint8)
        shape[y0:y1, x0:x1] = 1
        shapes.append(masks.encode(shape))
    objects = Objects(
        ids=["a#0", "a#1", "a#2", "a#3"],
        kinds=["object", "object", "object", "whole"],
        categories=[None] * 4,
        phrases=[None] * 4,
        boxes=np.array([FULL, HALF, BARE, (0, 0, WIDTH, HEIGHT)], np.float32),
        areas=np.array([1600.0, 800.0, np.nan, np.nan]),
        confidence=np.full(4, np.nan),
        masks=[*shapes, None, None],
    )
    return Scene(Decoded(pixels), objects, LOOSE.filter)


def asked(model: Colours, *scenes: Scene) -> tuple[Recognition, list[dict[str, np.ndarray]]]:
    """Everything of some scenes asked of a model."""
    with Watch("unit") as watch:
        recognition = Recognition(model, watch)
        components = [{name: np.full(4, np.nan) for name in COMPONENTS} for _ in scenes]
        for one, values in zip(scenes, components, strict=True):
            recognition.add(recognition.show(one, values))
        recognition.finish()
    return recognition, components


def test_an_object_that_fills_its_box_looks_alone_as_in_its_box_and_another_does_not():
    _, (found,) = asked(Colours(), scene())
    cosines = found["alone_cosine"]
    assert cosines[0] == pytest.approx(1, abs=1e-6)
    assert cosines[1] < 0.9
    assert np.isnan(cosines[2:]).all(), "an object without a mask is its box, and whole pictures are not asked about"
    assert np.isnan(found["class_entropy"]).tolist() == [False, False, False, True]


def test_entropy_is_zero_where_one_class_is_certain_and_highest_where_all_are_alike():
    odds = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4], np.float32)
    assert entropy(odds) == pytest.approx([0, np.log(2), np.log(4)])


def test_objects_of_many_pictures_are_asked_about_together_and_found_as_alone():
    model = Colours()
    _, together = asked(model, *(scene() for _ in range(20)))
    _, (alone,) = asked(Colours(), scene())
    assert model.seen == [32, 28]
    for one in together:
        for name in ("alone_cosine", "class_entropy"):
            assert np.array_equal(one[name], alone[name], equal_nan=True)


def test_an_object_that_the_model_cannot_take_is_lost_alone():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    black[:, 60:, 0] = 200
    recognition, (found, other) = asked(Colours(), scene(black), scene())
    assert set(recognition.lost) == {"a#0"}  # the other black one is no square, so white is around it
    assert not np.isnan(other["class_entropy"][:3]).any()
    assert not np.isnan(found["class_entropy"][1])


@pytest.mark.parametrize("classifier", ["none", "auto"])
def test_quality_has_a_value_with_and_without_a_classifier(tmp_path, classifier):
    models = Models(face="none", image_embedding="none", classifier=classifier)
    config = replace(LOOSE, models=models)
    dataset = curated(tmp_path, coco(tmp_path, [{"cat": (10, 10, 60, 60), "dog": (30, 30, 90, 75)}]), config=config)
    rows = dataset.read("object_scores").to_pylist()
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["quality"] < 1
        assert (row["alone_cosine"] is None) == (row["class_entropy"] is None) == (classifier == "none")
    (manifest,) = dataset.manifests("quality").values()
    assert set(manifest.models) == ({"classifier"} if registry.resolve("classifier", classifier) else set())


def load(entry: Entry, device: str, precision: str) -> Colours:
    """The loader of the classifier below."""
    return Colours()


def test_an_object_that_is_lost_has_a_row_in_the_ledger_and_all_others_have_scores(tmp_path, monkeypatch):
    package = Package("json", ("json",))
    classifier = Entry(
        name="colours",
        role="classifier",
        license="none",
        size_bytes=0,
        source="here",
        get="pip install nothing",
        packages=(package,),
        weights=(),
        loader=f"{__name__}:load",
    )
    monkeypatch.setitem(registry.ENTRIES, "classifier", (classifier,))
    source = coco(tmp_path, [{"cat": (10, 10, 60, 60), "dog": (62, 30, 92, 60)}])
    (picture,) = (tmp_path / "val2017").glob("*.jpg")
    pixels = gradient(96, 80, 1)
    pixels[:, :61] = 0
    picture.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    config = replace(LOOSE, models=Models(face="none", image_embedding="none", classifier="colours"))
    dataset = curated(tmp_path, source, config=config)
    (row,) = dataset.read("object_scores").to_pylist()
    (lost,) = dataset.ledger("quality").to_pylist()
    assert {row["object_id"], lost["item_id"]} == set(dataset.read("objects")["object_id"].to_pylist())
    assert row["class_entropy"] is not None
    assert (lost["verdict"], lost["kind"]) == ("failed", "object")
    counts = dataset.counts("quality")["object"]
    assert (counts.input, counts.kept, sum(counts.failed.values())) == (2, 1, 1)
    verdicts = {entry["object_id"]: entry["reason"] for entry in dataset.read("selection").to_pylist()}
    assert verdicts[lost["item_id"]] == lost["reason"]
