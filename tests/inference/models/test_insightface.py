"""insightface through `FaceAnalysis` itself, on graphs that are made here and know where they must fire."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from onnxgraphs import ANGLES, FIVE, WINDOW_PX, save_detector, save_identity, save_points, scene
from skimage import data
from tinymodels import FACES as ENTRY
from tinymodels import GRAPHS as NAMES
from tinymodels import put_faces, use

from refloom.inference.models import registry
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Face
from refloom.schemas import boxes
from refloom.schemas.errors import Failed, Refused

if TYPE_CHECKING:  # the library takes seconds to import
    from refloom.inference.models.insightfaces import InsightFaces


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_faces(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def entry(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    use(graphs.parent, monkeypatch)
    return ENTRY


@pytest.fixture(scope="module")
def model(graphs: Path) -> "InsightFaces":
    with pytest.MonkeyPatch.context() as patch:
        use(graphs.parent, patch)
        return ENTRY.load()


def assert_same(a: list[Face], b: list[Face]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        assert one.det_score == other.det_score
        for name in ("box", "landmarks", "embedding", "pose"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


# geometry


@pytest.mark.parametrize(("width", "height", "scale"), [(640, 480, 1), (480, 640, 1), (320, 200, 0.5), (2560, 1600, 4)])
def test_a_face_lies_where_the_detector_fires(model: "InsightFaces", width: int, height: int, scale: float):
    left, top, side = (round(edge * scale) for edge in (100, 60, WINDOW_PX))
    (face,) = model.find(scene(width, height, (left, top, side)))
    middle = np.array([left + side / 2, top + side / 2])
    assert face.box == pytest.approx([left, top, left + side, top + side], abs=1e-2)
    assert face.landmarks == pytest.approx(middle + FIVE * scale, abs=1e-2)
    assert 0.9 < face.det_score <= 1


def test_the_points_come_in_our_order(model: "InsightFaces"):
    (face,) = model.find(scene(640, 480, (196, 164, 40)))
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_pitch_yaw_and_roll_come_from_the_points_in_space(model: "InsightFaces"):
    (face,) = model.find(scene(640, 480, (196, 164, 40)))
    assert face.pose == pytest.approx(ANGLES, abs=0.1)
    assert face.pose.dtype == np.float32


def test_red_is_red(model: "InsightFaces"):
    picture = scene(640, 480, (196, 164, 40))
    assert len(model.find(picture)) == 1
    assert model.find(np.ascontiguousarray(picture[..., ::-1])) == []


@pytest.mark.filterwarnings("ignore:.estimate. is deprecated")
def test_the_embedding_is_arcfaces_crop_of_the_whole_picture(model: "InsightFaces", graphs: Path):
    import onnxruntime
    from insightface.utils.face_align import norm_crop

    picture = scene(2000, 1500, (888, 538, 124))
    (face,) = model.find(picture)
    crop = norm_crop(picture, face.landmarks).astype(np.float32)
    blob = ((crop - 127.5) / 127.5).transpose(2, 0, 1)[None]
    (raw,) = onnxruntime.InferenceSession(graphs / NAMES[1]).run(None, {"input": blob})[0]
    assert face.embedding.shape == (512,)
    assert face.embedding.dtype == face.box.dtype == face.landmarks.dtype == np.float32
    assert float(np.linalg.norm(face.embedding)) == pytest.approx(1, abs=1e-6)
    assert float(face.embedding @ raw / np.linalg.norm(raw)) > 0.9999


def test_a_face_at_the_edge_keeps_its_box_in_the_picture(model: "InsightFaces"):
    (face,) = model.find(scene(640, 480, (0, 196, 40))[:, 8:], min_det_score=0.1, max_faces=1)
    assert face.box[0] == 0
    assert 28 < face.box[2] < 40
    assert np.isfinite(face.embedding).all()


# which faces


def test_faces_come_by_descending_score_and_bounds_drop_the_rest(
    model: "InsightFaces", monkeypatch: pytest.MonkeyPatch
):
    picture = scene(640, 480, (76, 76, 40), (397, 77, 38), (397, 301, 39))
    faces = model.find(picture)
    assert len(faces) == 3
    assert [face.det_score for face in faces] == sorted((face.det_score for face in faces), reverse=True)
    assert faces[0].box[:2].tolist() == [76, 76]
    embedded = []
    get = model._identity.get_feat
    monkeypatch.setattr(model._identity, "get_feat", lambda crops: embedded.extend(crops) or get(crops))
    assert_same(model.find(picture, max_faces=2), faces[:2])
    assert len(embedded) == 2
    assert_same(model.find(picture, min_det_score=0.75), faces[:2])
    assert len(embedded) == 4
    assert model.find(picture, max_faces=0) == []
    assert model.find(picture, min_det_score=1.01) == []
    assert model.find(picture, min_side_px=41) == []
    assert len(embedded) == 4
    assert len(model.find(picture, min_side_px=39)) == 3


def test_a_face_that_fills_the_picture_is_found_at_the_small_size(model: "InsightFaces"):
    picture = scene(640, 640, (215, 220, 200))
    (face,) = [face for face in model.find(picture) if face.box[2] - face.box[0] > 150]
    assert boxes.iou(face.box[None], np.array([[215, 220, 415, 420]], np.float32))[0, 0] > 0.8


def test_a_face_that_is_found_nowhere_is_looked_for_within_a_border(
    model: "InsightFaces", monkeypatch: pytest.MonkeyPatch
):
    picture, detect, asked = scene(640, 640, (120, 120, 400)), model._detect, []

    def shy(pixels: np.ndarray, least: float) -> list:
        asked.append((pixels.shape[0], least))
        return detect(pixels, least) if pixels.shape[0] > 640 else []

    monkeypatch.setattr(model, "_detect", shy)
    (face, *_) = sorted(model.find(picture), key=lambda face: -float(face.box[2] - face.box[0]))
    assert asked == [(640, 0.5), (1280, ENTRY.options["border_det_score"])]
    assert boxes.iou(face.box[None], np.array([[120, 120, 520, 520]], np.float32))[0, 0] > 0.7
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut"])
def test_there_is_no_red_square_in_a_photograph(model: "InsightFaces", name: str):
    assert model.find(getattr(data, name)()) == []


def test_the_same_pixels_give_the_same_bytes(model: "InsightFaces", entry: Entry):
    picture = scene(640, 480, (76, 76, 40), (397, 301, 39))
    found = model.find(picture)
    assert len(found) == 2
    assert_same(found, model.find(picture.copy()))
    assert_same(found, entry.load("cpu", "bf16").find(picture))
    wide = np.concatenate([picture, picture], axis=1)
    assert_same(found, model.find(wide[:, :640]))


def test_a_face_does_not_depend_on_the_others(model: "InsightFaces"):
    alone, together = scene(640, 480, (76, 76, 40)), scene(640, 480, (76, 76, 40), (397, 301, 39))
    assert_same(model.find(alone), model.find(together)[:1])


def test_a_face_in_a_picture_wider_than_opencv_can_warp_is_embedded(model: "InsightFaces"):
    narrow = scene(400, 200, (180, 60, 80))
    wide = np.full((200, 33000, 3), 90, np.uint8)
    wide[:, 20000:20400] = narrow
    box, points = np.array([180, 60, 260, 140], np.float32), np.array([220, 100], np.float32) + 2 * FIVE
    shift = np.array([20000, 0], np.float32)
    (one,) = model._faces(narrow, [(0.9, box.tolist(), box, points)])
    (other,) = model._faces(wide, [(0.9, box.tolist(), box + np.tile(shift, 2), points + shift)])
    assert float(one.embedding @ other.embedding) > 0.9999
    assert other.pose == pytest.approx(one.pose, abs=1e-3)


SIZES = [(1, 1), (1, 400), (400, 1), (3, 6000), (6000, 3), (2, 2), (17, 300), (1, 40000)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_no_size_and_no_content_crashes_it(model: "InsightFaces", size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert model.find(np.zeros_like(noise)) == []
    red = np.zeros_like(noise)
    red[..., 0] = 255
    for pixels in (noise, red, noise[:, ::-1]):
        for face in model.find(pixels, min_det_score=0.3, max_faces=2):
            assert np.isfinite(face.embedding).all()
            assert (face.box[:2] >= 0).all()
            assert (face.box[2:] <= size[::-1]).all()
            assert (face.box[2:] > face.box[:2]).all()


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_pixels_are_refused(model: "InsightFaces", pixels: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        model.find(pixels)


def test_no_memory_is_said_in_one_word(model: "InsightFaces", monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(model._identity, "get_feat", full)
    with pytest.raises(Failed, match="out_of_memory"):
        model.find(scene(640, 480, (196, 164, 40)))


def runtime_out_of_memory() -> Exception:
    """As ONNX Runtime says it."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    return runtime.RuntimeException("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer")


