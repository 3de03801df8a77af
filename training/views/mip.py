"""MIP-Adapter (arXiv 2409.17920; spec B3.2 and B3.3): a picture of several subjects, their cut-outs, their phrases."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Annotated, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Rejected
from refloom.schemas.ranges import Number, Whole, Word, check_fields
from refloom.schemas.words import occurrences
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.cutouts import Cutout
from refloom.training.views.example import Example
from refloom.training.views.frame import framed
from refloom.training.views.instructions import TEXTS, Instruction, assigned, instructions_of, taken
from refloom.training.views.subjects import (
    Bounds,
    Pair,
    Seen,
    appearance_of,
    elsewhere,
    hull,
    may_be_target,
    name_of,
    origins_of,
    says_target,
    seen_on,
    shared,
    sides,
)
from refloom.training.views.view import View, found

_MOST_CANDIDATES = 8

Choice = tuple[tuple[Seen, ...], tuple[int, ...]]
"""Subjects that are put together, and the numbers of the captions that name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MIP(View):
    """Subjects of one picture; which of them is drawn, so that every epoch can see others.

    Published are cut-outs of the target itself, which teach copying. A sample that says its target (cross, records) has
    other pictures of its subjects: there each reference is drawn from these, and targets whose subjects all have some
    are preferred to cut-outs of the target.

    Attributes:
        subjects: of an example; published 2.
        cut_from: target, for cut-outs of the target itself in all samples; others, for other pictures in all samples,
            of which those without are not accepted; null as the class says.
        max_shared: of two boxes, intersection over the smaller one.
        mentioned: all subjects' phrases must be found in one caption, which is then taken; published. Without, phrases
            need not be in the caption, nor need there be one. It holds for instructions as for captions.
        captions: see `instructions.TEXTS`: instruction, any, or null for the target's captions alone.
        single_words: take only phrases of one word, as published.
        min_mip_s: of the sample's score; None asks nothing.
        cutout: how references are cut out.
        bounds: of subjects, on other pictures too, and of pairs. Published: box 0.08 to 0.7 of the picture, aspect up
            to 3, confidence above 0.3.
        dropout: of conditions.
    """

    name: ClassVar[str] = "mip"

    subjects: Annotated[int, Whole(1, _MOST_CANDIDATES)] = 2
    cut_from: Annotated[str | None, Word(("target", "others"), none=True)] = None
    max_shared: Annotated[float, Number(0, 1)] = 0.8
    mentioned: bool = True
    captions: Annotated[str | None, Word(TEXTS, none=True)] = None
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
        usable = (
            number for number in may_be_target(row) if self.choices(row, number) or self._instructions(row, number)
        )
        return found(usable, f"no picture has {self.subjects} such subjects")

    def choices(self, row: Row, picture: int) -> list[Choice]:
        """The subjects that may be put together on a picture, each time with the captions that name them all."""
        out = []
        for together in self._together(row, picture):
            captions = self._captions(row, picture, together)
            if captions is not None:
                out.append((together, captions))
        return [one for one in out if all(self._origins(row, seen) for seen in one[0])] or out

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        row, picture = sample.row, sample.row["pictures"][target]
        drops = self.dropout.draw(rng)
        choices = self.choices(row, target)
        picked = taken(self._instructions(row, target), choices, self.captions, rng)
        if picked is None:
            together, captions = choices[int(rng.integers(len(choices)))]
            text = caption(row, target, rng, among=captions if self.mentioned else None)
        else:
            (together, _), text = picked[0], picked[1].text
        seen = [appearance_of(row, one) for one in together]
        frame = framed(picture, size, rng=rng, keep=hull([one["box"] for one in seen]))
        if not frame.boxes([one["box"] for one in seen]).any(axis=1).all():
            raise Rejected("no_subject", "a subject is outside the crop")
        pairs = self._pairs(row, together, picked[1].pictures if picked else (), rng)
        original = picture["original_size"] or (picture["height"], picture["width"])
        return Example(
            row["sample_id"],
            frame.pixels(sample.pixels(target)),
            text,
            tuple(Reference((self.cutout.of(sample, there, rng),), name_of(row, there)) for _, there in pairs),
            tuple(frame.mask(appearance_of(row, one)["mask"]) for one, _ in pairs),
            drops,
            frame.conditions((int(original[0]), int(original[1]))),
            instructed=picked is not None,
            origins=origins_of(pairs),
        )

    def _pairs(
        self, row: Row, together: Sequence[Seen], counted: tuple[int, ...], rng: np.random.Generator
    ) -> list[Pair]:
        """Of each subject where it is cut out: in the order of what an instruction counts, else drawn."""
        if counted:
            return assigned(counted, self._offered(row, together), rng) or []
        pairs = []
        for one in together:
            origins = self._origins(row, one)
            pairs.append((one, origins[int(rng.integers(len(origins)))] if origins else one))
        return pairs

    def _instructions(self, row: Row, picture: int) -> list[tuple[Choice, Instruction]]:
        """Instructions with subjects that may be put together, and that stand for the pictures which it counts."""
        if not self.captions or not says_target(row):
            return []
        out: list[tuple[Choice, Instruction]] = []
        for together in self._together(row, picture):
            pairs = self._offered(row, together)
            for one in instructions_of(row, {there.picture for _, there in pairs}, self.subjects):
                named = all(occurrences(one.text, str(name_of(row, seen))) for seen in together)
                fits = not one.pictures or (
                    len(one.pictures) == self.subjects and assigned(one.pictures, pairs) is not None
                )
                if fits and (named or not self.mentioned):
                    out.append(((together, ()), one))
        return out

    def _offered(self, row: Row, together: Sequence[Seen]) -> list[Pair]:
        return [(one, there) for one in together for there in self._origins(row, one)]

    def _origins(self, row: Row, one: Seen) -> list[Seen]:
        """Where else than on the target a subject may be cut out."""
        if self.cut_from == "target" or (self.cut_from is None and not says_target(row)):
            return []
        usable = [seen for seen in seen_on(row) if seen.subject == one.subject and self._usable(row, seen)]
        return elsewhere(row, one, usable, self.bounds)

    def _together(self, row: Row, picture: int) -> list[tuple[Seen, ...]]:
        """Subjects that may be put together on a picture.

        They have different phrases, do not cover each other, and fit into a square of the picture's shorter side, so
        that no crop loses one.
        """
        candidates = [seen for seen in seen_on(row, picture) if self._usable(row, seen)]
        if self.cut_from == "others":
            candidates = [seen for seen in candidates if self._origins(row, seen)]
        candidates.sort(
            key=lambda seen: (not self._origins(row, seen), -(appearance_of(row, seen)["confidence"] or 0.0))
        )
        return [
            together
            for together in combinations(candidates[:_MOST_CANDIDATES], self.subjects)
            if len({str(name_of(row, seen)).lower() for seen in together}) == len(together)
            and self._fit(row, picture, together)
        ]

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
        """Captions that name all; none if nothing is asked for; None if no caption does."""
        if not self.mentioned:
            return ()
        common: set[int] | None = None
        for seen in together:
            own = {one["caption"] for one in row["subjects"][seen.subject]["mentions"] if one["picture"] == picture}
            common = own if common is None else common & own
        return tuple(sorted(common)) if common else None
