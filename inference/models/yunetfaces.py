"""Faces by YuNet, which sees small, turned and tilted ones, with dlib's identity. CPU only.

YuNet alone takes dogs, clocks and folds of cloth for faces with scores as high as those of tilted heads. So whatever it
finds is looked at again by itself, at one size, in two widths of surroundings, each mirrored too: a face stays a face,
another thing does not. It sees heads in any direction, but puts the five points where those of an upright one would be.
So what may be a face is also turned by quarters; where that looks more like one, the points come from there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from refloom.inference.checkpoints import cause as filecause
from refloom.inference.models import dlibidentity
from refloom.inference.models.dlibidentity import CHIP_PX, DlibIdentity, dense
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Face, Floats, Pixels, back_from, box_in, scaled
from refloom.inference.models.warps import Matrix, similarity, warp
from refloom.schemas import boxes
from refloom.schemas.errors import Refused

_LOOKS = (2.0, 3.0)
"""How much is seen when a face is looked at again, as multiples of its longer side."""
_LOOK_PX = 160
"""Side of what is seen then."""
_LEAST_LOOK_SCORE = 0.05
_SAME_FACE = 0.3
"""IoU from which two detections are of one face."""
_INSIDE = 0.6
"""Share of the smaller of two boxes inside the other, from which they are one face: its parts look like faces."""
_MOST_CANDIDATES = 500
_UPRIGHT_GROWTH, _UPRIGHT_PX = 1.6, 400
_POINTS = np.array([[47.4, 45.7], [102.6, 45.7], [75.0, 78.5], [51.5, 101.4], [98.5, 101.4]], np.float64)
"""Where YuNet sees the five points of faces in dlib's aligned crop: medians of 55 faces of the photographs that dlib's
own detector finds, made symmetric."""
_DLIB_BOX = np.array([13.0, 12.0, 137.0, 135.0])
"""dlib's own box in its aligned crop: the median of the same faces."""


def load(entry: Entry, device: str, precision: str) -> "YuNetFaces":
    """The model of the registry's entry; `device` and `precision` change nothing: the packages know the CPU and fp32.

    Raises:
        Refused: a file of weights is damaged.
    """
    detector, landmarks, identity = entry.files()
    return YuNetFaces(
        _load_detector(entry, detector),
        dlibidentity.load(entry, landmarks, identity),
        min_det_score=entry.thresholds["min_det_score"],
        candidate_score=entry.options["candidate_score"],
        work_sides_px=(int(entry.options["work_side_px"]), int(entry.options["large_side_px"])),
        max_growth=entry.options["max_growth"],
    )


def _load_detector(entry: Entry, file: Path) -> "cv2.FaceDetectorYN":
    try:
        with _quiet():
            detector = cv2.FaceDetectorYN.create(str(file), "", (_LOOK_PX, _LOOK_PX), top_k=_MOST_CANDIDATES)
            detector.detect(np.zeros((_LOOK_PX, _LOOK_PX, 3), np.uint8))
    except cv2.error as error:
        told = filecause.of_any(file) or "it is no graph of YuNet"
        raise Refused(
            f"the weights of {entry.name} are damaged: {file.name}: {told}; get them again: {entry.get}"
        ) from error
    return detector


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV 5 warns on the terminal that its graph engine chooses its own target, which is what is wanted."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


