"""EasyRef's three stages (arXiv 2412.09618; spec A2 and A3): a picture itself, its faces, the others of its group."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.ranges import Number, Whole, Word, check_fields
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Pixels, Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.cutouts import face, whole
from refloom.training.views.example import Example
from refloom.training.views.frame import framed, shrunk
from refloom.training.views.instructions import TEXTS, Instruction, instructions_of, taken
from refloom.training.views.subjects import (
    ALL_KINDS,
    Bounds,
    Seen,
    appearance_of,
    may_be_target,
    other_pictures,
    seen_on,
)
from refloom.training.views.view import NOT_ALLOWED, View, found

STAGES = ("alignment", "single", "multi")


@dataclass(frozen=True, slots=True, kw_only=True)
class EasyRef(View):
    """A target and the pictures that the multimodal model reads; all of them are one reference.

    alignment: the target's own crop. single: a face of the target, or its own crop where it has none. multi: the other
    pictures of its subjects, shuffled, sometimes truncated; beside an instruction those that it counts, in its order.

    Attributes:
        stage: alignment, single or multi.
        max_references: most pictures, of multi.
        truncate: share of multi examples with more than two references of which only the first k are kept, k from 2.
        min_face_px: shorter side of a face that is taken.
        face_margin: largest margin around a face on every side, as a share of its side.
        face_flip: share of faces that are mirrored.
        captioned: accept only targets with a caption or an instruction; published without: the text is then empty.
        captions: see `instructions.TEXTS`: instruction, any, or null for the target's captions alone. Where the target
            is its own reference, only instructions that count no picture fit.
        area_px: most pixels of a reference picture; the model's processor resizes to about 336 x 336.
        random_crop: draw the place of the target's crop; published is the middle.
        bounds: of subjects and of pairs of their appearances; an upper similarity keeps near copies apart.
        dropout: of conditions.
    """

    name: ClassVar[str] = "easyref"

    stage: Annotated[str, Word(STAGES)]
    max_references: Annotated[int, Whole(1)] = 28
    truncate: Annotated[float, Number(0, 1)] = 0.4
    min_face_px: Annotated[float, Number(0)] = 32.0
    face_margin: Annotated[float, Number(0, 4)] = 0.49
    face_flip: Annotated[float, Number(0, 1)] = 0.5
    captioned: bool = False
    captions: Annotated[str | None, Word(TEXTS, none=True)] = None
    area_px: Annotated[int, Whole(1)] = 448 * 448
    random_crop: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    dropout: Dropout = field(default_factory=Dropout)

    def __post_init__(self) -> None:
        check_fields(self)

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        numbers = may_be_target(row)
        if not numbers:
            return NOT_ALLOWED
        if self.stage == "multi":
            numbers = [number for number in numbers if other_pictures(row, number, self.bounds)]
        if not numbers:
            return "no subject is seen on two pictures, within the bounds"
        captioned = (
            number
            for number in numbers
            if not self.captioned or row["pictures"][number]["captions"] or self._instructions(row, number)
        )
        return found(captioned, "no such picture has a caption")

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        row = sample.row
        drops = self.dropout.draw(rng)
        captions = row["pictures"][target]["captions"]
        instruction = taken(self._instructions(row, target), captions, self.captions, rng)
        text = instruction.text if instruction else caption(row, target, rng)
        frame = framed(row["pictures"][target], size, rng=rng if self.random_crop else None)
        pixels = frame.pixels(sample.pixels(target))
        counted = instruction.pictures if instruction else ()
        others = counted or tuple(self._others(row, target, rng))
        images = tuple(whole(sample, number, self.area_px) for number in others)
        return Example(
            row["sample_id"],
            pixels,
            text,
            (Reference(images or (self._own(sample, target, pixels, rng),)),),
            (None,),
            drops,
            frame.conditions(),
            instructed=instruction is not None,
            origins=(others or (None,),),
        )

    def _others(self, row: Row, target: int, rng: np.random.Generator) -> list[int]:
        """Numbers of the pictures that multi reads; of the other stages none."""
        if self.stage != "multi":
            return []
        others = rng.permutation(other_pictures(row, target, self.bounds))[: self.max_references]
        if len(others) > 2 and rng.random() < self.truncate:
            others = others[: int(rng.integers(2, len(others)))]
        return [int(number) for number in others]

    def _own(self, sample: Sample, target: int, crop: Pixels, rng: np.random.Generator) -> Pixels:
        """What the target gives of itself: a face in single where there is one, else its own crop."""
        faces = self._faces(sample.row, target) if self.stage == "single" else []
        if not faces:
            return shrunk(crop, self.area_px)
        chosen = faces[int(rng.integers(len(faces)))]
        return face(sample, chosen, rng, max_margin=self.face_margin, flip=self.face_flip, max_area_px=self.area_px)

    def _instructions(self, row: Row, target: int) -> list[Instruction]:
        if not self.captions:
            return []
        offered = other_pictures(row, target, self.bounds) if self.stage == "multi" else []
        return instructions_of(row, offered, self.max_references)

    def _faces(self, row: Row, picture: int) -> list[Seen]:
        """Appearances on a picture whose face is large enough."""
        large = []
        for seen in seen_on(row, picture, ALL_KINDS):
            found_face = appearance_of(row, seen)["face"]
            if found_face is not None:
                x0, y0, x1, y1 = found_face["box"]
                if min(x1 - x0, y1 - y0) >= self.min_face_px:
                    large.append(seen)
        return large
