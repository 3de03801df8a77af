"""IP-Adapter as a baseline: one reference picture, or several whose tokens are averaged (arXiv 2308.06721)."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.ranges import Whole, Word, check_fields
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.cutouts import whole
from refloom.training.views.example import Example
from refloom.training.views.frame import framed
from refloom.training.views.instructions import TEXTS, Instruction, instructions_of, taken
from refloom.training.views.subjects import Bounds, may_be_target, other_pictures
from refloom.training.views.view import View, found


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAdapter(View):
    """A captioned picture, seen through itself or through other pictures of its subjects.

    Attributes:
        references: most pictures of a reference.
        others: take other pictures that show a subject of the target where there are any; without, the target itself,
            as published.
        need_others: accept only targets that have some.
        captioned: accept only targets with a caption, or with an instruction that may be taken for one.
        captions: see `instructions.TEXTS`: instruction, any, or null for the target's captions alone.
        area_px: most pixels of a reference picture, before the encoder resizes it.
        random_crop: draw the place of the target's crop; the middle otherwise.
        bounds: of subjects and of pairs of their appearances.
        dropout: of conditions.
    """

    name: ClassVar[str] = "ip_adapter"

    references: Annotated[int, Whole(1)] = 1
    others: bool = True
    need_others: bool = False
    captioned: bool = True
    captions: Annotated[str | None, Word(TEXTS, none=True)] = None
    area_px: Annotated[int, Whole(1)] = 336 * 336
    random_crop: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    dropout: Dropout = field(default_factory=Dropout)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.need_others and not self.others:
            raise ValueError("need_others goes with others: set others=true, or need_others=false")

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        usable = [
            number for number in may_be_target(row) if not self.need_others or other_pictures(row, number, self.bounds)
        ]
        if not usable:
            return "no subject is seen on two pictures, within the bounds"
        captioned = (
            number
            for number in usable
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
        if instruction and instruction.pictures:
            chosen = list(instruction.pictures)
        else:
            chosen = [int(number) for number in rng.permutation(self._others(row, target))[: self.references]]
        images = tuple(whole(sample, number, self.area_px) for number in chosen or [target])
        return Example(
            row["sample_id"],
            frame.pixels(sample.pixels(target)),
            text,
            (Reference(images),),
            (None,),
            drops,
            frame.conditions(),
            instructed=instruction is not None,
            origins=(tuple(chosen) or (None,),),
        )

    def _others(self, row: Row, target: int) -> list[int]:
        return other_pictures(row, target, self.bounds) if self.others else []

    def _instructions(self, row: Row, target: int) -> list[Instruction]:
        return instructions_of(row, self._others(row, target), self.references) if self.captions else []
