"""One made picture as the encoders see it: whole, in its subjects' boxes, its faces, its instances."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from refloom.inference.adapters.reading import Mask, Pixels
from refloom.inference.adapters.reference import FULL_PICTURE
from refloom.inference.evaluation.cases import UNNAMED, Case, pixel_box
from refloom.inference.evaluation.encoders import Encoders, area_box, without
from refloom.inference.evaluation.instances import MOST, Finder
from refloom.inference.evaluation.metrics import Floats
from refloom.schemas import boxes
from refloom.schemas.errors import Refused

PixelBox = tuple[int, int, int, int]


class Look:
    """One picture, looked at once for each encoder.

    Args:
        encoders: loaded.
        case: it was made for.
        picture: (H, W, 3) uint8.
        finder: says where the subjects are.
    """

    def __init__(self, encoders: Encoders, case: Case, picture: Pixels, finder: Finder) -> None:
        self.case, self._encoders, self._picture, self.finder = case, encoders, picture, finder
        self._whole: dict[str, Floats] = {}
        self._boxes: dict[str, list[Floats]] = {}
        self._instances: dict[str, list[Floats | None]] = {}

    def whole(self, kind: str) -> Floats:
        """Of all of it, (D,)."""
        if kind not in self._whole:
            self._whole[kind] = self._encoders.pictures(kind, [self._picture])[0]
        return self._whole[kind]

    @cached_property
    def faces(self) -> Floats:
        """Identities (N, D) of all faces, the surest first."""
        return self._encoders.faces(self._picture)

    def instances(self, kind: str) -> list[Floats | None]:
        """Of what is found of each subject, (M_k, D); None for a subject that cannot be looked for."""
        if kind not in self._instances:
            self._instances[kind] = [None if found is None else self._parts(kind, found) for found in self._found]
        return self._instances[kind]

    def _parts(self, kind: str, places: Sequence[PixelBox]) -> Floats:
        if not places:
            return np.zeros((0, 1), np.float32)
        return np.stack([self._encoders.in_box(kind, self._picture, place) for place in places])

    @cached_property
    def _found(self) -> list[list[PixelBox] | None]:
        """Boxes of each subject's instances, by the finder."""
        height, width = self._picture.shape[:2]
        subjects = self.case.subjects
        match self.finder.by:
            case "detector":
                named = {one.phrase for one in subjects if one.phrase.strip(" .") and one.phrase != UNNAMED}
                found = {phrase: self._encoders.instances(self._picture, phrase, MOST) for phrase in sorted(named)}
                places = {phrase: [boxes.pad(one.box, width, height) for one in many] for phrase, many in found.items()}
                return [places.get(subject.phrase) for subject in subjects]
            case "boxes":
                return [[pixel_box(subject.box or FULL_PICTURE, width, height)] for subject in subjects]
            case "whole":
                return [[(0, 0, width, height)] for _ in subjects]
        return [None for _ in subjects]

    def boxes(self, kind: str) -> list[Floats]:
        """Of the part in each subject's box."""
        if kind not in self._boxes:
            height, width = self._picture.shape[:2]
            places = [pixel_box(subject.box or FULL_PICTURE, width, height) for subject in self.case.subjects]
            self._boxes[kind] = [self._encoders.in_box(kind, self._picture, place) for place in places]
        return self._boxes[kind]

    def foreground(self, kind: str) -> Floats:
        """Of the smallest box around what might change, (D,)."""
        return self._encoders.in_box(kind, self._picture, area_box(self._area()[0]))

    def backgrounds(self, kind: str) -> tuple[Floats, Floats]:
        """Of the picture (D,) and of its source (1, D), both without what might change."""
        area, source = self._area()
        made, before = self._encoders.pictures(kind, [without(self._picture, area), without(source, area)])
        return made, before[None]

    def _area(self) -> tuple[Mask, Pixels]:
        """Where the picture may differ from its source, and the source.

        Raises:
            Refused: the picture is of another size.
        """
        assert self.case.source is not None  # `applies` has asked
        source = self.case.source.pixels()
        if source.shape != self._picture.shape:
            sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (self._picture, source)]
            raise Refused(f"the edited picture is {sizes[0]}, its source {sizes[1]}: no background to compare")
        return self.case.area(source), source
