"""Casting: which subjects a picture gets, and where in its place each of them stands."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refloom.ingest.sampledata import backdrops, cutouts, scenes, subjects
from refloom.ingest.sampledata.backdrops import Backdrop
from refloom.ingest.sampledata.cutouts import Cutout
from refloom.ingest.sampledata.scenes import Picture, Placed
from refloom.ingest.sampledata.solids import Pose
from refloom.ingest.sampledata.subjects import Placement, Subject, Toy

_TRIES = 14
_Rng = np.random.Generator
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What kind of pictures a tree wants.

    Attributes:
        code: first number of the tree's seeds.
        sizes: (width, height) to choose from.
        fewest, most: subjects set into a place.
        view_share: of pictures whose place is one photograph.
        real_share: of the others, with a real subject.
        crowd_share: of those, with a crowd.
        blurred: hide faces.
    """

    code: int
    sizes: tuple[tuple[int, int], ...]
    fewest: int
    most: int
    view_share: float
    real_share: float
    crowd_share: float = 0.0
    blurred: bool = False


@dataclass(frozen=True, slots=True)
class Still:
    """A picture, its place, and its bytes."""

    picture: Picture
    backdrop: Backdrop
    jpeg: bytes


def still(brief: Brief, seed: int, index: int, *, held_out: bool, only: Subject | None = None) -> Still:
    """Picture `index` of a tree: a pure function of the arguments.

    Args:
        brief: of the tree.
        seed: of the whole.
        index: in the tree.
        held_out: side of the split.
        only: the one subject that it shows, instead of a cast.
    """
    rng = np.random.default_rng([seed, brief.code, index])
    width, height = brief.sizes[int(rng.integers(len(brief.sizes)))]
    if only is None and rng.random() < brief.view_share:
        backdrop = backdrops.view(rng, width, height, held_out=held_out, blurred=brief.blurred)
        real = None
    else:
        real = _real(rng, held_out) if only is None and rng.random() < brief.real_share else None
        table = True if real is not None and real.stands == "bottom" and rng.random() < 0.6 else None
        backdrop = backdrops.place(rng, width, height, table=table)
    count = int(rng.integers(brief.fewest, brief.most + 1))
    toys = [subjects.draw_toy(rng, seed, index, held_out=held_out) for _ in range(count)]
    cast: list[Subject] = [only] if only is not None else [*([real] if real is not None else []), *_different(toys)]
    crowding = float(rng.choice([0.08, 0.25, 0.45]))
    placed = settle(rng, backdrop, cast, crowding=crowding, rim=0.04 if only is None else 0.25)
    if backdrop.ground is not None and real is None and rng.random() < brief.crowd_share:
        placed += _crowd(rng, backdrop, subjects.draw_toy(rng, seed, index, held_out=held_out))
    picture = scenes.compose(backdrop, placed, scenes.light_for(backdrop, rng), blurred=brief.blurred)
    return Still(picture, backdrop, scenes.finish(picture.pixels, rng))


def _real(rng: _Rng, held_out: bool) -> Cutout:
    choices = cutouts.placeable(held_out=held_out)
    return choices[int(rng.integers(len(choices)))]


def _different(toys: list[Toy]) -> list[Toy]:
    """Each identity once: a thing is not in two places of one picture."""
    return list({toy.number: toy for toy in toys}.values())


def _crowd(rng: _Rng, backdrop: Backdrop, toy: Toy) -> list[Placed]:
    """A heap of small things of one kind, far back."""
    assert backdrop.ground is not None  # the caller has looked
    height, width = backdrop.pixels.shape[:2]
    first, last = backdrop.ground
    middle = float(rng.uniform(0.2, 0.8)) * width
    tall = height * float(rng.uniform(0.07, 0.11))
    crowd = []
    for _ in range(int(rng.integers(5, 10))):
        y = first + 0.22 * (last - first) * float(rng.random())
        x = middle + float(rng.normal(0, 1.1)) * tall
        pose = Pose(float(rng.uniform(*toy.shape.yaws)), backdrop.pitch_at(y), 0.0)
        crowd.append(Placed(toy, Placement(x, y, scale_for(toy, pose, tall), pose), crowd=True))
    return crowd


