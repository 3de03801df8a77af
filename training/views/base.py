"""The view of bases: pictures and their captions, and for an image encoder one subject seen twice."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.ranges import Number, Whole
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Pixels, Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.cutouts import Cutout, whole
from refloom.training.views.example import Example
from refloom.training.views.frame import framed
from refloom.training.views.subjects import Seen, may_be_target, seen_on
from refloom.training.views.view import View, found


@dataclass(frozen=True, slots=True, kw_only=True)
class Base(View):
    """Every picture with a caption.

    Attributes:
        flip: share of targets that are mirrored; captions that say left and right then lie.
        random_crop: draw the place of the crop; the middle otherwise.
        twice: accept only targets that show a subject of another picture, too, and take that subject from both as a
            reference of two images: on white, on black, with what its box holds, or, where it is the only one, as the
            whole picture.
        look_px: side of these images; of a whole picture that of a square as large.
        dropout: of the caption.
    """

    name: ClassVar[str] = "base"

    flip: Annotated[float, Number(0, 1)] = 0.0
    random_crop: bool = False
    twice: bool = False
    look_px: Annotated[int, Whole(8, 8192)] = 64
    dropout: Dropout = field(default_factory=lambda: Dropout(text=0.1, image=0.0, both=0.0))

    def settings(self) -> dict[str, Any]:
        """See `View.settings`; without looks it is what it was before there were any, so that older runs go on."""
        said = View.settings(self)
        return said if self.twice else {key: said[key] for key in said if key not in ("twice", "look_px")}

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        captioned = [number for number in may_be_target(row) if row["pictures"][number]["captions"]]
        if not self.twice or not captioned:
            return found(captioned, "no picture has a caption")
        return found((number for number in captioned if _pairs(row, number)), "no subject is seen on two pictures")

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        picture = sample.row["pictures"][target]
        drops = self.dropout.draw(rng)
        text = caption(sample.row, target, rng)
        mirror = bool(rng.random() < self.flip)
        frame = framed(picture, size, rng=rng if self.random_crop else None, flip=mirror)
        pixels = frame.pixels(sample.pixels(target))
        looks = (Reference(self._looks(sample, target, rng)),) if self.twice else ()
        masks = (None,) * len(looks)
        return Example(sample.row["sample_id"], pixels, text, looks, masks, drops, frame.conditions())

    def _looks(self, sample: Sample, target: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """A subject of the target, there and on another picture, each (look_px, look_px, 3)."""
        pairs = _pairs(sample.row, target)
        here, there = pairs[int(rng.integers(len(pairs)))]
        return self._look(sample, here, rng), self._look(sample, there, rng)

    def _look(self, sample: Sample, seen: Seen, rng: np.random.Generator) -> Pixels:
        alone = len(list(seen_on(sample.row, seen.picture))) == 1
        if (way := int(rng.integers(4))) == 3 and alone:
            return whole(sample, seen.picture, self.look_px**2)
        masked, ground = ((True, 255), (True, 0), (False, 255), (False, 255))[way]
        return Cutout(side_px=self.look_px, ground=ground, masked=masked).of(sample, seen, rng)


def _pairs(row: Row, target: int) -> list[tuple[Seen, Seen]]:
    """Of each subject of a picture all pairs of its appearance there and one on another picture."""
    return [
        (here, there)
        for here in seen_on(row, target)
        for there in seen_on(row)
        if there.subject == here.subject and there.picture != target
    ]
