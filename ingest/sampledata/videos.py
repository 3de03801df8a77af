"""Videos: a place, a camera that moves over it, and subjects that move, turn, hide each other, leave and come back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refloom.ingest.sampledata import backdrops, casting, cutouts, scenes, subjects
from refloom.ingest.sampledata.backdrops import Backdrop
from refloom.ingest.sampledata.cutouts import Matrix
from refloom.ingest.sampledata.materials import Light
from refloom.ingest.sampledata.scenes import Picture, Placed
from refloom.ingest.sampledata.solids import Pose
from refloom.ingest.sampledata.subjects import Placement, Subject, Toy

FRAME_STEP = 5
"""Frame numbers between two frames, as in YouTube-VIS."""

_CODE = 3
_SIZES = ((640, 360), (640, 360), (640, 360), (480, 360), (360, 640))
_FRAMES = (12, 36)
_MARGIN = 1.2
"""How much larger than a frame the place is, for the camera to move over."""
_PORTRAIT_EVERY = 3
_STAYING = ("drift", "approach")
_MOTIONS = (*_STAYING, "cross", "leave")
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class _Move:
    """How one subject moves; `t` runs from 0 to 1.

    Attributes:
        start: its place at the beginning, in the place's picture.
        motion: one of `_MOTIONS`.
        reach: how far it goes, pixels.
        turns: how far it turns about its upright axis, radians.
        phase: of its swaying.
        away: middle and half length of the time out of the frame, for `leave`.
    """

    start: Placed
    motion: str
    reach: float
    turns: float
    phase: float
    away: tuple[float, float]

    def at(self, t: float, backdrop: Backdrop) -> Placed:
        """Where it is at a time, in the place's picture."""
        place, subject = self.start.at, self.start.subject
        sway = math.sin(2 * math.pi * t + self.phase) - math.sin(self.phase)
        x, y = place.x, place.y
        if self.motion == "drift":
            x += 0.25 * self.reach * sway
        elif self.motion == "cross":
            x += self.reach * _eased(t)
        elif self.motion == "leave":
            middle, half = self.away
            x += self.reach * math.exp(-(((t - middle) / half) ** 4))
        standing = self.start.grounded and backdrop.ground is not None
        if standing and backdrop.ground is not None:
            first, last = backdrop.ground
            depth = 0.35 * (last - first) * (_eased(t) if self.motion == "approach" else 0.25 * sway)
            y = min(max(y + depth * (1 if place.y < 0.5 * (first + last) else -1), first), last)
        elif isinstance(subject, Toy):
            y += 0.05 * self.reach * sway
        nearer = (y - backdrop.vanish_y) / max(1.0, place.y - backdrop.vanish_y) if standing else 1.0
        scale = place.px_per_unit * nearer * (1.0 if standing else 1 + 0.06 * sway)
        pose = Pose(
            place.pose.yaw + self.turns * _eased(t) + 0.2 * sway,
            backdrop.pitch_at(y) if standing and isinstance(subject, Toy) else place.pose.pitch,
            place.pose.roll + self._tilt(sway, x - place.x, scale),
        )
        return replace(self.start, at=Placement(x, y, scale, pose, place.mirrored))

    def _tilt(self, sway: float, moved_px: float, scale: float) -> float:
        if self.start.behind:
            return 0.0
        if isinstance(self.start.subject, Toy) and self.start.subject.kind == "ball" and self.motion != "approach":
            return -moved_px / (0.5 * scale)  # it rolls
        return 0.05 * sway


def _eased(t: float) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * t)


@dataclass(frozen=True, slots=True)
class Video:
    """A video, ready to be drawn.

    Attributes:
        name: folder of its frames.
        width, height: pixels.
        length: frames.
        backdrop: the place, larger than a frame.
        moves: of the subjects set into it.
        light: at the beginning.
        seed: of its generators.
    """

    name: str
    width: int
    height: int
    length: int
    backdrop: Backdrop
    moves: tuple[_Move, ...]
    light: Light
    seed: tuple[int, ...]

    @property
    def cast(self) -> tuple[Subject, ...]:
        """The place's own subjects, then those set into it: as `Picture.cast`."""
        return (*self.backdrop.own, *(move.start.subject for move in self.moves))

    def frames(self) -> Iterator[tuple[Picture, bytes]]:
        """Composed frames with their JPEG bytes."""
        rng = np.random.default_rng([*self.seed, 1])
        camera = _Camera(rng, self)
        flicker = float(rng.uniform(0.03, 0.18))
        for number in range(self.length):
            t = number / max(1, self.length - 1)
            matrix = camera.at(t)
            seen = self.backdrop.seen_through(matrix, self.width, self.height)
            placed = [_through(move.at(t, self.backdrop), matrix) for move in self.moves]
            picture = scenes.compose(seen, placed, _turned(self.light, 0.6 * math.sin(math.pi * t)))
            gain = 1 + flicker * math.sin(2 * math.pi * t)
            yield picture, scenes.finish(picture.pixels, rng, gain)


