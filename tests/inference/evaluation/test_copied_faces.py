"""Copying of faces and of images through the measurer: by the packaged models, on a photograph of a face."""

import cv2
import evaluating
import numpy as np
import pytest
from loading import appearance, picture, sample_row, subject
from PIL import Image
from skimage import data

from refloom.inference.evaluation import benchmarks, copying, encoders, metrics
from refloom.inference.evaluation.cases import Case, FilePicture, Subject
from refloom.inference.evaluation.encoders import Encoders
from refloom.inference.evaluation.instances import Finder
from refloom.inference.evaluation.scoring import Measurer

FACES = ("copy_face", "face_truth", "face_reference", "face_inst")
IMAGES = ("copy_image", "image_truth", "image_reference")
WHOLE = Finder("whole", "whole", "none")


@pytest.fixture(scope="module")
def measurer(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFLOOM_WEIGHTS", str(tmp_path_factory.mktemp("none")))
        chosen = encoders.choose({"clip": "auto", "dino": "auto", "face": "auto"})
        assert chosen["image"].entry.name == "efficientnet-lite0"
        return Measurer(Encoders(chosen, "cpu"), [metrics.BY_NAME[name] for name in (*FACES, *IMAGES)], WHOLE)


@pytest.fixture(scope="module")
def face():
    return np.ascontiguousarray(data.astronaut()[:260, 120:340])


@pytest.fixture(scope="module")
def blurred(face):
    """Another photograph of the same person, as far as an encoder knows."""
    return cv2.GaussianBlur(face, (0, 0), 2.5)


@pytest.fixture
def case(face, blurred, tmp_path):
    """One reference; the blurred photograph is the truth."""
    for name, pixels in (("reference", face), ("truth", blurred), ("blank", np.full_like(face, 200))):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    reference, truth = (FilePicture(str(tmp_path / f"{name}.png")) for name in ("reference", "truth"))
    return Case("g/0", "g", "a person", (Subject("person", (reference,), (reference,)),), target=truth)


def test_a_pasted_reference_is_1_and_the_truth_minus_1(measurer, case, face, blurred):
    pasted, true = measurer.scores(case, face), measurer.scores(case, blurred)
    for kind in ("face", "image"):
        assert pasted[f"copy_{kind}"] == (1, 1)
        assert true[f"copy_{kind}"] == (-1, 1)
        assert pasted[f"{kind}_reference"] == pytest.approx((1, 1), abs=1e-5)
        assert true[f"{kind}_truth"] == pytest.approx((1, 1), abs=1e-5)
        assert pasted[f"{kind}_truth"][0] == pytest.approx(true[f"{kind}_reference"][0], abs=1e-5)
        assert pasted[f"{kind}_truth"][0] < 0.99
    turned = measurer.scores(case, np.ascontiguousarray(face[:, ::-1]))
    assert -1 < turned["copy_face"][0] < 1


def test_a_picture_without_a_face_has_no_copying_of_faces_but_misses_the_face(measurer, case, face):
    remarks = {}
    found = measurer.scores(case, np.full_like(face, 128), remarks)
    assert [found[name] for name in FACES[:3]] == [None] * 3
    assert remarks["copy_face"] == {copying.NOT_MADE: 1}
    assert found["face_inst"] == (0, 1)
    assert found["copy_image"] is not None


def test_a_truth_or_reference_without_a_face_is_null_and_said(measurer, case, face, tmp_path):
    blank = FilePicture(str(tmp_path / "blank.png"))
    (known,) = case.subjects
    remarks = {}
    lost = Case("g/1", "g", "a person", (known,), target=blank)
    assert measurer.scores(lost, face, remarks)["copy_face"] is None
    assert remarks["copy_face"] == {copying.NO_TRUTH: 1}
    unknown = Case("g/2", "g", "a person", (Subject("person", (blank,), (blank,)),), target=case.target)
    found = measurer.scores(unknown, face, remarks)
    assert (found["copy_face"], found["face_inst"]) == (None, None)
    assert remarks["copy_face"] == {copying.NO_REFERENCE: 1}


def test_of_two_faces_on_the_picture_left_out_only_a_known_box_says_which_is_meant(measurer, face, blurred, tmp_path):
    together = np.concatenate([blurred, face], axis=1)
    height, width = face.shape[:2]
    mask = np.zeros((height, 2 * width), np.uint8)
    mask[:, :width] = 1
    (found,) = measurer._encoders._models["face"].find(blurred)

    def read(name, face_box, box):
        known = {"face": face_box and {"box": face_box, "landmarks": None, "det_score": 0.9}, "box": box}
        listed = [picture("p/0", 2 * width, height, ["a person"]), picture("p/1", width, height)]
        seen = [appearance(0, mask, **known), appearance(1, np.ones((height, width), np.uint8))]
        row = sample_row("group/identity/0", "group", listed, [subject("identity/0", "person", seen)])
        return benchmarks.read("groups", evaluating.held_out(tmp_path / name, [(row, [together, face])])).cases[0]

    whole, left = [0, 0, 2 * width, height], [0, 0, width, height]
    remarks = {}
    assert measurer.scores(read("unknown", None, whole), face, remarks)["copy_face"] is None
    assert remarks["copy_face"] == {copying.NO_TRUTH: 1}
    assert measurer.scores(read("boxed", None, left), face)["copy_face"][0] == pytest.approx(1, abs=0.2)
    known = measurer.scores(read("known", found.box.tolist(), whole), face)
    assert known["copy_face"][0] == pytest.approx(1, abs=0.2)
    assert known["face_truth"][0] < known["face_reference"][0]


def test_of_several_faces_the_one_in_the_middle_of_a_cut_is_its_own(measurer, face, blurred):
    known = measurer._encoders
    (wanted,) = known.own_face(face, centred=False)
    row = np.concatenate([blurred, face, blurred], axis=1)
    (middle,) = known.own_face(row, centred=True)
    assert copying.angle(middle, wanted) < 0.1 < copying.angle(*known.own_face(blurred, centred=True), wanted)
    for several in (row, np.full_like(face, 128)):
        assert len(known.own_face(several, centred=False)) == 0
    assert len(known.own_face(np.full_like(face, 128), centred=True)) == 0
