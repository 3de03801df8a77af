"""Faces by YuNet: small, turned and tilted ones are found, other things are not, and identity goes on working."""

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from skimage import data

from benchmarks.judged.faces import measured, truth
from refloom.inference.models import registry
from refloom.inference.models.entry import Weights
from refloom.inference.models.faces import Face
from refloom.schemas import boxes, pictures
from refloom.schemas.errors import Refused

if TYPE_CHECKING:
    from refloom.inference.models.yunetfaces import YuNetFaces

ENTRY = registry.by_name("face", "yunet")
LEAST, SAME = ENTRY.thresholds["min_det_score"], ENTRY.thresholds["same_identity"]


@pytest.fixture(scope="module")
def model() -> "YuNetFaces":
    return ENTRY.load()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()


@pytest.fixture(scope="module")
def face(model: "YuNetFaces", astronaut: np.ndarray) -> Face:
    (found,) = model.find(astronaut)
    return found


def same(a: list[Face], b: list[Face]) -> bool:
    parts = ("box", "landmarks", "embedding")
    return [[getattr(one, name).tobytes() for name in parts] + [one.det_score] for one in a] == [
        [getattr(one, name).tobytes() for name in parts] + [one.det_score] for one in b
    ]


def test_the_weights_are_those_that_their_readme_names():
    file = ENTRY.files()[0]
    told = (file.parent / "README.md").read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in told
    assert "Apache License" in (file.parent / "yunet_n.LICENSE.txt").read_text()


def test_a_portrait_gives_one_face_with_five_points_in_order(face: Face):
    left, right, nose, left_mouth, right_mouth = face.landmarks
    assert boxes.iou(face.box[None], np.array([[176, 62, 273, 178]], np.float32))[0, 0] > 0.7
    assert left == pytest.approx((204, 102), abs=6)
    assert right == pytest.approx((247, 105), abs=6)
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert left_mouth[0] < right_mouth[0]
    assert face.pose is None
    assert LEAST <= face.det_score <= 1
    assert face.embedding.shape == (128,)
    assert face.embedding.dtype == face.box.dtype == face.landmarks.dtype == np.float32
    assert float(np.linalg.norm(face.embedding)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_head_in_any_direction_is_found_and_is_the_same_person(
    model: "YuNetFaces", astronaut: np.ndarray, face: Face, turns: int
):
    faces = model.find(np.rot90(astronaut, turns))
    assert len(faces) == 1
    assert float(faces[0].embedding @ face.embedding) > SAME


def test_a_small_face_is_found(model: "YuNetFaces", astronaut: np.ndarray):
    small = cv2.resize(astronaut, (140, 140), interpolation=cv2.INTER_AREA)  # 12 px between the eyes
    street = np.full((480, 1280, 3), 90, np.uint8)
    street[200:340, 900:1040] = small
    (found,) = model.find(street, min_side_px=20)
    assert 20 <= found.box[2] - found.box[0] <= 32
    assert found.landmarks[0] == pytest.approx((900 + 204 * 140 / 512, 200 + 102 * 140 / 512), abs=3)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_there_is_no_face_on_a_cup_a_cat_or_a_rocket(model: "YuNetFaces", name: str):
    assert model.find(getattr(data, name)()) == []


def test_the_same_pixels_give_the_same_bytes(model: "YuNetFaces", astronaut: np.ndarray, face: Face):
    assert same(model.find(astronaut.copy()), [face])
    assert same(ENTRY.load("cuda", "bf16").find(astronaut), [face])  # which change nothing
    wide = np.concatenate([astronaut, astronaut], axis=1)
    assert same(model.find(wide[:, :512]), [face])


def test_left_is_left_as_the_viewer_sees_it(model: "YuNetFaces", astronaut: np.ndarray, face: Face):
    (mirrored,) = model.find(astronaut[:, ::-1])
    assert 512 - mirrored.landmarks[[1, 0, 2, 4, 3], 0] == pytest.approx(face.landmarks[:, 0], abs=8)
    assert float(face.embedding @ mirrored.embedding) > 0.95


@pytest.mark.parametrize("scale", [0.5, 6.0])
def test_boxes_and_points_are_in_pixels_of_the_picture(
    model: "YuNetFaces", astronaut: np.ndarray, face: Face, scale: float
):
    side = round(512 * scale)
    (scaled,) = model.find(cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA))
    assert boxes.iou(face.box[None] * scale, scaled.box[None])[0, 0] > 0.7
    assert scaled.landmarks == pytest.approx(face.landmarks * scale, abs=6 * scale)
    assert float(face.embedding @ scaled.embedding) > SAME