class _Camera:
    """Pans and zooms over the place, never beyond its edges."""

    def __init__(self, rng: _Rng, video: Video) -> None:
        self._frame = np.array([video.width, video.height], float)
        self._place = np.array(video.backdrop.pixels.shape[1::-1], float)
        self._start, self._end = rng.uniform(0.15, 0.85, 2), rng.uniform(0.15, 0.85, 2)
        if any(move.start.behind for move in video.moves):
            self._start[1], self._end[1] = 0.0, 0.1  # heads are far up
        self._zooms = rng.uniform(0.85, 1.12, 2)
        self._shake = rng.uniform(0, 6.28, 2)

    def at(self, t: float) -> Matrix:
        """(3, 3) from the place's picture to the frame."""
        least = float((self._frame / self._place).max())
        zoom = max(least, float(self._zooms[0] + _eased(t) * (self._zooms[1] - self._zooms[0])))
        room = self._place * zoom - self._frame
        where = self._start + _eased(t) * (self._end - self._start) + 0.02 * np.sin(15 * t + self._shake)
        left, upper = (room * np.clip(where, 0, 1)).tolist()
        return np.array([[zoom, 0, -left], [0, zoom, -upper], [0, 0, 1]])


def _through(one: Placed, matrix: Matrix) -> Placed:
    zoom = float(matrix[0, 0])
    x, y = zoom * one.at.x + float(matrix[0, 2]), zoom * one.at.y + float(matrix[1, 2])
    return replace(one, at=replace(one.at, x=x, y=y, px_per_unit=zoom * one.at.px_per_unit))


def _turned(light: Light, angle: float) -> Light:
    """Light from another side, about the upright axis."""
    x, y, z = light.direction
    c, s = math.cos(angle), math.sin(angle)
    return replace(light, direction=(c * x + s * z, y, c * z - s * x))


def plan(seed: int, index: int) -> Video:
    """Video `index`: a pure function of the arguments. Every third shows the portrait, in turns set in and at home."""
    rng = np.random.default_rng([seed, _CODE, index])
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    length = int(rng.integers(_FRAMES[0], _FRAMES[1] + 1))
    large = (round(width * _MARGIN), round(height * _MARGIN))
    portrait = index % _PORTRAIT_EVERY == 0
    at_home = portrait and index % (2 * _PORTRAIT_EVERY) != 0
    person = next(subject for subject in cutouts.real().values() if subject.stands == "bottom")
    count = int(rng.integers(1, 5))
    cast: list[Subject] = []
    if at_home or (not portrait and rng.random() < 0.15):
        backdrop = backdrops.view(rng, *large, held_out=False, photo=person.photo if at_home else "")
        count = min(count, 2)
    else:
        backdrop = backdrops.place(rng, *large, table=True if portrait else None)
        if portrait:
            cast.append(person)
        elif rng.random() < 0.4:
            others = [subject for subject in cutouts.placeable(held_out=False) if subject is not person]
            cast.append(others[int(rng.integers(len(others)))])
    toys = {toy.number: toy for toy in (subjects.draw_toy(rng, seed, index, held_out=False) for _ in range(count))}
    cast += list(toys.values())[: count - len(cast)]
    placed = casting.settle(rng, backdrop, cast, tallest=float(rng.uniform(0.3, 0.6)), crowding=0.3, rim=0.2)
    return Video(
        name=_name(seed, index),
        width=width,
        height=height,
        length=length,
        backdrop=backdrop,
        moves=tuple(_moves(rng, placed, large[0])),
        light=scenes.light_for(backdrop, rng),
        seed=(seed, _CODE, index),
    )


def _moves(rng: _Rng, placed: Sequence[Placed], width: int) -> Iterator[_Move]:
    for one in placed:
        # one that is alone stays
        motions = _MOTIONS if len(placed) > 1 else _STAYING
        motion = motions[int(rng.integers(len(motions)))]
        side = 1.0 if one.at.x < width / 2 else -1.0  # towards the farther edge
        reach = side * width * float(rng.uniform(0.35, 0.6))
        if motion == "leave":
            left, _, right, _ = one.subject.extent(one.at.pose, mirrored=one.at.mirrored)
            reach = -side * (width / 2 + (right - left) * one.at.px_per_unit)  # past the nearer edge
        turns = float(rng.uniform(-2.2, 2.2)) if isinstance(one.subject, Toy) else float(rng.uniform(-0.5, 0.5))
        away = (float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.1, 0.18)))
        yield _Move(one, motion, reach, turns, float(rng.uniform(0, 6.28)), away)


def _name(seed: int, index: int) -> str:
    """Ten hexadecimal digits, as the folders of YouTube-VIS have."""
    return np.random.default_rng([seed, _CODE, index, 2]).bytes(5).hex()
