"""Tracks of a video that exchange their masks between two neighbouring frames: an annotation error. Pure functions."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.group.settings import Group
from refloom.schemas import masks
from refloom.schemas.masks import Mask

Floats = npt.NDArray[np.float64]

_MOTION_FRAMES = 3
"""Frames that say how fast a track moves before and after a step."""
_LOOK_FRAMES = 5
"""Frames whose embeddings say how a track looks before and after a step."""
_AREA_WEIGHT = 0.5
"""Of the logarithm of a ratio of areas, against a way of one size of the subject."""
_LOOK_WEIGHT = 5.0
"""Of a cosine, likewise: frames of one track differ by 0.1 to 0.3 less than those of two tracks of one class."""


@dataclass(frozen=True, slots=True)
class Path:
    """One track: rising frame numbers and the masks there, F of each, and embeddings where all are known, (F, D)."""

    track_id: str
    frames: list[int]
    masks: list[Mask]
    vectors: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A path in numbers, at the frames that it has in common with another: middles (F, 2), areas (F,), vectors."""

    times: Floats
    middles: Floats
    areas: Floats
    vectors: Floats | None


def switched(paths: list[Path], config: Group) -> dict[str, str]:
    """Tracks of one video that exchange their masks between two neighbouring frames.

    Two tracks a and b have switched between frames s and t if a(s) overlaps b(t) and b(s) overlaps a(t) by at least
    `switch_iou`, while neither overlaps itself by more than `switch_own_iou`. They have also switched if motion, size
    and look go on better by `switch_gain` with the names exchanged from t on: the way between s and t against where the
    motion before and after would lead, in sizes of the subject. Crossing objects pass through each other's places, but
    each goes its own way.

    Returns:
        Track id to the id of the track that it exchanges with.
    """
    found: dict[str, str] = {}
    for position, first in enumerate(paths):
        for second in paths[position + 1 :]:
            if _exchange(first, second, config):
                found.setdefault(first.track_id, second.track_id)
                found.setdefault(second.track_id, first.track_id)
    return found


def gains(first: Path, second: Path) -> Floats:
    """By how much each step of two tracks goes on better with their names exchanged; negative where it does not.

    Args:
        first, second: of one video.

    Returns:
        (S,) of the steps between neighbouring common frames; -inf where neither before nor after it there is motion
        to go by.
    """
    one, other = _common(first, second)
    return np.array([_gain(one, other, step) for step in range(len(one.times) - 1)], np.float64)


def _exchange(first: Path, second: Path, config: Group) -> bool:
    for a, b, c, d in _steps(first, second):
        overlap = masks.iou([a, b], [c, d])
        crossed, own = min(overlap[0, 1], overlap[1, 0]), max(overlap[0, 0], overlap[1, 1])
        if crossed >= config.switch_iou and own <= config.switch_own_iou:
            return True
    return config.switch_gain is not None and bool((gains(first, second) >= config.switch_gain).any())


def _steps(first: Path, second: Path) -> Iterator[tuple[Mask, Mask, Mask, Mask]]:
    """The masks of both before and after each step between neighbouring common frames."""
    ours, theirs = (dict(zip(path.frames, path.masks, strict=True)) for path in (first, second))
    common = sorted(ours.keys() & theirs.keys())
    for before, after in pairwise(common):
        yield ours[before], theirs[before], ours[after], theirs[after]


def _common(first: Path, second: Path) -> tuple[_Run, _Run]:
    common = set(first.frames) & set(second.frames)

    def run(path: Path) -> _Run:
        places = [place for place, frame in enumerate(path.frames) if frame in common]
        shown: list[Any] = [path.masks[place] for place in places]
        boxes = masks.tight_boxes(shown).astype(np.float64).reshape(-1, 4)
        vectors = None if path.vectors is None else path.vectors[places].astype(np.float64)
        times = np.array([path.frames[place] for place in places], np.float64)
        return _Run(times, (boxes[:, :2] + boxes[:, 2:]) / 2, np.asarray(masks.areas(shown), np.float64), vectors)

    return run(first), run(second)


def _gain(one: _Run, other: _Run, step: int) -> float:
    before = slice(max(0, step + 1 - _MOTION_FRAMES), step + 1)
    after = slice(step + 1, step + 1 + _MOTION_FRAMES)
    if len(one.times[before]) < 2 and len(one.times[after]) < 2:
        return -np.inf
    size = float(np.sqrt(np.mean([run.areas[place] for run in (one, other) for place in (step, step + 1)])))

    def cost(source: _Run, target: _Run) -> float:
        span = source.times[step + 1] - source.times[step]
        way = target.middles[step + 1] - source.middles[step]
        speeds = [speed for speed in (_speed(source, before), _speed(target, after)) if speed is not None]
        apart = float(np.mean([np.linalg.norm(way - speed * span) for speed in speeds])) / size
        return apart + _AREA_WEIGHT * abs(float(np.log(target.areas[step + 1] / source.areas[step])))

    gain = cost(one, one) + cost(other, other) - cost(one, other) - cost(other, one)
    return gain + _LOOK_WEIGHT * _look_gain(one, other, step)


def _speed(run: _Run, where: slice) -> Floats | None:
    """(2,) pixels a frame number, None of a single frame."""
    times, middles = run.times[where], run.middles[where]
    if len(times) < 2:
        return None
    speed: Floats = (middles[-1] - middles[0]) / (times[-1] - times[0])
    return speed


def _look_gain(one: _Run, other: _Run, step: int) -> float:
    """How much nearer the looks after a step are to those of the other track before it; 0 where some are not known."""
    if one.vectors is None or other.vectors is None:
        return 0.0
    sides = slice(max(0, step + 1 - _LOOK_FRAMES), step + 1), slice(step + 1, step + 1 + _LOOK_FRAMES)
    (a, c), (b, d) = ([_mean(run.vectors[side]) for side in sides] for run in (one, other) if run.vectors is not None)
    return float(a @ d + b @ c - a @ c - b @ d)


def _mean(vectors: Floats) -> Floats:
    total: Floats = vectors.sum(axis=0)
    unit: Floats = total / max(float(np.linalg.norm(total)), 1e-12)
    return unit