def test_a_face_cut_by_the_edge_keeps_its_box_in_the_picture(model: "YuNetFaces", astronaut: np.ndarray):
    (found,) = model.find(astronaut[85:300, 205:330])
    assert (found.box[:2] == 0).all()
    assert (found.box[2:] <= (125, 215)).all()


def test_faces_come_by_descending_score_and_bounds_drop_the_rest(model: "YuNetFaces", astronaut: np.ndarray):
    part = astronaut[40:220, 130:310]
    both = np.full((180, 300, 3), 127, np.uint8)
    both[:, :180] = part
    both[45:135, 195:285] = cv2.resize(part, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    faces = model.find(both)
    assert len(faces) == 2
    assert faces[0].det_score >= faces[1].det_score
    assert same(model.find(both, max_faces=1), faces[:1])
    assert model.find(both, max_faces=0) == model.find(both, min_det_score=1.01) == []
    large = [face for face in faces if (face.box[2:] - face.box[:2]).min() >= 60]
    assert len(large) == 1
    assert same(model.find(both, min_side_px=60), large)


SIZES = [(1, 1), (1, 400), (400, 1), (3, 6000), (6000, 3), (17, 300), (1280, 1), (2000, 3000)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_no_size_and_no_content_crashes_it(model: "YuNetFaces", size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    views = (noise[:, ::-1], noise[::-1]) if noise.nbytes < 1 << 18 else ()
    for pixels in (noise, np.zeros_like(noise), *views):
        for face in model.find(pixels, min_det_score=0, max_faces=2):
            assert np.isfinite(face.embedding).all()
            assert (face.box[2:] <= size[::-1]).all()


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_pixels_are_refused(model: "YuNetFaces", pixels: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        model.find(pixels)


def test_loading_prints_nothing(capfd: pytest.CaptureFixture[str]):
    ENTRY.load()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"not a graph", b""])
def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/yunet_n.onnx").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Refused, match=r"weights of yunet are damaged: yunet_n\.onnx.*pip install"):
        replace(ENTRY, weights=(Weights("damaged", "yunet_n.onnx"), *ENTRY.weights[1:])).load()


# -- real photographs ------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_labelled_faces_are_found_and_nothing_else(model: "YuNetFaces", shared: Path):
    """Measured: 33 of 34 frontal and turned, 46 of 50 in all, no false face."""
    found = measured(model, shared, truth())
    assert found.recall("frontal", "turned") >= 0.9
    assert found.recall("frontal", "turned", "tilted", "covered") >= 0.85
    assert found.precision() >= 0.97


@pytest.mark.shared
def test_portraits_are_found_and_told_apart(model: "YuNetFaces", shared: Path):
    """Measured: 32 of 32; all 31 same pairs and 463 of 465 others are right, as with dlib's own detector."""
    groups = [group for group in json.loads((shared / "groups.json").read_text()) if group["kind"] == "person"]
    found = []
    for file, person in [(file, group["group_id"]) for group in groups for file in group["files"]]:
        (face,) = model.find(pictures.decode((shared / file).read_bytes()), max_faces=1)
        found.append((person, face.embedding))
    pairs = [(a[0] == b[0], float(a[1] @ b[1])) for a, b in itertools.combinations(found, 2)]
    assert np.mean([same_person == (cosine >= SAME) for same_person, cosine in pairs]) >= 0.985
    assert np.mean([cosine >= SAME for same_person, cosine in pairs if same_person]) >= 0.95


@pytest.mark.shared
def test_no_face_is_seen_on_toys_dogs_and_cats(model: "YuNetFaces", shared: Path):
    files = sorted((shared / "subjects").rglob("*.jpg"))
    assert len(files) > 40
    assert [file.name for file in files if model.find(pictures.decode(file.read_bytes()), min_side_px=20)] == []
