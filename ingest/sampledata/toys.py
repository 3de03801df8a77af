"""Shapes of the made subjects: from a kind and a generator to solids. A toy stands on y = 0 and faces z.

Proportions vary between identities within what a kind can bear. Materials are numbered: 0 the ground pattern, 1 the
lighter or second cloth, 2 eyes and noses, 3 the accent, 4 inside of vessels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from refloom.ingest.sampledata.solids import Ellipsoid, Lathe, Solid, Vector

MAIN, SECOND, DARK, ACCENT, INSIDE = range(5)
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of toy with the proportions of one identity.

    Attributes:
        solids: numbered parts.
        parts: name of each number; `a/b` lies on `a`.
        size: of the whole beside other kinds, 1 is a teddy bear.
        gloss: 0 felt, 1 china.
        yaws: range of turns in which it is worth looking at, radians.
        flies: may hang in the air.
    """

    solids: tuple[Solid, ...]
    parts: tuple[str, ...]
    size: float
    gloss: float
    yaws: tuple[float, float]
    flies: bool = False


class _Builder:
    """Collects solids and the names of their parts."""

    def __init__(self) -> None:
        self.solids: list[Solid] = []
        self.parts: list[str] = []

    def number(self, part: str) -> int:
        if part not in self.parts:
            self.parts.append(part)
        return self.parts.index(part)

    def ball(self, part: str, centre: Vector, radii: Vector, material: int = MAIN, turn: Vector = (0, 0, 0)) -> None:
        self.solids.append(Ellipsoid(centre, radii, material, self.number(part), turn))

    def pair(self, part: str, centre: Vector, radii: Vector, material: int = MAIN, turn: Vector = (0, 0, 0)) -> None:
        """One on each side, mirrored in x."""
        (x, y, z), (a, b, c) = centre, turn
        self.ball(f"{part} left", (-x, y, z), radii, material, (a, -b, -c))
        self.ball(f"{part} right", (x, y, z), radii, material, (a, b, c))

    def chain(self, part: str, points: list[Vector], thickness: tuple[float, float], material: int = MAIN) -> None:
        """Stretched balls along a line in a plane of constant x or z; thickness of the first and the last."""
        last = len(points) - 1
        for step, point in enumerate(points):
            (x0, y0, z0), (x1, y1, z1) = points[max(0, step - 1)], points[min(last, step + 1)]
            length = math.dist(points[max(0, step - 1)], points[min(last, step + 1)]) * (0.5 if 0 < step < last else 1)
            radius = thickness[0] + (thickness[1] - thickness[0]) * step / last
            turn = (math.atan2(z1 - z0, y1 - y0), 0.0, 0.0) if x0 == x1 else (0.0, 0.0, math.atan2(x0 - x1, y1 - y0))
            self.ball(part, point, (radius, max(radius, 1.5 * length), radius), material, turn)

    def face(self, y: float, z: float, apart: float, size: float) -> None:
        self.pair("head/eye", (apart, y, z), (size, size * 1.15, size * 0.6), DARK)

    def done(self, size: float, gloss: float, yaws: tuple[float, float] = (-0.9, 0.9), *, flies: bool = False) -> Shape:
        return Shape(tuple(self.solids), tuple(self.parts), size, gloss, yaws, flies)


def _ball(rng: _Rng) -> Shape:
    build = _Builder()
    build.ball("ball", (0, 0.5, 0), (0.5, 0.5, 0.5))
    return build.done(0.55, float(rng.uniform(0.1, 0.8)), (-math.pi, math.pi))


def _bear(rng: _Rng) -> Shape:
    build = _Builder()
    stout, head, ear = rng.uniform((0.9, 0.9, 0.8), (1.2, 1.15, 1.3)).tolist()
    build.ball("body", (0, 0.3, 0), (0.24 * stout, 0.28, 0.21 * stout))
    build.ball("body/belly", (0, 0.29, 0.1 * stout), (0.15 * stout, 0.18, 0.13), SECOND)
    build.ball("head", (0, 0.7, 0.02), (0.21 * head, 0.19 * head, 0.19 * head))
    build.pair("head/ear", (0.16 * head, 0.7 + 0.16 * head, 0), (0.085 * ear, 0.085 * ear, 0.05))
    build.pair("head/ear", (0.16 * head, 0.7 + 0.16 * head, 0.03), (0.05 * ear, 0.05 * ear, 0.035), SECOND)
    build.ball("head/snout", (0, 0.64, 0.17 * head), (0.1, 0.08, 0.08), SECOND)
    build.ball("head/nose", (0, 0.68, 0.17 * head + 0.07), (0.035, 0.026, 0.025), DARK)
    build.face(0.745, 0.16 * head + 0.01, 0.085, 0.026)
    build.pair("arm", (0.26 * stout, 0.4, 0.06), (0.08, 0.19, 0.085), MAIN, (-0.3, 0, 0.55))
    build.pair("leg", (0.16 * stout, 0.1, 0.14), (0.1, 0.1, 0.2), MAIN, (0, 0.25, 0))
    build.pair("leg/sole", (0.19 * stout, 0.1, 0.31), (0.07, 0.075, 0.04), SECOND, (0, 0.25, 0))
    return build.done(1.0, 0.03)


