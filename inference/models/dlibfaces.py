"""Faces by dlib: HOG detector, 5-point landmarks, 128 numbers of identity. One thread, CPU only."""

import cv2
import dlib
import numpy as np

from refloom.inference.checkpoints import cause as filecause
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Face, Floats, Pixels
from refloom.schemas.errors import Refused

_POINTS, _CHIP_PX = 5, 150
_CHIP_PADDING = 0.25
"""The aligned crop that the identity network was trained on."""


def load(entry: Entry, device: str, precision: str) -> "DlibFaces":
    """The model of the registry's entry; `device` and `precision` change nothing: dlib's wheels know the CPU and fp32.

    Raises:
        Refused: a file of weights is damaged.
    """
    landmarks, identity = entry.files()
    try:
        predictor = dlib.shape_predictor(str(landmarks))
        encoder = dlib.face_recognition_model_v1(str(identity))
    except RuntimeError as error:
        files = {file.name: filecause.of_any(file) for file in (landmarks, identity)}
        told = next(
            (f"{name}: {cause}" for name, cause in files.items() if cause), f"{' or '.join(files)} is another's"
        )
        raise Refused(f"the weights of {entry.name} are damaged: {told}; reinstall them: {entry.get}") from error
    black = np.zeros((_CHIP_PX, _CHIP_PX, 3), np.uint8)
    points = predictor(black, dlib.rectangle(0, 0, _CHIP_PX - 1, _CHIP_PX - 1)).num_parts
    if points != _POINTS:
        raise Refused(
            f"the weights of {entry.name} are damaged: {landmarks.name} finds {points} points of a face, not "
            f"{_POINTS}; reinstall them: {entry.get}"
        )
    return DlibFaces(
        predictor,
        encoder,
        min_det_score=entry.thresholds["min_det_score"],
        work_side_px=int(entry.options["work_side_px"]),
        max_growth=entry.options["max_growth"],
    )


class DlibFaces:
    """A `faces.FaceModel`.

    Args:
        predictor: dlib's 5-point `shape_predictor`.
        encoder: dlib's `face_recognition_model_v1`.
        min_det_score: of the detector's raw score, about -1 to 3.
        work_side_px: faces are looked for with the picture's longer side at this.
        max_growth: pictures are grown at most by this factor to get there.
    """

    def __init__(
        self,
        predictor: "dlib.shape_predictor",
        encoder: "dlib.face_recognition_model_v1",
        *,
        min_det_score: float,
        work_side_px: int,
        max_growth: float,
    ) -> None:
        self._detector = dlib.get_frontal_face_detector()
        self._predictor, self._encoder = predictor, encoder
        self._min_det_score, self._work_side_px, self._max_growth = min_det_score, work_side_px, max_growth

    def find(
        self,
        pixels: Pixels,
        *,
        min_det_score: float | None = None,
        min_side_px: float = 0,
        max_faces: int | None = None,
    ) -> list[Face]:
        """See `faces.FaceModel.find`. Landmarks and embedding come from the pixels at full size."""
        pixels = _dense(pixels)
        height, width = pixels.shape[:2]
        least = self._min_det_score if min_det_score is None else min_det_score
        found = []
        for score, outline in self._detect(pixels, least):
            box = np.clip(outline, 0, (width, height, width, height)).astype(np.float32)
            shorter = float((box[2:] - box[:2]).min())
            if shorter > 0 and shorter >= min_side_px:
                found.append((score, box.tolist(), outline))
        found.sort(key=lambda item: (-item[0], item[1]))
        return [self._face(pixels, score, box, outline) for score, box, outline in found[:max_faces]]

    def _detect(self, pixels: Pixels, min_det_score: float) -> list[tuple[float, Floats]]:
        """Scores and boxes (4,), in pixels of the picture; boxes may leave it."""
        height, width = pixels.shape[:2]
        scale = min(self._work_side_px / max(height, width), self._max_growth)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        work = pixels
        if size != (width, height):
            kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            work = np.asarray(cv2.resize(pixels, size, interpolation=kind), np.uint8)
        rectangles, scores, _ = self._detector.run(_dense(work), 0, min_det_score)
        back = np.tile((width / size[0], height / size[1]), 2)
        corners = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]  # dlib's ends are inclusive
        return [(float(score), (back * box).astype(np.float32)) for score, box in zip(scores, corners, strict=True)]

    def _face(self, pixels: Pixels, score: float, box: list[float], outline: Floats) -> Face:
        left, top, right, bottom = (round(float(edge)) for edge in outline)
        shape = self._predictor(pixels, dlib.rectangle(left, top, max(left, right - 1), max(top, bottom - 1)))
        chip = dlib.get_face_chip(pixels, shape, _CHIP_PX, _CHIP_PADDING)
        raw = np.array(self._encoder.compute_face_descriptor(chip), np.float64)
        points = np.array([(part.x, part.y) for part in shape.parts()], np.float32) + 0.5  # of a pixel: its middle
        landmarks = np.full((5, 2), np.nan, np.float32)
        landmarks[0] = points[2:4].mean(axis=0)  # dlib counts from the viewer's right
        landmarks[1] = points[0:2].mean(axis=0)
        landmarks[2] = points[4]
        unit = (raw / max(float(np.linalg.norm(raw)), 1e-12)).astype(np.float32)
        return Face(np.array(box, np.float32), score, landmarks, None, unit)


def _dense(pixels: Pixels) -> Pixels:
    """The pixels with the strides dlib asks for; `np.ascontiguousarray` leaves odd ones on axes of length 1."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    return pixels if pixels.strides == (3 * pixels.shape[1], 3, 1) else pixels.copy(order="C")
