"""Faces by insightface's `FaceAnalysis`: SCRFD detector, ArcFace identity, head pose from 68 points in space.

Everything runs through ONNX Runtime in fp32, from the files of the registry's entry and nothing else: insightface would
download a model that it does not find, and take whatever else lies in a folder.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import insightface
import numpy as np
import numpy.typing as npt
import onnxruntime
from insightface.app import FaceAnalysis
from insightface.app.common import Face as Found
from insightface.utils.face_align import norm_crop
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from refloom.inference.models import faceborder, facepack
from refloom.inference.models.batching import MicroBatches, is_out_of_memory
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Face, Floats, Pixels, back_from, box_in, check_pixels, scaled
from refloom.schemas.errors import Failed, Refused

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_TASKS = ("detection", "recognition", "landmark_3d_68")
_SURROUNDINGS = 2.0
"""How far around a face its pixels are taken along, as a share of its longer side; its crops reach to about 1."""

_RUNTIME_ERRORS = (
    runtime.Fail,
    runtime.InvalidArgument,
    runtime.InvalidGraph,
    runtime.InvalidProtobuf,
    runtime.NoSuchFile,
    runtime.NotImplemented,
    runtime.RuntimeException,
)


def load(entry: Entry, device: str, precision: str) -> "InsightFaces":
    """The model of the registry's entry; `precision` changes nothing: the published graphs are in fp32.

    Raises:
        Refused: insightface is too old, a file of weights is damaged or another model, or there is no such device.
    """
    if int(insightface.__version__.partition(".")[0]) < 2:
        raise Refused(f"insightface {insightface.__version__} is too old, 2.1 is needed: {entry.get}")
    providers = _providers(entry, device)
    options = onnxruntime.SessionOptions()
    if providers == [_CPU]:
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # more add up in another order
    files = entry.files()
    facepack.check(entry, files)
    # a folder of exactly the entry's files, because FaceAnalysis loads every graph beside them; and an existing folder,
    # because it downloads what it knows by name only
    with tempfile.TemporaryDirectory(prefix="refloom-faces-") as folder:
        for file in files:
            (Path(folder) / file.name).symlink_to(file.resolve())
        try:
            app = FaceAnalysis(
                name=folder,
                allowed_modules=list(_TASKS),
                providers=providers,
                sess_options=options,
                static_shape_sessions=False,
            )
        except (*_RUNTIME_ERRORS, AssertionError, AttributeError, IndexError, TypeError, OSError) as error:
            raise Refused(
                f"insightface {insightface.__version__} cannot start the graphs of {entry.name} on {device}: use "
                f"device=cpu, or get them again: {entry.get}"
            ) from error
    missing = [task for task, _ in zip(_TASKS, files, strict=False) if task not in app.models]
    if missing or not app.det_model.use_kps:
        lacking = " and ".join(missing) or "five points of the detector"
        raise Refused(f"the files of {entry.name} hold no {lacking}; get them again: {entry.get}")
    if app.det_model.session.get_providers()[0] != (_CUDA if device.startswith("cuda") else _CPU):
        raise Refused(f"{entry.name} was asked to run on {device}, but ONNX Runtime cannot start CUDA; use device=cpu")
    app.prepare(ctx_id=0, det_thresh=entry.thresholds["min_det_score"])
    sides = (int(entry.options["small_side_px"]), int(entry.options["work_side_px"]))
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    least = entry.thresholds["min_det_score"]
    return InsightFaces(
        app,
        min_det_score=least,
        border_det_score=entry.options["border_det_score"],
        work_sides_px=sides,
        batch_size=batch_size,
    )


def _providers(entry: Entry, device: str) -> list[Any]:
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return [_CPU]
    if _CUDA not in onnxruntime.get_available_providers():
        raise Refused(
            f"{entry.name} was asked to run on {device}, but this ONNX Runtime knows no CUDA; use device=cpu, or "
            "replace it: pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        )
    # an algorithm that is chosen by timing, or TF32, would give other bytes from run to run
    exact = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0}
    return [(_CUDA, {"device_id": int(index or 0), **exact}), _CPU]


class InsightFaces:
    """A `faces.FaceModel`.

    Args:
        app: prepared, with a detector of five points, an identity network and, for poses, the 68 points in space.
        min_det_score: of the detector's score, 0 to 1.
        border_det_score: the same for faces that are found only with a border around the picture.
        work_sides_px: faces are looked for with the picture's longer side at each of these, multiples of 32; what is
            found at several counts once. The largest is made from the picture, the others from that.
        batch_size: faces of a picture that the identity network sees at once; the detector takes one picture at a time.
    """

    def __init__(
        self,
        app: FaceAnalysis,
        *,
        min_det_score: float,
        border_det_score: float,
        work_sides_px: tuple[int, ...],
        batch_size: int,
    ) -> None:
        self._detector, self._identity = app.det_model, app.models["recognition"]
        self._points = app.models.get("landmark_3d_68")
        self._min_det_score, self._border_det_score, self._sides = min_det_score, border_det_score, work_sides_px
        self._batches = MicroBatches(batch_size)

    def find(
        self,
        pixels: Pixels,
        *,
        min_det_score: float | None = None,
        min_side_px: float = 0,
        max_faces: int | None = None,
    ) -> list[Face]:
        """See `faces.FaceModel.find`. Pose and embedding come from the pixels at full size.

        A face whose five points lie on one another cannot be aligned and is no face. SCRFD misses faces that fill the
        picture: where it finds none, the picture is shown to it once more within a border.

        Raises:
            Failed: `out_of_memory`.
        """
        check_pixels(pixels)
        return faceborder.find(
            self._search,
            pixels,
            min_det_score=self._min_det_score if min_det_score is None else min_det_score,
            border_det_score=self._border_det_score,
            min_side_px=min_side_px,
            max_faces=max_faces,
        )

    def _search(self, pixels: Pixels, min_det_score: float, min_side_px: float, max_faces: int | None) -> list[Face]:
        found = []
        try:
            for score, outline, points in self._detect(pixels, min_det_score):
                box = box_in(pixels, outline, min_side_px)
                if box is not None and _alignable(points):
                    found.append((score, box.tolist(), outline, points))
            found.sort(key=lambda item: (-item[0], item[1]))
            return self._faces(pixels, found[:max_faces])
        except (*_RUNTIME_ERRORS, MemoryError) as error:
            if _is_out_of_memory(error):
                raise Failed("out_of_memory", "insightface") from error
            raise

    def _detect(self, pixels: Pixels, min_det_score: float) -> list[tuple[float, Floats, Floats]]:
        """Scores, boxes (4,) and points (5, 2), in pixels of the picture; they may leave it."""
        side = max(self._sides)
        work = scaled(np.ascontiguousarray(pixels), side / max(pixels.shape[:2]))
        # a square of our own: insightface's leaves no pixel of a thin picture and rounds its sides by two scales
        square = np.zeros((side, side, 3), np.uint8)
        square[: work.shape[0], : work.shape[1]] = work[..., ::-1]
        sizes = [(edge, edge) for edge in self._sides]
        boxes, points = self._detector.detect(square, input_size=sizes, det_thresh=min_det_score)
        back = back_from(work, pixels).astype(np.float32)
        sound = np.isfinite(boxes).all(axis=1)
        return [
            (float(row[4]), np.asarray(row[:4] * np.tile(back, 2), np.float32), np.asarray(five * back, np.float32))
            for row, five in zip(boxes[sound], points[sound], strict=True)
        ]

    def _faces(self, pixels: Pixels, found: list[tuple[float, list[float], Floats, Floats]]) -> list[Face]:
        """Faces of their scores, boxes in the picture, boxes and points as detected."""
        crops, poses = [], []
        for score, _, outline, points in found:
            part, corner = _around(pixels, np.concatenate([outline.reshape(2, 2), points]))
            shift = np.array(corner, np.float32)
            face = Found(bbox=outline - np.tile(shift, 2), kps=points - shift, det_score=score)
            with warnings.catch_warnings():
                # insightface 2.1 calls a function that scikit-image has renamed
                warnings.simplefilter("ignore", FutureWarning)
                crops.append(norm_crop(part, face.kps, image_size=self._identity.input_size[0]))
                if self._points is not None:
                    self._points.get(part, face)
            pose = None if face.pose is None else np.asarray(face.pose, np.float32)
            poses.append(None if pose is None or not np.isfinite(pose).all() else pose)
        vectors = self._batches.run(self._identify, crops)
        return [
            Face(np.array(box, np.float32), score, points, pose, vector)
            for (score, box, _, points), pose, vector in zip(found, poses, vectors, strict=True)
        ]

    def _identify(self, crops: list[Pixels]) -> list[Floats]:
        """Unit vectors of aligned crops."""
        try:
            raw = np.asarray(self._identity.get_feat(crops), np.float64)
        except _RUNTIME_ERRORS as error:
            if _is_out_of_memory(error):
                raise MemoryError from error  # so that the batch is halved
            raise
        return list((raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)).astype(np.float32))


def _is_out_of_memory(error: Exception) -> bool:
    return is_out_of_memory(error) or "Failed to allocate memory" in str(error)


def _alignable(points: npt.NDArray[np.float32]) -> bool:
    """Whether five points (5, 2) span something that a similarity can bring to ArcFace's template."""
    return bool(np.isfinite(points).all() and np.ptp(points, axis=0).max() > 0)


def _around(pixels: Pixels, points: npt.NDArray[np.float32]) -> tuple[Pixels, tuple[int, int]]:
    """The pixels around some points (N, 2), blue first as insightface takes them, and where their corner lies.

    A part, because OpenCV cannot warp pictures of more than 32,767 px.
    """
    height, width = pixels.shape[:2]
    low, high = points.min(axis=0), points.max(axis=0)
    reach = _SURROUNDINGS * float((high - low).max())
    x0, y0 = (int(edge) for edge in np.clip(np.floor(low - reach), 0, (width - 1, height - 1)))
    x1, y1 = (int(edge) for edge in np.clip(np.ceil(high + reach), (x0 + 1, y0 + 1), (width, height)))
    return np.ascontiguousarray(pixels[y0:y1, x0:x1, ::-1]), (x0, y0)
