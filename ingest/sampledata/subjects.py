"""Subjects: who they are, and how one of them becomes pixels with an exact outline. Toys are made, cut-outs are real.

A subject is a pure function of its identity number: 1 to 99 are real (`outlines.json`), the rest are toys. Of toys,
those whose million is odd are held out: they never occur in anything called train.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from refloom.ingest.sampledata import materials, solids, toys
from refloom.ingest.sampledata.materials import PATTERNS, Light, Material
from refloom.ingest.sampledata.solids import NOTHING, Floats, Pose

PATTERN_BIT = 0x80
"""In a map of parts: the pixel shows the second colour of a pattern."""

_SEED_SPAN = 1_000_000
_FIRST_TOY = 100
_SOFT_EDGE_PX = 0.6


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a subject is seen.

    Attributes:
        x, y: picture position of the middle of its foot, pixels.
        px_per_unit: scale.
        pose: turn, angle of view, tilt.
        mirrored: real subjects only.
    """

    x: float
    y: float
    px_per_unit: float
    pose: Pose
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class Sprite:
    """A subject drawn for one place of one picture.

    Attributes:
        x, y: of its window in the picture, pixels.
        colours: (h, w, 3) 0–255, premultiplied by alpha.
        alpha: (h, w) 0–1; the subject's mask is alpha >= 0.5.
        parts: (h, w) part number + 1, 0 where none is; `PATTERN_BIT` may be set.
    """

    x: int
    y: int
    colours: Floats
    alpha: Floats
    parts: npt.NDArray[np.uint8]


class Subject(Protocol):
    """What a scene needs to know of a subject."""

    @property
    def number(self) -> int:
        """Identity."""
        ...

    @property
    def kind(self) -> str:
        """Key of `kinds` in categories.json."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """Name of each part number; `a/b` lies on `a`."""
        ...

    @property
    def size(self) -> float:
        """Beside other subjects; 1 is a teddy bear."""
        ...

    @property
    def photo(self) -> str | None:
        """The photograph that it is cut from."""
        ...

    def extent(self, pose: Pose, *, mirrored: bool = False) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in units around the foot."""
        ...

    def draw(self, place: Placement, light: Light, width: int, height: int, *, blurred: bool) -> Sprite | None:
        """The subject in a picture of a size; None where nothing of it lies in the picture. `blurred` hides faces."""
        ...


@dataclass(frozen=True, slots=True)
class Toy:
    """A made subject."""

    number: int
    kind: str
    shape: toys.Shape
    materials: tuple[Material, ...]
    extents: solids.Extents
    photo: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return self.shape.parts

    @property
    def size(self) -> float:
        """Beside other subjects."""
        return self.shape.size

    def extent(self, pose: Pose, *, mirrored: bool = False) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in units around the foot."""
        return self.extents.seen(pose)

    def draw(self, place: Placement, light: Light, width: int, height: int, *, blurred: bool) -> Sprite | None:
        """The toy in a picture of a size; None where nothing of it lies in the picture."""
        left, bottom, right, top = (place.px_per_unit * edge for edge in self.extent(place.pose))
        box = (place.x + left, place.y - top, place.x + right, place.y - bottom)
        window = clipped_window(box, width, height)
        if window is None:
            return None
        buffer = solids.Buffer(window, (place.x, place.y), place.px_per_unit)
        buffer.draw(self.shape.solids, place.pose)
        colours, patterned = materials.shade(buffer, self.materials, place.pose, light)
        covered = buffer.material != NOTHING
        soft = cv2.GaussianBlur(np.dstack([colours, covered.astype(np.float32)]), (3, 3), _SOFT_EDGE_PX)
        parts = buffer.part + np.uint8(1)  # NOTHING becomes 0
        parts[patterned] |= PATTERN_BIT
        return Sprite(window[0], window[1], soft[..., :3], soft[..., 3], parts)


def clipped_window(box: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """The whole pixels of a box with a rim of 2, inside a picture; None if there are none."""
    x0, y0 = max(0, math.floor(box[0]) - 2), max(0, math.floor(box[1]) - 2)
    x1, y1 = min(width, math.ceil(box[2]) + 2), min(height, math.ceil(box[3]) + 2)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


@lru_cache(maxsize=4096)
def toy(number: int) -> Toy:
    """The toy of an identity number."""
    kinds = list(toys.KINDS)
    kind = kinds[number % _SEED_SPAN % len(kinds)]
    rng = np.random.default_rng([number, 0x70])
    shape = toys.shape(kind, rng)
    ground, figure, accent = materials.colours(rng)
    patterns = [name for name in PATTERNS if name != "plain"]
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    if rng.random() < 0.4:
        axis = np.array([0.0, 1.0, 0.0])
    main = Material(
        (ground, figure),
        pattern=patterns[int(rng.integers(len(patterns)))],
        frequency=float(rng.uniform(2.2, 5.5)),
        axis=(float(axis[0]), float(axis[1]), float(axis[2])),
        phase=float(rng.uniform(0, 6.28)),
        gloss=shape.gloss,
        grain=0.09 if shape.gloss < 0.1 else 0.025,
    )
    mixed = tuple((0.45 * a + 0.55 * b) for a, b in zip(ground, (0.95, 0.92, 0.86), strict=True))
    second = figure if rng.random() < 0.4 else (mixed[0], mixed[1], mixed[2])
    inside = (0.4 * second[0], 0.4 * second[1], 0.4 * second[2])
    dark = (0.07, 0.06, 0.07)
    return Toy(
        number,
        kind,
        shape,
        (
            main,
            Material((second, second), gloss=shape.gloss, grain=main.grain),
            Material((dark, dark), gloss=1.0, grain=0),
            Material((accent, accent), gloss=max(0.3, shape.gloss), grain=0.02),
            Material((inside, inside), gloss=0.1, grain=0.02),
        ),
        solids.Extents(shape.solids),
    )


def pool_size(index: int, *, held_out: bool) -> int:
    """How many toys the first `index` pictures of a tree know: grows slowly, so that identities come back."""
    return 13 + math.isqrt(index) if held_out else 26 + 2 * math.isqrt(index)


def draw_toy(rng: np.random.Generator, seed: int, index: int, *, held_out: bool) -> Toy:
    """One of the toys that picture `index` of a tree may show."""
    return known_toy(seed, int(rng.integers(pool_size(index, held_out=held_out))), held_out=held_out)


def known_toy(seed: int, number: int, *, held_out: bool) -> Toy:
    """Toy `number` of those that a seed has on one side of the split."""
    return toy((2 * seed + held_out) * _SEED_SPAN + _FIRST_TOY + number)


def is_held_out(number: int) -> bool:
    """Whether a toy's identity may occur only outside of train."""
    return number // _SEED_SPAN % 2 == 1
