"""What encoders say of the pictures that made ones are compared with; each is looked at once while it is remembered."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from refloom.inference.evaluation.cases import Case, Picture, SamplePicture
from refloom.inference.evaluation.copying import Known
from refloom.inference.evaluation.encoders import Encoders
from refloom.inference.evaluation.instances import Finder
from refloom.inference.evaluation.metrics import Floats

View = Literal["whole", "fitted", "best-face", "own-face"]
"""Of a picture: as papers cut it; fitted into a white square; its surest face; the face that it clearly is of. A face
that a dataset knows is both."""

_MOST = 4096
"""Vectors that a worker keeps."""


class Photographs:
    """Vectors of photographs.

    Args:
        encoders: loaded.
    """

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders
        self._one = lru_cache(_MOST)(self._look)

    def of(self, view: View, kind: str, pictures: Sequence[Picture]) -> Floats:
        """Vectors (N, D) of pictures in their order; of faces only where there is one, so that N may be 0.

        Raises:
            Refused: a picture cannot be read.
        """
        found = [vectors for picture in pictures if len(vectors := self._one(view, kind, picture))]
        return np.concatenate(found) if found else np.zeros((0, 1), np.float32)

    def subjects(self, view: View, kind: str, case: Case) -> list[Floats]:
        """Vectors (N_k, D) of the photographs of each subject of a case."""
        return [self.of(view, kind, subject.photographs) for subject in case.subjects]

    def known(self, kind: str, case: Case, finder: Finder) -> list[Known]:
        """Truth and references of each subject of a case with a picture left out.

        Where whole pictures are compared the truth is all of the picture left out, else what of it shows the subject. A
        face is its own one; of a picture on which no box says which it is, the only one.
        """
        view: View = "own-face" if kind == "face" else "fitted"
        whole = [case.target] if case.target is not None and len(case.subjects) == 1 else []
        pairs: list[Known] = []
        for subject in case.subjects:
            if kind != "face" and finder.by == "whole":
                truth, references = whole, subject.photographs
            else:
                alone = whole if kind == "face" else []
                truth, references = [subject.truth] if subject.truth is not None else alone, subject.closest
            pairs.append(Known(self.of(view, kind, truth), self.of(view, kind, references)))
        return pairs

    def _look(self, view: View, kind: str, picture: Picture) -> Floats:
        match view:
            case "whole":
                return self._encoders.pictures(kind, [picture.pixels()])
            case "fitted":
                return self._encoders.fitted(kind, picture.pixels())[None]
        if isinstance(picture, SamplePicture) and picture.face is not None:
            return self._encoders.own_face(picture.face_pixels(), centred=True)
        if view == "best-face":
            return self._encoders.faces(picture.pixels(), only_best=True)
        return self._encoders.own_face(picture.pixels(), centred=False)
