"""Faces by dlib: what is found and what is not, where it is, and that nothing crashes it."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from skimage import data

from refloom.inference.models import registry
from refloom.inference.models.entry import Weights
from refloom.inference.models.faces import Face
from refloom.schemas import boxes, pictures
from refloom.schemas.errors import Refused

if TYPE_CHECKING:
    from refloom.inference.models.dlibfaces import DlibFaces

ENTRY = registry.by_name("face", "dlib")


@pytest.fixture(scope="module")
def model() -> "DlibFaces":
    return ENTRY.load()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return data.astronaut()


@pytest.fixture(scope="module")
def face(model: "DlibFaces", astronaut: np.ndarray) -> Face:
    """Hers."""
    (found,) = model.find(astronaut)
    return found


def assert_same(a: list[Face], b: list[Face]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.det_score == other.det_score
        for name in ("box", "landmarks", "embedding"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_a_portrait_gives_one_face_with_landmarks_in_order(face: Face):
    left, right, nose = face.landmarks[:3]
    x0, y0, x1, y1 = face.box
    assert 170 < x0 < 190
    assert 70 < y0 < 90
    assert 80 < x1 - x0 < 100
    assert left[0] < nose[0] < right[0]
    assert max(left[1], right[1]) < nose[1]
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in (left, right, nose))
    assert left == pytest.approx((204, 102), abs=4)
    assert right == pytest.approx((247, 105), abs=4)
    assert np.isnan(face.landmarks[3:]).all()
    assert face.pose is None
    assert face.det_score >= ENTRY.thresholds["min_det_score"]


def test_the_embedding_is_a_unit_vector(face: Face):
    assert face.embedding.shape == (128,)
    assert face.embedding.dtype == face.box.dtype == face.landmarks.dtype == np.float32
    assert float(np.linalg.norm(face.embedding)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_there_is_no_face_on_a_cup_or_a_cat(model: "DlibFaces", name: str):
    assert model.find(getattr(data, name)()) == []


def test_the_same_pixels_give_the_same_bytes(model: "DlibFaces", astronaut: np.ndarray, face: Face):
    assert_same(model.find(astronaut.copy()), [face])
    assert_same(ENTRY.load("cuda", "bf16").find(astronaut), [face])  # which change nothing


def test_left_is_left_as_the_viewer_sees_it(model: "DlibFaces", astronaut: np.ndarray, face: Face):
    (mirrored,) = model.find(astronaut[:, ::-1])
    swapped = mirrored.landmarks[[1, 0, 2]]
    assert 512 - swapped[:, 0] == pytest.approx(face.landmarks[:3, 0], abs=4)
    assert float(face.embedding @ mirrored.embedding) > 0.97


@pytest.mark.parametrize("scale", [0.5, 6.0])
def test_boxes_and_landmarks_are_in_pixels_of_the_picture(
    model: "DlibFaces", astronaut: np.ndarray, face: Face, scale: float
):
    side = round(512 * scale)
    (scaled,) = model.find(cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA))
    assert boxes.iou(face.box[None] * scale, scaled.box[None])[0, 0] > 0.7
    assert scaled.landmarks[:3] == pytest.approx(face.landmarks[:3] * scale, abs=4 * scale)
    assert float(face.embedding @ scaled.embedding) > ENTRY.thresholds["same_identity"]


def test_a_face_cut_by_the_edge_keeps_its_box_in_the_picture(model: "DlibFaces", astronaut: np.ndarray):
    cut = astronaut[95:300, 150:300]
    faces = model.find(cut, min_det_score=-0.5)
    assert faces
    assert faces[0].box[1] == 0
    for face in faces:
        assert (face.box[:2] >= 0).all()
        assert (face.box[2:] <= (150, 205)).all()
        assert (face.box[2:] > face.box[:2]).all()


def test_faces_come_by_descending_score_and_bounds_drop_the_rest(model: "DlibFaces", astronaut: np.ndarray):
    part = astronaut[40:220, 130:310]
    small = cv2.resize(part, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    both = np.full((180, 300, 3), 127, np.uint8)
    both[:, :180], both[45:135, 195:285] = part, small
    faces = model.find(both, min_det_score=-0.3)
    assert len(faces) >= 2
    assert [face.det_score for face in faces] == sorted((face.det_score for face in faces), reverse=True)
    assert_same(model.find(both, min_det_score=-0.3, max_faces=1), faces[:1])
    assert model.find(both, max_faces=0) == []
    assert model.find(both, min_det_score=99) == []
    sides = [float((face.box[2:] - face.box[:2]).min()) for face in faces]
    large = [face for face, side in zip(faces, sides, strict=True) if side >= 60]
    assert 0 < len(large) < len(faces)
    assert_same(model.find(both, min_det_score=-0.3, min_side_px=60), large)


SIZES = [
    (1, 1),
    (1, 400),
    (400, 1),
    (3, 6000),
    (6000, 3),
    (2, 2),
    (17, 300),
    (79, 80),
    (1280, 1),
    (40, 2000),
    (2000, 3000),
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_no_size_and_no_content_crashes_it(model: "DlibFaces", size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    views = (noise[:, ::-1], noise[::-1]) if noise.nbytes < 1 << 18 else ()  # strides mean the same in a large one
    for pixels in (noise, np.zeros_like(noise), *views):
        for face in model.find(pixels, min_det_score=-1.5, max_faces=2):
            assert np.isfinite(face.embedding).all()
            assert (face.box[2:] <= size[::-1]).all()


def test_a_grey_picture_and_a_view_are_taken(model: "DlibFaces", astronaut: np.ndarray, face: Face):
    grey = np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    assert len(model.find(grey)) == 1
    wide = np.concatenate([astronaut, astronaut], axis=1)
    assert_same(model.find(wide[:, :512]), [face])


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_pixels_are_refused(model: "DlibFaces", pixels: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        model.find(pixels)


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "damaged").mkdir()
    for weights in ENTRY.weights:
        (tmp_path / "damaged" / Path(weights.path).name).write_bytes(b"not weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = tuple(Weights("damaged", Path(weights.path).name) for weights in ENTRY.weights)
    with pytest.raises(Refused, match=r"damaged.*pip install dlib-bin"):
        replace(ENTRY, weights=files).load()


@pytest.mark.shared
def test_portraits_are_found_and_told_apart(model: "DlibFaces", shared: Path):
    """Measured: 32 of 32 portraits found; at the threshold all 31 same pairs and 463 of 465 others are right."""
    groups = [group for group in json.loads((shared / "groups.json").read_text()) if group["kind"] == "person"]
    found = {}
    for file, person in [(file, group["group_id"]) for group in groups for file in group["files"]]:
        faces = model.find(pictures.decode((shared / file).read_bytes()), max_faces=1)
        if faces:
            found[file] = (person, faces[0].embedding)
    assert len(found) == sum(len(group["files"]) for group in groups) == 32
    pairs = [(a[0] == b[0], float(a[1] @ b[1])) for a, b in itertools.combinations(found.values(), 2)]
    threshold = ENTRY.thresholds["same_identity"]
    right = [same == (cosine >= threshold) for same, cosine in pairs]
    assert np.mean(right) >= 0.985
    assert np.mean([cosine >= threshold for same, cosine in pairs if same]) >= 0.95


@pytest.mark.shared
def test_no_face_is_seen_where_there_is_none(model: "DlibFaces", shared: Path):
    files = sorted((shared / "subjects").rglob("0[0-1].jpg")) + sorted((shared / "subjects" / "msbench").rglob("*.jpg"))
    assert len(files) > 15
    assert [file.name for file in files if model.find(pictures.decode(file.read_bytes()))] == []
