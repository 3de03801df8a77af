"""Albums: one cast of toys in several places, small and simple, so that a model of minutes can learn to make them.

A picture shows one toy or two, large and whole, on a floor before a wall. The caption names kinds, number and place,
and never what tells two toys of a kind apart.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import cv2
import numpy as np

from refloom.ingest.sampledata import backdrops, photos, scenes, subjects, toys
from refloom.ingest.sampledata.backdrops import Backdrop
from refloom.ingest.sampledata.photos import Place
from refloom.ingest.sampledata.scenes import Picture, Placed
from refloom.ingest.sampledata.solids import Pose
from refloom.ingest.sampledata.subjects import Placement, Toy
from refloom.schemas import pictures

KINDS = tuple(toys.KINDS)
"""Kinds of toys."""

PICTURES = 4
"""Of an album, each in another place."""

SIDES_PX = (64, 128)
_CODE = 5
_PAIR_SHARE = 0.3
_ALIKE_SHARE = 0.3
"""Of pairs: two toys of one kind."""

_TOYS = 500_000
"""That one side of the split of a seed draws from, so that hardly any comes back in another album."""

_OVERSAMPLING = 4
"""Textures are made so many times larger: pixels of bricks and grass that are picked out one by one would be noise."""

_BLUR = 1 / 64
"""Of the place, in its height: a model of few weights keeps what lies on the table, and no blade of grass."""

_JPEG_QUALITY = 95
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class View:
    """A picture of an album.

    Attributes:
        picture: pixels, and which toy each of them shows.
        backdrop: where.
        caption: what it shows, and where.
        jpeg: its bytes.
    """

    picture: Picture
    backdrop: Backdrop
    caption: str
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Album:
    """A cast and its places: a pure function of its arguments.

    Attributes:
        seed: of the whole.
        index: of the album on its side of the split.
        held_out: side of the split.
        cast: the toys, the same in every picture.
        places: of the pictures.
    """

    seed: int
    index: int
    held_out: bool
    cast: tuple[Toy, ...]
    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{'h' if self.held_out else 'a'}{self.index:06d}"

    def view(self, number: int, side_px: int) -> View:
        """Picture `number`, of a square of `side_px`."""
        rng = np.random.default_rng([self.seed, _CODE, self.held_out, self.index, number + 1])
        place = self.places[number]
        large = side_px * _OVERSAMPLING
        backdrop = _out_of_focus(backdrops.before(rng, place.floor, place.wall, large, large))
        placed = _settle(rng, backdrop, self.cast, side_px)
        picture = scenes.compose(backdrop, placed, scenes.light_for(backdrop, rng))
        text = caption([toy.kind for toy in self.cast], place.words)
        return View(picture, backdrop, text, pictures.encode_jpeg(picture.pixels, _JPEG_QUALITY))


def album(seed: int, index: int, *, held_out: bool) -> Album:
    """Album `index` of one side of a split."""
    rng = np.random.default_rng([seed, _CODE, held_out, index, 0])
    numbers = [int(rng.integers(_TOYS))]
    if rng.random() < _PAIR_SHARE:
        kinds = len(KINDS)  # numbers that far apart are of one kind
        alike = bool(rng.random() < _ALIKE_SHARE)
        numbers.append(
            numbers[0] + kinds * int(rng.integers(1, 99)) if alike else numbers[0] + int(rng.integers(1, kinds))
        )
    cast = tuple(subjects.known_toy(seed, number, held_out=held_out) for number in numbers)
    order = rng.permutation(len(photos.places()))[:PICTURES].tolist()
    return Album(seed, index, held_out, cast, tuple(photos.places()[number] for number in order))


def names(kind: str) -> tuple[str, str]:
    """What captions and categories call a kind: one of them, and many."""
    one, many = photos.data("categories.json")["toys"][kind]
    return one, many


def caption(kinds: list[str], place: str) -> str:
    """`A rabbit and two cups on the grass by a lake.`

    Args:
        kinds: of each toy, in the order in which they are named.
        place: its words.
    """
    told = [_counted(kind, count) for kind, count in Counter(kinds).items()]
    text = f"{' and '.join(told)} {place}."
    return f"{text[0].upper()}{text[1:]}"


@dataclass(frozen=True, slots=True)
class Told:
    """What a caption of an album says: how many of each kind, and the place in its words."""

    kinds: dict[str, int]
    place: str


def told(text: str) -> Told | None:
    """The inverse of `caption`; None for what is no caption of an album."""
    sentence = f"{text[:1].lower()}{text[1:]}".removesuffix(".")
    place = next((words for words in places() if sentence.endswith(f" {words}")), None)
    if place is None:
        return None
    kinds: dict[str, int] = {}
    for part in sentence.removesuffix(f" {place}").split(" and "):
        if part not in _phrases():
            return None
        kind, count = _phrases()[part]
        kinds[kind] = count
    return Told(kinds, place)


@cache
def _phrases() -> dict[str, tuple[str, int]]:
    """`a rabbit` and `two rabbits` to kind and number."""
    return {_counted(kind, count): (kind, count) for kind in KINDS for count in (1, 2)}


def places() -> tuple[str, ...]:
    """What captions call the places."""
    return tuple(place.words for place in photos.places())


def _counted(kind: str, count: int) -> str:
    one, many = names(kind)
    if count > 1:
        return f"two {many}"
    return f"{'an' if one[0] in 'aeiou' else 'a'} {one}"


def _out_of_focus(large: Backdrop) -> Backdrop:
    """The place at the size of the picture, behind what the camera looks at."""
    blurred = cv2.GaussianBlur(large.pixels, (0, 0), _BLUR * len(large.pixels))
    return replace(large, pixels=blurred).reduced(_OVERSAMPLING)


def _settle(rng: _Rng, backdrop: Backdrop, cast: tuple[Toy, ...], side_px: int) -> list[Placed]:
    """Each toy on the floor, wholly inside its share of the width."""
    share = side_px / len(cast)
    order = rng.permutation(len(cast)).tolist()
    return [_stand(rng, backdrop, toy, slot * share, share, side_px) for toy, slot in zip(cast, order, strict=True)]


def _stand(rng: _Rng, backdrop: Backdrop, toy: Toy, left: float, width: float, side_px: int) -> Placed:
    """A toy as large as it comes in a column from `left`, `width` wide, pixels."""
    foot = float(rng.uniform(0.84, 0.95)) * side_px
    pose = Pose(float(rng.uniform(*toy.shape.yaws)), backdrop.pitch_at(foot), 0.0)
    x0, y0, x1, y1 = toy.extent(pose)
    scale = min(0.94 * width / (x1 - x0), 0.78 * side_px / (y1 - y0)) * float(rng.uniform(0.8, 1.0))
    foot = min(foot, side_px - 1 + scale * y0)
    slack = width - scale * (x1 - x0)
    x = left + slack * float(rng.uniform(0.2, 0.8)) - scale * x0
    return Placed(toy, Placement(x, foot, scale, pose))