@pytest.mark.parametrize("error", [MemoryError, runtime_out_of_memory])
def test_faces_of_one_picture_are_identified_in_batches_that_fit(
    entry: Entry, model: "InsightFaces", monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
):
    picture = scene(640, 480, *[(76 + 80 * column, 76 + 80 * row, 40) for column in range(4) for row in range(2)])
    batched, sizes = entry.in_batches_of(4).load(), []
    get = batched._identity.get_feat

    def poor(crops: list[np.ndarray]) -> np.ndarray:
        sizes.append(len(crops))
        if len(crops) > 2:
            raise error()
        return get(crops)

    monkeypatch.setattr(batched._identity, "get_feat", poor)
    found, expected = batched.find(picture), model.find(picture)
    assert sizes == [4, 2, 2, 2, 2]
    for one, other in zip(found, expected, strict=True):
        assert one.box.tolist() == other.box.tolist()
        assert float(one.embedding @ other.embedding) > 0.9999


# weights


def own(entry: Entry, folder: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the graphs that a test may spoil."""
    use(folder, monkeypatch)
    copy = folder / "buffalo_l"
    copy.mkdir()
    for name in NAMES:
        (copy / name).write_bytes((graphs / name).read_bytes())
    return copy


def test_without_points_in_space_there_is_no_pose(entry: Entry):
    (face,) = replace(entry, weights=entry.weights[:2]).load().find(scene(640, 480, (196, 164, 40)))
    assert face.pose is None
    assert np.isfinite(face.landmarks).all()


@pytest.mark.parametrize("name", ["buffalo_l", "antelopev2"])
def test_absent_weights_are_refused_with_the_remedy_and_without_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
):
    use(tmp_path, monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))  # where insightface would put what it downloads
    known = registry.by_name("face", name)
    said = rf"{name}/\w+\.onnx is not in the weights folder.*curl .*{name}\.zip"
    with pytest.raises(Refused, match=said):
        registry.resolve("face", name)
    with pytest.raises(Refused, match=said):
        known.load()
    assert list(tmp_path.iterdir()) == []


def test_loading_and_finding_use_no_network_and_leave_nothing_behind(
    entry: Entry, no_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert len(entry.load().find(scene(640, 480, (196, 164, 40)))) == 1
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_the_archive_change_nothing(
    entry: Entry, tmp_path: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch, model: "InsightFaces"
):
    folder = own(entry, tmp_path, graphs, monkeypatch)
    (folder / "2d106det.onnx").write_bytes(b"half a download")
    save_identity(folder / "0_another_identity.onnx")
    (folder / "manifest.json").write_text("{}")
    picture = scene(640, 480, (196, 164, 40))
    assert_same(entry.load().find(picture), model.find(picture))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoil", [lambda raw: b"no graph", lambda raw: raw[: len(raw) // 2], lambda raw: b""])
def test_damaged_weights_are_refused(
    entry: Entry,
    tmp_path: Path,
    graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: None,
    name: str,
    spoil: Callable[[bytes], bytes],
):
    file = own(entry, tmp_path, graphs, monkeypatch) / name
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(Refused, match=r"weights of buffalo_l.*get them again: .*curl"):
        entry.load()


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        (NAMES[0], save_identity, "it is not a detector"),
        (NAMES[1], save_points, "it is not an identity network"),
        (NAMES[0], lambda file: save_detector(file, points=False), "it is not a detector of faces with five points"),
    ],
    ids=["no detector", "no identity", "no points"],
)
def test_files_of_another_kind_are_refused(
    entry: Entry,
    tmp_path: Path,
    graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Path], None],
    said: str,
):
    make(own(entry, tmp_path, graphs, monkeypatch) / name)
    with pytest.raises(Refused, match=said):
        entry.load()


def test_points_that_lie_on_one_another_are_no_face(
    entry: Entry, tmp_path: Path, graphs: Path, monkeypatch: pytest.MonkeyPatch
):
    save_detector(own(entry, tmp_path, graphs, monkeypatch) / NAMES[0], spread=0)
    assert entry.load().find(scene(640, 480, (196, 164, 40))) == []


def test_cuda_is_refused_where_the_runtime_has_none(entry: Entry):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows CUDA")
    with pytest.raises(Refused, match=r"knows no CUDA; use device=cpu.*onnxruntime-gpu"):
        entry.load("cuda")


def test_auto_prefers_insightface_and_falls_back_to_yunet(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert [known.name for known in registry.ENTRIES["face"]] == ["buffalo_l", "antelopev2", "yunet", "dlib"]
    assert registry.resolve("face") is entry
    assert re.fullmatch(r"buffalo_l@[0-9a-f]{16}\+insightface-[\d.]+#[0-9a-f]{8}", entry.identity)
    use(tmp_path, monkeypatch)
    assert registry.resolve("face") is registry.by_name("face", "yunet")


@pytest.mark.weights
@pytest.mark.parametrize("name", ["buffalo_l", "antelopev2"])
def test_true_weights_see_the_astronaut(name: str):
    known = registry.by_name("face", name)
    if known.present() is not None:
        pytest.skip(known.describe_absence())
    assert sum(file.stat().st_size for file in known.files()) == known.size_bytes
    model, picture = known.load(), data.astronaut()
    (face,), (mirrored,) = model.find(picture), model.find(picture[:, ::-1])
    assert face.landmarks[0] == pytest.approx((204, 102), abs=6)
    assert face.landmarks[1] == pytest.approx((247, 105), abs=6)
    assert np.abs(face.pose).max() < 30
    assert float(face.embedding @ mirrored.embedding) > known.thresholds["same_identity"]
    large = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    (grown,) = model.find(large)
    assert boxes.iou(face.box[None] * 3, grown.box[None])[0, 0] > 0.7
    assert model.find(data.coffee()) == []
