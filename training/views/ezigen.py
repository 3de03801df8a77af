"""EZIGen (arXiv 2409.08091; spec A.3): a subject cut out of one frame, and another frame that shows it."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np

from refloom.inference.adapters.reference import Reference
from refloom.schemas.ranges import Number, Whole, Word, check_fields
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Row, Sample
from refloom.training.views.captions import Dropout, caption, statement
from refloom.training.views.cutouts import Cutout, largest_part, mask_share
from refloom.training.views.example import Example
from refloom.training.views.frame import Frame, framed
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
    sides,
)
from refloom.training.views.view import View, found

_MARGINS = (1.1, 1.2, 1.3, 1.4)
"""Of the square over the subject's longer side."""
_ZOOMS = tuple(1.1 * (1.3 + 0.1 * step) for step in range(17))
"""Of the target's crop over the subject's box, which is first made a tenth larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EZIGen(View):
    """Several pictures give pairs of a target and another one; a picture alone gives cut-outs of its own subjects.

    The published loader pads a crop that leaves its frame with black and squashes whole pictures; here the crop keeps
    the aspect of its bucket and stays in the picture.

    Attributes:
        max_subjects: of a picture alone, the largest ones; published 4.
        paired_subjects: of a target with other pictures, each from any of these; published 1.
        forward: the subject comes from an earlier picture than the target, as published. This and `min_gap` are of
            samples where any picture may be the target: others are in no order of time.
        min_gap: pictures of the sample between the two, at least.
        min_area_px: of the mask of a subject of a picture alone.
        min_largest_part: of a reference's mask.
        zoom: crop pairs around the subject; the whole picture otherwise.
        longest_caption: of a picture alone, as published; any of them otherwise.
        neutral_caption: of pairs: a bare sentence around the subject's name, as published, even if there is a better.
        captions: see `instructions.TEXTS`: instruction, any, or null for the target's captions alone.
        cutout: how references are cut out.
        single_flip: share of cut-outs of a picture alone that are mirrored.
        min_mask_share, max_mask_share: mask over picture, on both pictures.
        bounds: further ones, of subjects and of the pair.
        dropout: of conditions. Published: image 0.8, by what is taken for an oversight.
    """

    name: ClassVar[str] = "ezigen"

    max_subjects: Annotated[int, Whole(1)] = 4
    paired_subjects: Annotated[int, Whole(1)] = 1
    forward: bool = False
    min_gap: Annotated[int, Whole(1)] = 1
    min_area_px: Annotated[float, Number(0)] = 1000.0
    min_largest_part: Annotated[float, Number(0, 1)] = 0.9
    zoom: bool = True
    longest_caption: bool = False
    neutral_caption: bool = False
    captions: Annotated[str | None, Word(TEXTS, none=True)] = None
    cutout: Cutout = field(default_factory=lambda: Cutout(side_px=512))
    single_flip: Annotated[float, Number(0, 1)] = 0.0
    min_mask_share: Annotated[float, Number(0, 1)] = 0.01
    max_mask_share: Annotated[float, Number(0, 1)] = 0.64
    bounds: Bounds = field(default_factory=Bounds)
    dropout: Dropout = field(default_factory=lambda: Dropout(text=0.0, image=0.2, both=0.0))

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_mask_share > self.max_mask_share:
            raise ValueError(f"min_mask_share {self.min_mask_share} is above max_mask_share {self.max_mask_share}")

    def targets(self, row: Row) -> list[int] | str:
        """See `View.targets`."""
        whole = {
            seen: self._is_whole(row, seen) for seen in {there for one in self._all(row) for _, there in one}
        }  # once a mask: it is decoded for this
        usable = [target for target in may_be_target(row) if any(whole[there] for _, there in self.pairs(row, target))]
        return found(usable, "no named subject in one piece is seen as the bounds ask for")

    def pairs(self, row: Row, target: int) -> list[Pair]:
        """Subjects on a target and where they may be cut out; whether they are in one piece is not looked at."""
        alone = len(row["pictures"]) == 1
        usable = [seen for seen in seen_on(row) if self._usable(row, seen)]
        here = [seen for seen in usable if seen.picture == target]
        if alone:
            return [(seen, seen) for seen in here if self._area(row, seen) >= self.min_area_px]
        return [
            (one, there)
            for one in here
            if not self._fills(row, one)
            for there in elsewhere(row, one, usable, self.bounds)
            if self._apart(row, there.picture, target) and not self._is_tiny(row, there)
        ]

    def example(self, sample: Sample, target: int, size: Size, rng: np.random.Generator) -> Example:
        """See `View.example`."""
        row = sample.row
        drops = self.dropout.draw(rng)
        alone = len(row["pictures"]) == 1
        instruction = taken(self._instructions(row, target), row["pictures"][target]["captions"], self.captions, rng)
        chosen = self._chosen(row, target, rng) if instruction is None else self._counted(row, target, instruction, rng)
        text = instruction.text if instruction else self._caption(row, target, [there for _, there in chosen], rng)
        seen = [appearance_of(row, one) for one, _ in chosen]
        frame = framed(row["pictures"][target], size)
        if self.zoom and not alone:
            frame = zoomed(frame, hull([one["box"] for one in seen]), _ZOOMS[int(rng.integers(len(_ZOOMS)))])
        references = []
        for _, there in chosen:
            margin = 1.0 if alone else _MARGINS[int(rng.integers(len(_MARGINS)))]
            image = self.cutout.of(sample, there, rng, margin=margin, flip=self.single_flip if alone else None)
            references.append(Reference((image,), name_of(row, there)))
        return Example(
            row["sample_id"],
            frame.pixels(sample.pixels(target)),
            text,
            tuple(references),
            tuple(frame.mask(one["mask"]) for one in seen),
            drops,
            frame.conditions(),
            instructed=instruction is not None,
            origins=origins_of(chosen),
        )

    def _chosen(self, row: Row, target: int, rng: np.random.Generator) -> list[Pair]:
        """Pairs of different subjects that are in one piece; there is at least one, or there is no target."""
        pairs = self.pairs(row, target)
        if len(row["pictures"]) == 1:
            pairs.sort(key=lambda pair: (-self._area(row, pair[0]), pair[0].subject))
            most = self.max_subjects
        else:
            pairs = [pairs[int(at)] for at in rng.permutation(len(pairs))]
            most = self.paired_subjects
        chosen: list[Pair] = []
        for one, there in pairs:
            known = {other.subject for other, _ in chosen}
            if len(chosen) < most and one.subject not in known and self._is_whole(row, there):
                chosen.append((one, there))
        return chosen

    def _instructions(self, row: Row, target: int) -> list[Instruction]:
        """Those whose pictures are one subject each, in one piece."""
        if not self.captions or not says_target(row):
            return []
        pairs = [pair for pair in self.pairs(row, target) if self._is_whole(row, pair[1])]
        fitting = instructions_of(row, {there.picture for _, there in pairs}, self.paired_subjects)
        return [one for one in fitting if assigned(one.pictures, pairs) is not None]

    def _counted(self, row: Row, target: int, instruction: Instruction, rng: np.random.Generator) -> list[Pair]:
        """The pairs that an instruction counts, in its order; any where it counts none."""
        pairs = [pair for pair in self.pairs(row, target) if self._is_whole(row, pair[1])]
        return assigned(instruction.pictures, pairs, rng) or self._chosen(row, target, rng)

    def _caption(self, row: Row, target: int, seen: list[Seen], rng: np.random.Generator) -> str:
        picture, alone = row["pictures"][target], len(row["pictures"]) == 1
        told = picture["caption_from"] in ("source", "model") and bool(picture["captions"])
        if told and (alone or not self.neutral_caption):
            return caption(row, target, rng, longest=alone and self.longest_caption)
        return statement([str(name_of(row, one)) for one in seen], rng)

    def _all(self, row: Row) -> list[list[Pair]]:
        return [self.pairs(row, target) for target in may_be_target(row)]

    def _usable(self, row: Row, seen: Seen) -> bool:
        return (
            bool(name_of(row, seen))
            and appearance_of(row, seen)["mask"] is not None
            and self.bounds.allow(row, seen)
            and self.min_mask_share <= mask_share(row, seen) <= self.max_mask_share
        )

    def _area(self, row: Row, seen: Seen) -> float:
        picture = row["pictures"][seen.picture]
        return mask_share(row, seen) * float(picture["width"] * picture["height"])

    def _apart(self, row: Row, origin: int, target: int) -> bool:
        if says_target(row):
            return True
        gap = target - origin
        return gap >= self.min_gap if self.forward else abs(gap) >= self.min_gap

    def _is_tiny(self, row: Row, seen: Seen) -> bool:
        """Under a tenth of the picture both ways."""
        width, height = sides(appearance_of(row, seen)["box"])
        picture = row["pictures"][seen.picture]
        return bool(width < 0.1 * picture["width"] and height < 0.1 * picture["height"])

    def _fills(self, row: Row, seen: Seen) -> bool:
        """Over eight tenths of the picture both ways, a tenth of margin included."""
        width, height = sides(appearance_of(row, seen)["box"])
        picture = row["pictures"][seen.picture]
        return bool(1.1 * width > 0.8 * picture["width"] and 1.1 * height > 0.8 * picture["height"])

    def _is_whole(self, row: Row, seen: Seen) -> bool:
        appearance = appearance_of(row, seen)
        return largest_part(appearance["mask"], appearance["box"]) >= self.min_largest_part


def zoomed(frame: Frame, box: np.ndarray, zoom: float) -> Frame:
    """A crop of the same aspect around a box, its sides at least `zoom` times the box's, inside the picture.

    Args:
        frame: the largest crop of that aspect.
        box: (4,) xyxy, pixels.
        zoom: 1 or more; as large as the picture allows if that is less.
    """
    full_width, full_height = frame.rect[2] - frame.rect[0], frame.rect[3] - frame.rect[1]
    width, height = sides(box)
    side = zoom * max(width, height)  # the crop's shorter side, as of the published square
    scale = min(1.0, side / min(full_width, full_height))
    part = (max(1, round(full_height * scale)), max(1, round(full_width * scale)))
    corner = []
    for low, high, size, whole in ((box[1], box[3], part[0], 0), (box[0], box[2], part[1], 1)):
        start = round(float(low + high - size) / 2)
        corner.append(min(max(start, 0), frame.picture[whole] - size))
    y0, x0 = corner
    return Frame(frame.picture, (x0, y0, x0 + part[1], y0 + part[0]), frame.size, frame.flip)