def _rabbit(rng: _Rng) -> Shape:
    build = _Builder()
    stout, ear, spread = rng.uniform((0.9, 0.75, 0.1), (1.2, 1.25, 0.5)).tolist()
    build.ball("body", (0, 0.25, 0), (0.2 * stout, 0.25, 0.19 * stout))
    build.ball("body/belly", (0, 0.24, 0.1 * stout), (0.12, 0.16, 0.11), SECOND)
    build.ball("head", (0, 0.57, 0.03), (0.17, 0.155, 0.155))
    height = 0.66 + 0.17 * ear
    build.pair("head/ear", (0.08 + 0.1 * spread, height, -0.02), (0.055, 0.2 * ear, 0.03), MAIN, (0, 0, -spread))
    build.pair("head/ear", (0.08 + 0.1 * spread, height, 0.0), (0.033, 0.15 * ear, 0.02), SECOND, (0, 0, -spread))
    build.ball("head/snout", (0, 0.53, 0.15), (0.075, 0.055, 0.06), SECOND)
    build.ball("head/nose", (0, 0.555, 0.2), (0.024, 0.018, 0.02), ACCENT)
    build.face(0.61, 0.145, 0.07, 0.023)
    build.pair("arm", (0.19 * stout, 0.33, 0.09), (0.055, 0.14, 0.06), MAIN, (-0.5, 0, 0.35))
    build.pair("leg", (0.14 * stout, 0.07, 0.13), (0.075, 0.07, 0.2), MAIN, (0, 0.2, 0))
    build.ball("tail", (0, 0.14, -0.2 * stout), (0.08, 0.08, 0.08), SECOND)
    return build.done(0.9, 0.03)


def _elephant(rng: _Rng) -> Shape:
    build = _Builder()
    ear, trunk = rng.uniform((0.85, 0.7), (1.3, 1.2)).tolist()
    build.ball("body", (0, 0.43, -0.1), (0.28, 0.26, 0.37))
    build.pair("front leg", (0.16, 0.16, 0.12), (0.095, 0.17, 0.095))
    build.pair("hind leg", (0.16, 0.16, -0.3), (0.095, 0.17, 0.095))
    build.ball("head", (0, 0.6, 0.33), (0.2, 0.2, 0.19))
    build.pair("head/ear", (0.24, 0.6, 0.25), (0.17 * ear, 0.2 * ear, 0.04), MAIN, (0, -0.5, 0))
    build.pair("head/ear", (0.245, 0.6, 0.275), (0.12 * ear, 0.15 * ear, 0.03), SECOND, (0, -0.5, 0))
    bend = [(0.0, 0.55 - 0.42 * trunk * t, 0.5 + 0.16 * math.sin(2.4 * t)) for t in np.linspace(0, 1, 9).tolist()]
    build.chain("head/trunk", bend, (0.085, 0.045))
    build.face(0.68, 0.48, 0.1, 0.024)
    build.chain("tail", [(0, 0.45 - 0.2 * t, -0.47 - 0.05 * t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)], (0.03, 0.02))
    return build.done(1.1, 0.04, (-1.2, 1.2))


def _duck(rng: _Rng) -> Shape:
    build = _Builder()
    head, long = rng.uniform((0.9, 0.9), (1.2, 1.2)).tolist()
    build.ball("body", (0, 0.25, 0), (0.24, 0.25, 0.34 * long))
    build.ball("head", (0, 0.6, 0.17), (0.17 * head, 0.17 * head, 0.17 * head))
    build.ball("neck", (0, 0.45, 0.13), (0.12, 0.12, 0.12))
    build.ball("head/bill", (0, 0.57, 0.17 + 0.19 * head), (0.09, 0.035, 0.1), ACCENT)
    build.face(0.64, 0.17 + 0.12 * head, 0.1 * head, 0.026)
    build.pair("wing", (0.21, 0.3, -0.03), (0.06, 0.13, 0.22), SECOND, (-0.3, 0.1, 0))
    build.ball("tail", (0, 0.38, -0.32 * long), (0.1, 0.05, 0.12), MAIN, (0.7, 0, 0))
    return build.done(0.7, float(rng.uniform(0.3, 0.9)), (-1.3, 1.3))


