"""Faces by dlib: HOG detector, 5-point landmarks, 128 numbers of identity. One thread, CPU only."""

import dlib
import numpy as np

from refloom.inference.models import dlibidentity
from refloom.inference.models.dlibidentity import DlibIdentity, dense
from refloom.inference.models.entry import Entry
from refloom.inference.models.faces import Face, Floats, Pixels, back_from, box_in, scaled


def load(entry: Entry, device: str, precision: str) -> "DlibFaces":
    """The model of the registry's entry; `device` and `precision` change nothing: dlib's wheels know the CPU and fp32.

    Raises:
        Refused: a file of weights is damaged.
    """
    return DlibFaces(
        dlibidentity.load(entry, *entry.files()),
        min_det_score=entry.thresholds["min_det_score"],
        work_side_px=int(entry.options["work_side_px"]),
        max_growth=entry.options["max_growth"],
    )


class DlibFaces:
    """A `faces.FaceModel`.

    Args:
        identity: landmarks and embeddings.
        min_det_score: of the detector's raw score, about -1 to 3.
        work_side_px: faces are looked for with the picture's longer side at this.
        max_growth: pictures are grown at most by this factor to get there.
    """

    def __init__(
        self,
        identity: DlibIdentity,
        *,
        min_det_score: float,
        work_side_px: int,
        max_growth: float,
    ) -> None:
        self._detector, self._identity = dlib.get_frontal_face_detector(), identity
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
        pixels = dense(pixels)
        least = self._min_det_score if min_det_score is None else min_det_score
        found = []
        for score, outline in self._detect(pixels, least):
            if (box := box_in(pixels, outline, min_side_px)) is not None:
                found.append((score, box.tolist(), outline))
        found.sort(key=lambda item: (-item[0], item[1]))
        return [self._face(pixels, score, box, outline) for score, box, outline in found[:max_faces]]

    def _detect(self, pixels: Pixels, min_det_score: float) -> list[tuple[float, Floats]]:
        """Scores and boxes (4,), in pixels of the picture; boxes may leave it."""
        work = scaled(pixels, min(self._work_side_px / max(pixels.shape[:2]), self._max_growth))
        rectangles, scores, _ = self._detector.run(dense(work), 0, min_det_score)
        back = np.tile(back_from(work, pixels), 2)
        corners = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles]  # dlib's ends are inclusive
        return [(float(score), (back * box).astype(np.float32)) for score, box in zip(scores, corners, strict=True)]

    def _face(self, pixels: Pixels, score: float, box: list[float], outline: Floats) -> Face:
        places, unit = self._identity.of(pixels, outline)
        landmarks = np.full((5, 2), np.nan, np.float32)
        landmarks[:3] = places
        return Face(np.array(box, np.float32), score, landmarks, None, unit)