def settle(
    rng: _Rng,
    backdrop: Backdrop,
    cast: Sequence[Subject],
    *,
    tallest: float | None = None,
    crowding: float = 0.3,
    rim: float = 0.04,
) -> list[Placed]:
    """Find places for subjects: on the ground, larger ones nearer, not too much behind each other.

    Args:
        rng: chooses.
        backdrop: where.
        cast: who; one that finds no place is left out.
        tallest: height of the tallest, in picture heights; chosen if None.
        crowding: share of a subject that others may hide.
        rim: share of the picture's width, left and right, in which no foot may stand.
    """
    height, width = backdrop.pixels.shape[:2]
    tallest = float(rng.uniform(0.34, 0.8)) if tallest is None else tallest
    placed: list[Placed] = []
    boxes: list[_Box] = []
    for subject in cast:
        share = tallest if not placed else tallest * float(rng.uniform(0.35, 0.95))
        for attempt in range(_TRIES):
            one = _somewhere(rng, backdrop, subject, share * height * (1 - attempt / (2 * _TRIES)), rim)
            if one is None:
                break
            box = picture_box(one)
            if _inside(box, width, height) >= 0.6 and all(_overlap(box, other) <= crowding for other in boxes):
                placed.append(one)
                boxes.append(box)
                break
    return placed


def _somewhere(rng: _Rng, backdrop: Backdrop, subject: Subject, tall_px: float, rim: float) -> Placed | None:
    """One place for a subject that would be about so tall, or None if the backdrop has none for it."""
    height, width = backdrop.pixels.shape[:2]
    x = float(rng.uniform(rim, 1 - rim)) * width
    mirrored = bool(rng.random() < 0.5)
    if isinstance(subject, Cutout):
        pose = Pose(float(rng.uniform(-0.45, 0.45)), 0.0, float(rng.normal(0, 0.03)))
        if subject.stands == "bottom":
            behind = backdrop.table_y is not None
            foot = backdrop.table_y if backdrop.table_y is not None else 1.02 * height
            tall_px = max(tall_px, 0.62 * foot) if not behind else 0.92 * foot
            flat = Pose(pose.yaw, 0.0, 0.0) if behind else pose
            return Placed(subject, Placement(x, foot, tall_px, flat, mirrored), grounded=False, behind=behind)
    else:
        pose = Pose(float(rng.uniform(*_yaws(subject))), 0.0, float(rng.normal(0, 0.02)))
    if isinstance(subject, Toy) and subject.shape.flies and (backdrop.ground is None or rng.random() < 0.35):
        y = float(rng.uniform(0.2, 0.6)) * height
        flying = Pose(pose.yaw, float(rng.uniform(-0.4, 0.2)), float(rng.normal(0, 0.2)))
        return Placed(subject, Placement(x, y, scale_for(subject, flying, tall_px), flying), grounded=False)
    if backdrop.ground is None:
        return None
    # things of one size look larger the nearer, that is the lower in the picture, they stand
    first, last = backdrop.ground
    nearness = float(np.clip(tall_px / (0.75 * height * min(1.0, subject.size)), 0, 1))
    y = float(np.clip(first + (last - first) * (nearness**1.2 + rng.normal(0, 0.05)), first, 1.03 * last))
    if isinstance(subject, Toy):
        pose = Pose(pose.yaw, backdrop.pitch_at(y), pose.roll)
    return Placed(subject, Placement(x, y, scale_for(subject, pose, tall_px), pose, mirrored))


def _yaws(subject: Subject) -> tuple[float, float]:
    return subject.shape.yaws if isinstance(subject, Toy) else (-0.4, 0.4)


def scale_for(subject: Subject, pose: Pose, tall_px: float) -> float:
    """Pixels per unit at which the mean of the subject's height and width is so many pixels."""
    left, bottom, right, top = subject.extent(pose, mirrored=False)
    return 2 * tall_px / (right - left + top - bottom)


def picture_box(one: Placed) -> _Box:
    """The box (xyxy, pixels) of a placed subject, hidden or not."""
    left, bottom, right, top = one.subject.extent(one.at.pose, mirrored=one.at.mirrored)
    scale = one.at.px_per_unit
    return one.at.x + scale * left, one.at.y - scale * top, one.at.x + scale * right, one.at.y - scale * bottom


def _inside(box: _Box, width: int, height: int) -> float:
    """Share of a box that lies in the picture."""
    return _shared(box, (0, 0, width, height)) / max(1e-6, (box[2] - box[0]) * (box[3] - box[1]))


def _overlap(a: _Box, b: _Box) -> float:
    """Shared area over that of the smaller box."""
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return _shared(a, b) / max(1e-6, smaller)


def _shared(a: _Box, b: _Box) -> float:
    sides = (min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1]))
    return max(0.0, sides[0]) * max(0.0, sides[1])
