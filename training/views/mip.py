"""MIP-Adapter (arXiv 2409.17920; spec B3.2 and B3.3): a picture of several subjects, their cut-outs, their phrases."""

from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Rejected
from refloom.schemas.ranges import Number, Whole, check_fields
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.cutouts import Cutout
from refloom.training.views.example import Example
from refloom.training.views.frame import framed
from refloom.training.views.subjects import Bounds, Seen, appearance_of, hull, name_of, seen_on, shared, sides
from refloom.training.views.view import View, found

_MOST_CANDIDATES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MIP(View):
    """Subjects of one picture; which of them is drawn, so that every epoch can see others.

    Attributes:
        subjects: of an example; published 2.
        max_shared: of two boxes, intersection over the smaller one.
        mentioned: all subjects' phrases must be found in one caption, which is then taken; published. Without, phrases
            need not be in the caption, nor need there be one.
        single_words: take only phrases of one word, as published.
        min_mip_s: of the sample's score; None asks nothing.
        cutout: how references are cut out.
        bounds: of subjects. Published: box 0.08 to 0.7 of the picture, aspect up to 3, confidence above 0.3.
        dropout: of conditions.
    """

    name: ClassVar[str] = "mip"

    subjects: Annotated[int, Whole(1, _MOST_CANDIDATES)] = 2
    max_shared: Annotated[float, Number(0, 1)] = 0.8
    mentioned: bool = True
    single_words: bool = False
    min_mip_s: Annotated[float | None, Number(-2, 2, none=True)] = None
    cutout: Cutout = field(default_factory=Cutout)
    bounds: Bounds = field(
        default_factory=lambda: Bounds(min_confidence=0.3, min_box_share=0.08, max_box_share=0.7, max_aspect=3.0)
    )
    dropout: Dropout = field(default_factory=Dropout)

    def __post_init__(self) -> None:
        check_fields(self)

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        score = row["scores"]["mip_s"]
        if self.min_mip_s is not None and (score is None or score < self.min_mip_s):
            return "mip_s is too low or unknown"
        usable = (number for number in range(len(row["pictures"])) if self.choices(row, number))
        return found(usable, f"no picture has {self.subjects} such subjects")

    def choices(self, row: Row, picture: int) -> list[tuple[tuple[Seen, ...], tuple[int, ...]]]:
        """The subjects that may be put together on a picture, each time with the captions that name them all.

        They have different phrases, do not cover each other, and fit into a square of the picture's shorter side, so
        that no crop loses one.
        """
        candidates = [seen for seen in seen_on(row, picture) if self._usable(row, seen)]
        candidates.sort(key=lambda seen: -(appearance_of(row, seen)["confidence"] or 0.0))
        out = []
        for together in combinations(candidates[:_MOST_CANDIDATES], self.subjects):
            captions = self._captions(row, picture, together)
            if captions is not None and self._fit(row, picture, together):
                out.append((together, captions))
        return out

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        row, picture = sample.row, sample.row["pictures"][target]
        drops = self.dropout.draw(rng)
        choices = self.choices(row, target)
        together, captions = choices[int(rng.integers(len(choices)))]
        text = caption(row, target, rng, among=captions if self.mentioned else None)
        seen = [appearance_of(row, one) for one in together]
        frame = framed(picture, size, rng=rng, keep=hull([one["box"] for one in seen]))
        if not frame.boxes([one["box"] for one in seen]).any(axis=1).all():
            raise Rejected("no_subject", "a subject is outside the crop")
        references = tuple(Reference((self.cutout.of(sample, one, rng),), name_of(row, one)) for one in together)
        original = picture["original_size"] or (picture["height"], picture["width"])
        return Example(
            row["sample_id"],
            frame.pixels(sample.pixels(target)),
            text,
            references,
            tuple(frame.mask(one["mask"]) for one in seen),
            drops,
            frame.conditions((int(original[0]), int(original[1]))),
        )

    def _usable(self, row: Row, seen: Seen) -> bool:
        phrase = name_of(row, seen)
        return (
            bool(phrase)
            and not (self.single_words and " " in str(phrase))
            and (appearance_of(row, seen)["mask"] is not None or not self.cutout.masked)
            and self.bounds.allow(row, seen)
        )

    def _fit(self, row: Row, picture: int, together: tuple[Seen, ...]) -> bool:
        boxes = [appearance_of(row, seen)["box"] for seen in together]
        if any(shared(one, other) > self.max_shared for one, other in combinations(boxes, 2)):
            return False
        side = min(row["pictures"][picture]["width"], row["pictures"][picture]["height"])
        return bool(max(sides(hull(boxes))) <= side)

    def _captions(self, row: Row, picture: int, together: tuple[Seen, ...]) -> tuple[int, ...] | None:
        """Captions that name all; none if nothing is asked for; None if these subjects do not go together."""
        names = [str(name_of(row, seen)).lower() for seen in together]
        if len(set(names)) < len(names):
            return None
        if not self.mentioned:
            return ()
        common: set[int] | None = None
        for seen in together:
            own = {one["caption"] for one in row["subjects"][seen.subject]["mentions"] if one["picture"] == picture}
            common = own if common is None else common & own
        return tuple(sorted(common)) if common else None