class YuNetFaces:
    """A `faces.FaceModel`.

    Args:
        detector: YuNet.
        identity: landmarks and embeddings.
        min_det_score: of the score of the second look, 0 to 1: the mean over all crops as they are, and where the face
            looks more like one when it is turned, the mean of that and the same of the turned crops.
        candidate_score: of YuNet's own score on the picture, from which a face is looked at again.
        work_sides_px: faces are looked for with the picture's longer side at the first, and where the picture is larger
            than that by more than a quarter, also at its own size, at most the second.
        max_growth: pictures are grown at most by this factor to get to the first side.
    """

    def __init__(
        self,
        detector: "cv2.FaceDetectorYN",
        identity: DlibIdentity,
        *,
        min_det_score: float,
        candidate_score: float,
        work_sides_px: tuple[int, int],
        max_growth: float,
    ) -> None:
        self._detector, self._identity = detector, identity
        self._min_det_score, self._candidate_score = min_det_score, candidate_score
        self._work_side_px, self._large_side_px = work_sides_px
        self._max_growth = max_growth

    def find(
        self,
        pixels: Pixels,
        *,
        min_det_score: float | None = None,
        min_side_px: float = 0,
        max_faces: int | None = None,
    ) -> list[Face]:
        """See `faces.FaceModel.find`. Landmarks are YuNet's; the embedding comes from the pixels at full size.

        A face whose five points lie on one another cannot be aligned and is no face.
        """
        pixels = dense(pixels)
        least = self._min_det_score if min_det_score is None else min_det_score
        found = []
        for row in self._candidates(pixels):
            outline = _box(row)
            if (box := box_in(pixels, outline, min_side_px)) is None:
                continue
            score, turned = self._look_again(pixels, outline, least)
            points = row[4:14].reshape(5, 2) if turned is None else turned
            upright = similarity(points, _POINTS)
            if score >= least and upright is not None:
                found.append((score, box.tolist(), points.astype(np.float32), upright))
        found.sort(key=lambda item: (-item[0], item[1]))
        kept = _without_repeats(np.array([box for _, box, _, _ in found], np.float32).reshape(-1, 4))
        return [self._face(pixels, *found[index]) for index in kept[:max_faces]]

    def _candidates(self, pixels: Pixels) -> list[Floats]:
        """YuNet's rows (15,): x, y, width, height, five points, score; in pixels of the picture, best first."""
        longer = max(pixels.shape[:2])
        sides = [min(float(self._work_side_px), longer * self._max_growth)]
        if longer > 1.25 * self._work_side_px:
            sides.append(float(min(longer, self._large_side_px)))
        rows = [row for side in sides for row in self._detect_at(pixels, side)]
        rows.sort(key=lambda row: (-float(row[14]), row[:4].tolist()))
        outlines = np.array([_box(row) for row in rows], np.float32).reshape(-1, 4)
        return [rows[index] for index in _without_repeats(outlines, inside=1.1)]

    def _detect_at(self, pixels: Pixels, side: float) -> list[Floats]:
        work = scaled(pixels, side / max(pixels.shape[:2]))
        rows = self._detect(work, self._candidate_score)
        rows[:, :14] *= np.tile(back_from(work, pixels), 7)
        return list(rows)

    def _detect(self, pixels: Pixels, min_score: float) -> Floats:
        """Rows (N, 15) of the pixels as they are."""
        self._detector.setInputSize((pixels.shape[1], pixels.shape[0]))
        self._detector.setScoreThreshold(min_score)
        rows = self._detector.detect(np.ascontiguousarray(pixels[..., ::-1]))[1]
        if rows is None:
            return np.zeros((0, 15), np.float32)
        return np.asarray(rows[np.isfinite(rows).all(axis=1)], np.float32)

    def _look_again(self, pixels: Pixels, outline: Floats, least: float) -> tuple[float, Floats | None]:
        """The score of one face by itself, and its five points (5, 2) where it is turned by a quarter or more.

        Args:
            pixels: of the picture.
            outline: (4,) xyxy.
            least: score that matters; what cannot reach it is not turned.
        """
        views = [_view(pixels, outline, width) for width in _LOOKS]
        upright = self._mean_score(views)
        if (upright + 1) / 2 < least:
            return upright, None
        wide = [self._best(views[-1].turned(quarters))[0] for quarters in range(4)]
        quarters = int(np.argmax(wide))
        if quarters == 0:
            return upright, None
        turned = [view.turned(quarters) for view in views]
        score = self._mean_score(turned)
        if score <= upright:
            return upright, None
        return (upright + score) / 2, turned[0].back(self._best(turned[0])[1])

    def _mean_score(self, views: list["_View"]) -> float:
        """Over crops and their mirror images; 0 counts where the face is not seen again."""
        return float(np.mean([self._best(shown)[0] for view in views for shown in (view, view.mirrored())]))

    def _best(self, view: "_View") -> tuple[float, Floats]:
        """Score and five points (5, 2) of the face in a crop, in pixels of the crop; 0 where there is none."""
        rows = self._detect(view.crop, _LEAST_LOOK_SCORE)
        outlines = np.array([_box(row) for row in rows], np.float32).reshape(-1, 4)
        rows = rows[boxes.iou(view.expected[None], outlines)[0] >= _SAME_FACE]
        if not len(rows):
            return 0.0, np.full((5, 2), np.nan, np.float32)
        best = rows[int(np.argmax(rows[:, 14]))]
        return float(best[14]), best[4:14].reshape(5, 2)

    def _face(
        self, pixels: Pixels, score: float, box: list[float], points: Floats, upright: npt.NDArray[np.float64]
    ) -> Face:
        # dlib's predictor knows upright faces only, so the face is first brought upright, with room around it
        margin = (_UPRIGHT_PX - CHIP_PX * _UPRIGHT_GROWTH) / 2
        matrix = upright * _UPRIGHT_GROWTH
        matrix[:, 2] += margin
        crop = warp(pixels, matrix, _UPRIGHT_PX)
        _, vector = self._identity.of(crop, (_DLIB_BOX * _UPRIGHT_GROWTH + margin).astype(np.float32))
        return Face(np.array(box, np.float32), score, points, None, vector)


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A face by itself.

    Attributes:
        crop: (_LOOK_PX, _LOOK_PX, 3), the face in its middle.
        expected: (4,) xyxy of the face in it.
        matrix: (2, 3) of the picture to the crop before it was turned.
        quarters: by how many quarters it was turned, against the clock.
    """

    crop: Pixels
    expected: Floats
    matrix: Matrix
    quarters: int = 0

    def mirrored(self) -> "_View":
        """Its mirror image; the face stays where it is, because it is in the middle."""
        return replace(self, crop=self.crop[:, ::-1])

    def turned(self, quarters: int) -> "_View":
        """The same, turned by quarters against the clock."""
        expected = self.expected if quarters % 2 == 0 else self.expected[[1, 0, 3, 2]]
        return replace(self, crop=np.rot90(self.crop, quarters), expected=expected, quarters=self.quarters + quarters)

    def back(self, points: Floats) -> Floats:
        """Points (N, 2) of the crop in pixels of the picture."""
        for _ in range(self.quarters):
            points = np.column_stack([_LOOK_PX - points[:, 1], points[:, 0]])
        return np.asarray((points - self.matrix[:, 2]) / self.matrix[0, 0], np.float32)


def _view(pixels: Pixels, outline: Floats, width: float) -> _View:
    """What lies around a box (4,) xyxy, `width` times its longer side."""
    middle, sides = (outline[:2] + outline[2:]) / 2, outline[2:] - outline[:2]
    scale = _LOOK_PX / (width * float(sides.max()))
    matrix = np.column_stack([np.eye(2) * scale, _LOOK_PX / 2 - scale * middle])
    expected = np.concatenate([_LOOK_PX / 2 - scale * sides / 2, _LOOK_PX / 2 + scale * sides / 2])
    return _View(warp(pixels, matrix, _LOOK_PX), expected.astype(np.float32), matrix)


def _box(row: Floats) -> Floats:
    """(4,) xyxy of a row of YuNet."""
    return np.concatenate([row[:2], row[:2] + row[2:4]])


def _without_repeats(outlines: Floats, inside: float = _INSIDE) -> list[int]:
    """Which of N boxes (N, 4) stay, in order: those that are not of one face with a box before them."""
    kept: list[int] = []
    for index, box in enumerate(outlines):
        others = outlines[kept]
        shared = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(axis=1)
        areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
        area = float((box[2:] - box[:2]).prod())
        repeats = (shared > _SAME_FACE * (areas + area - shared)) | (shared > inside * np.minimum(areas, area))
        if not repeats.any():
            kept.append(index)
    return kept
