"""Found instances by XVerseBench's rule: the best of three, a miss is 0, and without a detector there is no number."""

import dataclasses

import numpy as np
import pytest
from drawing import gradient
from PIL import Image
from tinymodels import GROUNDING, put_clip, put_dinov2, put_grounding, use

from refloom.inference.evaluation import encoders, instances, metrics, outcome
from refloom.inference.evaluation.cases import UNNAMED, Benchmark, Case, FilePicture, Subject
from refloom.inference.evaluation.copying import NO_REFERENCE
from refloom.inference.evaluation.copying import UNNAMED as NOT_LOOKED_FOR
from refloom.inference.evaluation.encoders import Chosen, Encoders
from refloom.inference.evaluation.instances import MISSED, best_instances
from refloom.inference.evaluation.scoring import Measurer

INSTANCES = [metrics.BY_NAME[name] for name in ("clip_i_inst", "dino_inst")]
NOTHING = np.zeros((0, 1), np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    put_clip(folder)
    put_dinov2(folder)
    put_grounding(folder)
    return folder


@pytest.fixture
def present(weights, monkeypatch):
    use(weights, monkeypatch)
    return encoders.choose({"clip": "auto", "dino": "auto", "face": "none"})


@pytest.fixture
def photos(tmp_path):
    for n in range(3):
        Image.fromarray(gradient(60 + 10 * n, 50, n)).save(tmp_path / f"{n}.png")
    return [FilePicture(str(tmp_path / f"{n}.png")) for n in range(3)]


def case_of(photos, *phrases, boxes=(None, None)):
    subjects = [
        Subject(phrase, (photo,), (photo,), box) for phrase, photo, box in zip(phrases, photos, boxes, strict=False)
    ]
    return Case("a/0", "a", "a cat and a dog", tuple(subjects))


def benchmark_of(*cases):
    return Benchmark("b", "B", cases, 1, "samples")


def test_the_best_instance_counts_and_a_miss_is_0():
    eye = np.eye(3, dtype=np.float32)
    found = [np.array([[0.6, 0.8, 0], [0.8, 0.6, 0]], np.float32), NOTHING]
    assert best_instances(found, [eye[:1], eye[1:2]]) == (pytest.approx((0.4, 2)), {MISSED: 1})
    both = np.array([[0.6, 0.8, 0]], np.float32)
    assert best_instances([both], [eye[:2]])[0] == pytest.approx((0.7, 1)), "the mean over the photographs of it"


def test_what_cannot_be_looked_for_or_compared_is_null_and_counted_never_0():
    eye = np.eye(3, dtype=np.float32)
    assert best_instances([None], [eye[:1]]) == (None, {NOT_LOOKED_FOR: 1})
    assert best_instances([eye[:1]], [NOTHING]) == (None, {NO_REFERENCE: 1})
    assert best_instances([None, eye[:1]], [eye[:1]] * 2) == ((1, 1), {NOT_LOOKED_FOR: 1})


def test_a_detector_comes_first_then_boxes_and_then_nothing(present, photos):
    boxed = case_of(photos, "cat", "dog", boxes=((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    bare, single = case_of(photos, "cat", "dog"), case_of(photos, "cat")
    none = encoders.choose({"clip": "auto", "dino": "auto", "face": "none"}, "none")["detector"]
    assert instances.finder(benchmark_of(boxed), present["detector"]).name == "found-by-grounding-dino-tiny-0.35"
    assert instances.finder(benchmark_of(boxed), none).by == "boxes"
    assert instances.finder(benchmark_of(boxed, bare), none).by == "nothing", "one rule for all cases"
    lost = instances.finder(benchmark_of(single), none)
    assert (lost.by, lost.why) == ("whole", "no detector was asked for; and not all subjects of b have a box")


def test_instances_are_what_the_detector_finds_of_each_phrase(present, photos):
    case, picture = case_of(photos, "red cup", "dog"), gradient(96, 80, 9)
    finder = instances.finder(benchmark_of(case), present["detector"])
    remarks = {}
    found = Measurer(Encoders(present, "cpu"), INSTANCES, finder).scores(case, picture, remarks)
    detector, dino = GROUNDING.load(), present["dino"].entry.load()

    def vector(pixels, box):
        return dino.embed(encoders.cut_out(pixels, None, box, dino.input_px)[None])[0]

    values = []
    for subject in case.subjects:
        boxes = [one.box for one in detector.detect(picture, subject.phrase)[:3]]
        assert len(boxes) > 1, "else this test could not fail"
        known = subject.photographs[0].pixels()
        whole = vector(known, (0, 0, known.shape[1], known.shape[0]))
        whole_pixels = [(*np.floor(box[:2]).astype(int), *np.ceil(box[2:]).astype(int)) for box in boxes]
        values.append(max(float(vector(picture, tuple(map(int, box))) @ whole) for box in whole_pixels))
    assert found["dino_inst"] == pytest.approx((np.mean(values), 2), abs=1e-6)
    assert found["clip_i_inst"][1] == 2
    assert remarks == {"clip_i_inst": {}, "dino_inst": {}}


def test_a_subject_that_is_not_found_is_0_and_not_the_whole_picture(weights, monkeypatch, photos):
    use(weights, monkeypatch)
    blind = dataclasses.replace(GROUNDING, thresholds={"min_score": 1.0})
    chosen = encoders.choose({"clip": "none", "dino": "auto", "face": "none"}) | {"detector": Chosen(blind)}
    case = case_of(photos, "cat", "dog")
    finder = instances.finder(benchmark_of(case), chosen["detector"])
    remarks = {}
    found = Measurer(Encoders(chosen, "cpu"), INSTANCES, finder).scores(case, photos[0].pixels(), remarks)
    assert found == {"dino_inst": (0, 2)}
    assert remarks == {"dino_inst": {MISSED: 2}}


def test_a_subject_without_a_name_is_not_looked_for(present, photos):
    case = case_of(photos, UNNAMED, " . ")
    finder = instances.finder(benchmark_of(case), present["detector"])
    remarks = {}
    found = Measurer(Encoders(present, "cpu"), INSTANCES[1:], finder).scores(case, gradient(64, 64, 9), remarks)
    assert (found, remarks) == ({"dino_inst": None}, {"dino_inst": {NOT_LOOKED_FOR: 2}})


def test_in_boxes_the_part_in_each_box_is_the_instance(present, photos):
    case = case_of(photos, "cat", "dog", boxes=((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    finder = instances.finder(benchmark_of(case), Chosen(None, why="none"))
    measurer = Measurer(Encoders(present, "cpu"), INSTANCES[1:], finder)
    left = photos[0].pixels()[:50, :60]
    picture = np.concatenate([left, gradient(60, 50, 9)], axis=1)
    other = np.concatenate([left, gradient(60, 50, 5)], axis=1)
    assert measurer.scores(case, picture) != measurer.scores(case, other)
    alone = case_of(photos, "cat", boxes=((0, 0, 0.5, 1),))
    assert measurer.scores(alone, picture)["dino_inst"] == pytest.approx((1, 1), abs=1e-5), "the photograph itself"


def test_without_a_detector_the_line_is_null_and_says_how_to_get_one(tmp_path, weights, monkeypatch, photos):
    use(tmp_path, monkeypatch)
    chosen = encoders.choose({"clip": "none", "dino": "none", "face": "none"})
    assert chosen["image"].entry is None, "none was asked for"
    use(weights, monkeypatch)
    (weights / GROUNDING.name).rename(tmp_path / "away")
    try:
        chosen = encoders.choose({"clip": "auto", "dino": "auto", "face": "none"})
        benchmark = benchmark_of(case_of(photos, "cat", "dog"))
        lines = {line.metric.name: line for line in outcome.summarise(benchmark, INSTANCES, [], chosen, "all")}
    finally:
        (tmp_path / "away").rename(weights / GROUNDING.name)
    assert lines["dino_inst"].value is None
    assert lines["dino_inst"].why == (
        "no detector is there: `refloom models get grounding-dino-base` fetches one; "
        "and not all subjects of b have a box"
    )


def test_the_protocol_says_what_found_the_subjects(present):
    metric, dino = metrics.BY_NAME["dino_inst"], present["dino"]
    ids = {encoders.protocol(metric, dino, "samples", "all", name) for name in ("boxes", "whole", "found-by-x-0.3")}
    assert len(ids) == 3
    assert "dino_inst/dinov2-base/white-square/boxes/max-of-3,none=0/mean-over-samples/refs=all" in ids
    whole = metrics.BY_NAME["dino"]
    assert "boxes" not in encoders.protocol(whole, dino, "samples", "all", "boxes")


def test_copying_of_images_takes_the_packaged_encoder_where_there_is_no_other(tmp_path, monkeypatch):
    use(tmp_path, monkeypatch)
    chosen = encoders.choose({"clip": "auto", "dino": "auto", "face": "none"})
    assert chosen["image"].entry.name == "efficientnet-lite0"
    assert chosen["detector"].entry is None
