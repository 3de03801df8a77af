"""Scenes: subjects set into a place and composed into one picture with the exact pixels that each of them shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from refloom.ingest.sampledata import subjects
from refloom.ingest.sampledata.backdrops import Backdrop, average_light
from refloom.ingest.sampledata.materials import Light
from refloom.ingest.sampledata.subjects import Placement, Sprite, Subject
from refloom.schemas import pictures
from refloom.schemas.pictures import Pixels

NOBODY = -1
_JPEG_QUALITY = 92
_GRAIN_SIDE_PX = 1024
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Placed:
    """A subject at its place.

    Attributes:
        subject: who.
        at: where and how.
        grounded: it throws a shadow on the ground at its foot.
        behind: it stands behind a table and is drawn before everything on it.
        crowd: it is one of a group under one mask.
    """

    subject: Subject
    at: Placement
    grounded: bool = True
    behind: bool = False
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A composed scene.

    Attributes:
        pixels: (H, W, 3) uint8.
        owner: (H, W) position in `cast` of the subject that a pixel shows, or `NOBODY`.
        parts: (H, W) part number + 1 of that subject; `subjects.PATTERN_BIT` may be set.
        cast: who is there: the place's own subjects, then those set into it.
        crowd: positions in `cast` of the members of a crowd.
    """

    pixels: Pixels
    owner: npt.NDArray[np.int16]
    parts: Pixels
    cast: tuple[Subject, ...]
    crowd: frozenset[int]


def light_for(backdrop: Backdrop, rng: _Rng) -> Light:
    """Light that fits a place."""
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.4, 0.9), rng.uniform(0.45, 0.9)])
    x, y, z = (direction / np.linalg.norm(direction)).tolist()
    red, green, blue = average_light(backdrop).tolist()
    return Light((x, y, z), float(rng.uniform(0.42, 0.62)), (red, green, blue))


def compose(backdrop: Backdrop, placed: Sequence[Placed], light: Light, *, blurred: bool = False) -> Picture:
    """Draw subjects into a place, the farthest first.

    Args:
        backdrop: the place.
        placed: in the order in which they are listed; drawn by the row of their feet.
        light: on all of them.
        blurred: hide faces.
    """
    pixels = backdrop.pixels.copy()
    height, width = pixels.shape[:2]
    owner = backdrop.labels.astype(np.int16) - 1
    parts = backdrop.parts.copy()
    first = len(backdrop.own)
    order = sorted(range(len(placed)), key=lambda index: (not placed[index].behind, placed[index].at.y))
    for index in order:
        one = placed[index]
        sprite = one.subject.draw(one.at, light, width, height, blurred=blurred)
        if sprite is None:
            continue
        if one.grounded:
            _shadow(pixels, one, light)
        _blend(pixels, sprite, grey=backdrop.grey)
        window = (slice(sprite.y, sprite.y + sprite.alpha.shape[0]), slice(sprite.x, sprite.x + sprite.alpha.shape[1]))
        covered = sprite.alpha >= 0.5
        owner[window][covered] = first + index
        parts[window][covered] = sprite.parts[covered]
    cast = (*backdrop.own, *(one.subject for one in placed))
    crowd = frozenset(first + index for index, one in enumerate(placed) if one.crowd)
    return Picture(pixels, owner, parts, cast, crowd)


def _blend(pixels: Pixels, sprite: Sprite, *, grey: bool) -> None:
    height, width = sprite.alpha.shape
    under = pixels[sprite.y : sprite.y + height, sprite.x : sprite.x + width]
    colours = sprite.colours
    if grey:
        colours = np.repeat(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    mixed = colours + under * (1 - sprite.alpha)[..., None]
    under[:] = np.minimum(mixed + np.float32(0.5), 255).astype(np.uint8)


def _shadow(pixels: Pixels, one: Placed, light: Light) -> None:
    """A soft dark ellipse around the foot, longer away from the light; no part of any mask."""
    left, _, right, _ = one.subject.extent(one.at.pose, mirrored=one.at.mirrored)
    half = 0.5 * (right - left) * one.at.px_per_unit
    flat = 0.18 + 0.5 * one.at.pose.pitch
    x = one.at.x + 0.5 * (left + right) * one.at.px_per_unit - 0.35 * half * light.direction[0]
    y = one.at.y - 0.25 * flat * half
    window = subjects.clipped_window(
        (x - 1.6 * half, y - 1.6 * flat * half, x + 1.6 * half, y + 1.6 * flat * half), pixels.shape[1], pixels.shape[0]
    )
    if window is None or half < 2:
        return
    x0, y0, x1, y1 = window
    across = ((np.arange(x0, x1, dtype=np.float32) + 0.5 - x) / half)[None, :]
    along = ((np.arange(y0, y1, dtype=np.float32) + 0.5 - y) / (flat * half))[:, None]
    dark = 1 - np.float32(0.62) * np.exp(np.float32(-1.6) * (across * across + along * along))
    under = pixels[y0:y1, x0:x1]
    under[:] = (under * dark[..., None]).astype(np.uint8)


def finish(pixels: Pixels, rng: _Rng, gain: float = 1.0) -> bytes:
    """JPEG bytes of a composed picture, with the grain of one camera over everything.

    Args:
        pixels: (H, W, 3) uint8.
        rng: shifts the grain.
        gain: brightness.
    """
    height, width = pixels.shape[:2]
    y, x = rng.integers(_GRAIN_SIDE_PX, size=2).tolist()
    grain = np.tile(_grain(), (2 + height // _GRAIN_SIDE_PX, 2 + width // _GRAIN_SIDE_PX))
    if gain != 1.0:
        pixels = cv2.convertScaleAbs(pixels, alpha=gain)
    grain = np.repeat(grain[y : y + height, x : x + width, None], 3, axis=2)
    return pictures.encode_jpeg(cv2.add(pixels, grain, dtype=cv2.CV_8U), _JPEG_QUALITY)


@cache
def _grain() -> npt.NDArray[np.int8]:
    noise = np.random.default_rng(7).normal(0, 2.2, (_GRAIN_SIDE_PX, _GRAIN_SIDE_PX))
    return noise.round().astype(np.int8)