def _turtle(rng: _Rng) -> Shape:
    build = _Builder()
    dome, long = rng.uniform((0.8, 0.9), (1.25, 1.15)).tolist()
    build.ball("shell", (0, 0.17, 0), (0.34, 0.24 * dome, 0.4 * long))
    build.ball("belly", (0, 0.11, 0), (0.36, 0.09, 0.42 * long), SECOND)
    build.ball("head", (0, 0.25, 0.5 * long), (0.12, 0.115, 0.13), SECOND)
    build.chain("head", [(0, 0.15 + 0.05 * t, (0.36 + 0.1 * t) * long) for t in (0.0, 0.5, 1.0)], (0.08, 0.075), SECOND)
    build.face(0.29, 0.5 * long + 0.09, 0.065, 0.02)
    build.pair("front foot", (0.32, 0.07, 0.26), (0.15, 0.05, 0.09), SECOND, (0, -0.6, 0.15))
    build.pair("hind foot", (0.3, 0.06, -0.28), (0.12, 0.05, 0.08), SECOND, (0, 0.6, 0.15))
    build.ball("tail", (0, 0.09, -0.43 * long), (0.04, 0.035, 0.08), SECOND)
    return build.done(0.85, 0.15, (-1.3, 1.3))


def _car(rng: _Rng) -> Shape:
    build = _Builder()
    long, cabin, back = rng.uniform((0.9, 0.8, -0.12), (1.15, 1.1, 0.06)).tolist()
    build.ball("body", (0, 0.2, 0), (0.23, 0.14, 0.54 * long))
    build.ball("body", (0, 0.21, 0.26 * long), (0.22, 0.14, 0.28 * long))
    build.ball("body", (0, 0.22, -0.26 * long), (0.22, 0.15, 0.28 * long))
    up = 0.3 + 0.1 * cabin
    build.ball("cabin", (0, up - 0.04, back), (0.19, 0.17 * cabin, 0.32 * long))
    build.ball("cabin/windscreen", (0, up, back + 0.15 * long), (0.14, 0.085 * cabin, 0.15 * long), DARK)
    build.ball("cabin/rear window", (0, up, back - 0.15 * long), (0.14, 0.085 * cabin, 0.15 * long), DARK)
    build.pair("cabin/window", (0.1, up, back), (0.085, 0.075 * cabin, 0.17 * long), DARK)
    for name, z in (("front wheel", 0.3 * long), ("rear wheel", -0.3 * long)):
        build.pair(name, (0.215, 0.11, z), (0.05, 0.11, 0.11), DARK)
        build.pair(f"{name}/hub", (0.245, 0.11, z), (0.03, 0.055, 0.055), SECOND)
    build.pair("lamp", (0.13, 0.22, 0.47 * long), (0.045, 0.045, 0.05), ACCENT)
    return build.done(1.0, 0.9, (-1.6, 1.6))


def _airplane(rng: _Rng) -> Shape:
    build = _Builder()
    span, swept, stout = rng.uniform((0.8, -0.1, 0.85), (1.1, 0.35, 1.25)).tolist()
    build.ball("fuselage", (0, 0.22, 0), (0.1 * stout, 0.11 * stout, 0.52))
    build.pair("wing", (0.28 * span, 0.22, 0.03), (0.3 * span, 0.022, 0.11), SECOND, (0, swept, 0.06))
    build.ball("fin", (0, 0.37, -0.42), (0.02, 0.15, 0.09), SECOND, (0.4, 0, 0))
    build.pair("tail wing", (0.1, 0.26, -0.43), (0.13, 0.016, 0.065), SECOND, (0, swept, 0))
    build.ball("cockpit", (0, 0.3, 0.2), (0.07, 0.06, 0.13), DARK)
    build.ball("nose", (0, 0.22, 0.5), (0.045, 0.045, 0.05), ACCENT)
    build.pair("engine", (0.24 * span, 0.17, 0.1), (0.045, 0.045, 0.12), ACCENT)
    return build.done(1.2, 0.7, (-1.4, 1.4), flies=True)


