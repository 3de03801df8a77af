"""The view of `base/tiny`: pictures and their captions, without references."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from refloom.schemas.ranges import Number
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.example import Example
from refloom.training.views.frame import framed
from refloom.training.views.subjects import may_be_target
from refloom.training.views.view import View, found


@dataclass(frozen=True, slots=True, kw_only=True)
class Base(View):
    """Every picture with a caption.

    Attributes:
        flip: share of targets that are mirrored; captions that say left and right then lie.
        random_crop: draw the place of the crop; the middle otherwise.
        dropout: of the caption.
    """

    name: ClassVar[str] = "base"

    flip: Annotated[float, Number(0, 1)] = 0.0
    random_crop: bool = False
    dropout: Dropout = field(default_factory=lambda: Dropout(text=0.1, image=0.0, both=0.0))

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        captioned = (number for number in may_be_target(row) if row["pictures"][number]["captions"])
        return found(captioned, "no picture has a caption")

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        picture = sample.row["pictures"][target]
        drops = self.dropout.draw(rng)
        text = caption(sample.row, target, rng)
        mirror = bool(rng.random() < self.flip)
        frame = framed(picture, size, rng=rng if self.random_crop else None, flip=mirror)
        pixels = frame.pixels(sample.pixels(target))
        return Example(sample.row["sample_id"], pixels, text, (), (), drops, frame.conditions())
