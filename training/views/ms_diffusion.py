"""MS-Diffusion (arXiv 2406.07209; spec B.2): a frame with boxes and phrases, its subjects cut out of another frame."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.ranges import Number, Whole, Word, check_fields
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout, caption
from refloom.training.views.cutouts import Cutout
from refloom.training.views.example import Example
from refloom.training.views.frame import Frame, framed
from refloom.training.views.instructions import TEXTS, Instruction, assigned, instructions_of, taken
from refloom.training.views.subjects import (
    Bounds,
    Pair,
    Seen,
    appearance_of,
    box_share,
    elsewhere,
    hull,
    may_be_target,
    name_of,
    origins_of,
    says_target,
    seen_on,
)
from refloom.training.views.view import View, found


@dataclass(frozen=True, slots=True, kw_only=True)
class MSDiffusion(View):
    """A target and up to four of its subjects, all from one other picture of the sample, as published.

    A sample that says its target (cross, records) has its subjects on pictures of their own: there each is drawn from
    any of these.

    Attributes:
        max_subjects: of an example; the largest on the target are taken. Published 4.
        same_picture: a sample of one picture gives cut-outs of the target itself.
        captioned: accept only targets with a caption, or with an instruction that may be taken for one.
        captions: see `instructions.TEXTS`: instruction, any, or null for the target's captions alone.
        min_visible: share of a subject's box that must be in the crop.
        flip: share of targets that are mirrored with their boxes; captions that say left and right then lie.
        random_crop: draw the place of the crop; the middle otherwise, as published.
        cutout: how references are cut out. Published: on black, never mirrored.
        bounds: of subjects on both pictures, and of the pair.
        dropout: of conditions.
    """

    name: ClassVar[str] = "ms_diffusion"

    max_subjects: Annotated[int, Whole(1)] = 4
    same_picture: bool = False
    captioned: bool = True
    captions: Annotated[str | None, Word(TEXTS, none=True)] = None
    min_visible: Annotated[float, Number(0, 1, above=True)] = 0.5
    flip: Annotated[float, Number(0, 1)] = 0.0
    random_crop: bool = False
    cutout: Cutout = field(default_factory=lambda: Cutout(side_px=512, flip=0.0))
    bounds: Bounds = field(default_factory=lambda: Bounds(min_box_share=0.01, max_box_share=0.8))
    dropout: Dropout = field(default_factory=lambda: Dropout(grounding=0.1))

    def __post_init__(self) -> None:
        check_fields(self)

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        usable = [number for number in may_be_target(row) if self.pairs(row, number)]
        if not usable:
            return "no named subject is seen on two pictures, within the bounds"
        captioned = (
            number
            for number in usable
            if not self.captioned or row["pictures"][number]["captions"] or self._instructions(row, number)
        )
        return found(captioned, "no such picture has a caption")

    def pairs(self, row: Row, target: int) -> dict[int, list[Pair]]:
        """Of each picture that references may come from, the subjects there and on the target."""
        usable = [seen for seen in seen_on(row) if self._usable(row, seen)]
        here = [seen for seen in usable if seen.picture == target]
        itself = self.same_picture and len(row["pictures"]) == 1
        out: dict[int, list[Pair]] = {}
        for one in here:
            own = [seen for seen in here if seen.subject == one.subject]
            for there in own if itself else elsewhere(row, one, usable, self.bounds):
                out.setdefault(there.picture, []).append((one, there))
        return out

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        row = sample.row
        drops, captions = self.dropout.draw(rng), row["pictures"][target]["captions"]
        instruction = taken(self._instructions(row, target), captions, self.captions, rng)
        text = instruction.text if instruction else caption(row, target, rng)
        chosen = self._chosen(row, target, instruction.pictures if instruction else (), rng)
        frame = self._frame(row, target, size, [one for one, _ in chosen], rng)
        visible = self._visible(row, frame, [one for one, _ in chosen])
        if instruction and instruction.pictures and len(visible) < len(chosen):
            instruction, text = None, caption(row, target, rng)  # it counts a subject that the crop has lost
        chosen = [chosen[at] for at in visible]
        seen = [appearance_of(row, one) for one, _ in chosen]
        references = tuple(
            Reference((self.cutout.of(sample, there, rng),), name_of(row, there), (tuple(map(float, box)),))
            for (_, there), box in zip(chosen, frame.boxes([one["box"] for one in seen]), strict=True)
        )
        return Example(
            row["sample_id"],
            frame.pixels(sample.pixels(target)),
            text,
            references,
            tuple(frame.mask(one["mask"]) for one in seen),
            drops,
            frame.conditions(),
            instructed=instruction is not None,
            origins=origins_of(chosen),
        )

    def _chosen(self, row: Row, target: int, counted: tuple[int, ...], rng: np.random.Generator) -> list[Pair]:
        """The largest subjects with where they are cut out; or those that an instruction counts, in its order."""
        pairs = self.pairs(row, target)
        if counted:
            return assigned(counted, _listed(pairs), rng) or []
        if says_target(row):
            by_subject: dict[int, list[Pair]] = {}
            for pair in _listed(pairs):
                by_subject.setdefault(pair[0].subject, []).append(pair)
            drawn = [many[int(rng.integers(len(many)))] for many in by_subject.values()]
        else:
            drawn = pairs[sorted(pairs)[int(rng.integers(len(pairs)))]]
        return sorted(drawn, key=lambda pair: -box_share(row, pair[0]))[: self.max_subjects]

    def _instructions(self, row: Row, target: int) -> list[Instruction]:
        """Those whose pictures are one subject each."""
        if not self.captions or not says_target(row):
            return []
        pairs = self.pairs(row, target)
        fitting = instructions_of(row, pairs, self.max_subjects)
        return [one for one in fitting if assigned(one.pictures, _listed(pairs)) is not None]

    def _usable(self, row: Row, seen: Seen) -> bool:
        return bool(name_of(row, seen)) and self.bounds.allow(row, seen)

    def _frame(self, row: Row, target: int, size: Size, seen: list[Seen], rng: np.random.Generator) -> Frame:
        """A crop that holds all subjects where it can, else the largest one."""
        boxes = [appearance_of(row, one)["box"] for one in seen]
        mirror = bool(rng.random() < self.flip)
        drawn = rng if self.random_crop else None
        picture = row["pictures"][target]
        frame = framed(picture, size, rng=drawn, keep=hull(boxes), flip=mirror)
        if len(self._visible(row, frame, seen)) < len(seen):
            frame = framed(picture, size, rng=drawn, keep=boxes[0], flip=mirror)
        return frame

    def _visible(self, row: Row, frame: Frame, seen: list[Seen]) -> list[int]:
        """Which subjects are in the crop; the largest one always is."""
        x0, y0, x1, y1 = frame.rect
        part = (x1 - x0) * (y1 - y0) / (frame.picture[0] * frame.picture[1])
        boxes = frame.boxes([appearance_of(row, one)["box"] for one in seen])
        shares = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * part
        return [
            at
            for at, (one, share) in enumerate(zip(seen, shares, strict=True))
            if share > 0 and (at == 0 or share >= self.min_visible * box_share(row, one))
        ]


def _listed(pairs: dict[int, list[Pair]]) -> list[Pair]:
    """All pairs in the order of the pictures that references come from."""
    return [pair for origin in sorted(pairs) for pair in pairs[origin]]
