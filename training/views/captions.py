"""Captions and which of them is taken; drops of conditions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from refloom.schemas.ranges import Number, check_fields
from refloom.training.data.sample import Row
from refloom.training.views.example import Drops

# bare statements for pictures that nobody described; EZIGen's training has thirty of the kind (spec A.3.1-8)
NEUTRAL = (
    "{}",
    "a photo of {}",
    "a photograph of {}",
    "a picture of {}",
    "an image of {}",
    "a snapshot of {}",
    "a shot of {}",
    "a view of {}",
    "a clear photo of {}",
    "a colour photograph of {}",
    "a photo that shows {}",
    "a picture with {} in it",
    "a scene with {}",
    "a frame with {}",
    "here is {}",
    "this is {}",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """Shares of examples whose conditions are dropped; text, image and both exclude each other.

    Attributes:
        text, image, both: of the caption alone, the references alone, both.
        grounding: of phrases and boxes, drawn apart from the others.
    """

    text: Annotated[float, Number(0, 1)] = 0.05
    image: Annotated[float, Number(0, 1)] = 0.05
    both: Annotated[float, Number(0, 1)] = 0.05
    grounding: Annotated[float, Number(0, 1)] = 0.0

    def __post_init__(self) -> None:
        rates = (self.text, self.image, self.both)
        check_fields(self)
        if sum(rates) > 1:
            raise ValueError(f"text, image and both are together at most 1, not {' + '.join(map(str, rates))}")

    def draw(self, rng: np.random.Generator) -> Drops:
        """One number for grounding, then one for the others (spec B.2.1)."""
        grounding = rng.random() < self.grounding
        drawn = rng.random()
        image = drawn < self.image
        text = self.image <= drawn < self.image + self.text
        both = self.image + self.text <= drawn < self.image + self.text + self.both
        return Drops(text=bool(text or both), image=bool(image or both), grounding=bool(grounding))


def caption(
    row: Row,
    picture: int,
    rng: np.random.Generator,
    *,
    among: Collection[int] | None = None,
    longest: bool = False,
) -> str:
    """A caption of a picture: one of them at random, or the longest; empty if it has none.

    Args:
        row: of the sample.
        picture: number of the picture.
        rng: of the sample.
        among: numbers of the captions to choose from; all by default.
        longest: as EZIGen takes them of COCO.
    """
    captions = row["pictures"][picture]["captions"] or []
    offered = [text for number, text in enumerate(captions) if among is None or number in among]
    if not offered:
        return ""
    if longest:
        return str(max(offered, key=len))
    return str(offered[int(rng.integers(len(offered)))])


def statement(words: Sequence[str], rng: np.random.Generator) -> str:
    """A neutral sentence around the names of subjects; they get an article."""
    named = [f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}" for word in words]
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return NEUTRAL[int(rng.integers(len(NEUTRAL)))].format(listed)