def _vessel(build: _Builder, radii: list[float], height: float, material: int = MAIN, *, closed: bool = False) -> None:
    """A lathed body through the given radii, smoothed."""
    knots = np.linspace(0, 1, len(radii))
    fine = np.interp(np.linspace(0, 1, 129), knots, radii)
    width = 129 // len(radii) | 1
    window = np.hanning(width + 2)[1:-1]
    smooth = np.convolve(np.pad(fine, width // 2, mode="edge"), window / window.sum(), "valid")
    side, rim, inside = build.number("side"), build.number("rim"), build.number("opening")
    top = (ACCENT, rim) if closed else (SECOND, rim)
    hollow = (ACCENT, rim) if closed else (INSIDE, inside)
    build.solids.append(Lathe(tuple(smooth.tolist()), height, material, side, top, hollow))


def _vase(rng: _Rng) -> Shape:
    build = _Builder()
    foot, belly, neck, lip = rng.uniform((0.12, 0.22, 0.07, 0.1), (0.2, 0.36, 0.16, 0.24)).tolist()
    low = belly * float(rng.uniform(0.7, 1.05))
    _vessel(build, [foot, foot * 1.1, low, belly, (belly + neck) / 2, neck, neck * 1.02, lip], 1.0)
    return build.done(0.95, float(rng.uniform(0.5, 1.0)), (-math.pi, math.pi))


def _bowl(rng: _Rng) -> Shape:
    build = _Builder()
    foot, lip, height = rng.uniform((0.16, 0.4, 0.42), (0.26, 0.52, 0.62)).tolist()
    _vessel(build, [foot, foot, foot + (lip - foot) * 0.62, foot + (lip - foot) * 0.86, lip], height)
    return build.done(0.75, float(rng.uniform(0.4, 1.0)), (-math.pi, math.pi))


def _bottle(rng: _Rng) -> Shape:
    build = _Builder()
    wide, neck, shoulder = rng.uniform((0.14, 0.045, 0.5), (0.24, 0.075, 0.68)).tolist()
    steps = [
        wide if t < shoulder else max(neck, wide - (t - shoulder) * 4 * (wide - neck)) for t in np.arange(0, 1, 0.1)
    ]
    _vessel(build, [wide * 0.93, *steps, neck * 1.05], 1.0, closed=True)
    build.ball("rim", (0, 1.0, 0), (neck * 1.1, 0.05, neck * 1.1), ACCENT)
    return build.done(1.0, 0.9, (-math.pi, math.pi))


def _handle(build: _Builder, reach: float, low: float, high: float, radius: float, thickness: float) -> None:
    angles = np.linspace(-math.pi / 2, math.pi / 2, 13).tolist()
    middle, half = (low + high) / 2, (high - low) / 2
    points = [(radius + reach * math.cos(a), middle + half * math.sin(a), 0.0) for a in angles]
    build.chain("handle", points, (thickness, thickness), SECOND)


def _cup(rng: _Rng) -> Shape:
    build = _Builder()
    foot, lip, height, reach = rng.uniform((0.24, 0.3, 0.6, 0.16), (0.34, 0.42, 0.85, 0.26)).tolist()
    _vessel(build, [foot * 0.9, foot, (foot + lip) / 2 * 1.03, lip * 1.01, lip], height)
    _handle(build, reach, 0.18 * height, 0.78 * height, (foot + lip) / 2 - 0.03, 0.05)
    return build.done(0.6, float(rng.uniform(0.5, 1.0)), (-1.2, 1.2))


def _teapot(rng: _Rng) -> Shape:
    build = _Builder()
    belly, lip, height, reach = rng.uniform((0.36, 0.16, 0.5, 0.18), (0.46, 0.24, 0.68, 0.28)).tolist()
    _vessel(build, [belly * 0.62, belly * 0.9, belly, belly * 0.97, belly * 0.75, lip], height, closed=True)
    build.ball("lid", (0, height, 0), (lip * 1.05, 0.08, lip * 1.05), SECOND)
    build.ball("lid/knob", (0, height + 0.11, 0), (0.05, 0.05, 0.05), ACCENT)
    _handle(build, reach, 0.15 * height, 0.82 * height, belly * 0.85, 0.045)
    spout = [(-belly * 0.8 - 0.3 * t, height * (0.3 + 0.65 * t**1.4), 0.0) for t in np.linspace(0, 1, 10).tolist()]
    build.chain("spout", spout, (0.1, 0.045))
    return build.done(0.8, float(rng.uniform(0.5, 1.0)), (-1.0, 1.0))


KINDS: dict[str, Callable[[np.random.Generator], Shape]] = {
    "bear": _bear,
    "vase": _vase,
    "ball": _ball,
    "car": _car,
    "cup": _cup,
    "rabbit": _rabbit,
    "teapot": _teapot,
    "duck": _duck,
    "bottle": _bottle,
    "elephant": _elephant,
    "airplane": _airplane,
    "bowl": _bowl,
    "turtle": _turtle,
}
"""Kinds of toys; the pool of identities goes through them in this order."""


def shape(kind: str, rng: np.random.Generator) -> Shape:
    """The shape of one identity.

    Args:
        kind: in `KINDS`.
        rng: of the identity.
    """
    made = KINDS[kind](rng)
    return replace(made, size=made.size * float(rng.uniform(0.9, 1.1)))
