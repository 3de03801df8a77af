"""Colours, patterns and light: what turns a depth buffer into pixels.

A pattern is a function of the place on the subject, so it turns with the subject. Nothing here may ever be named in a
caption: colour and pattern are what tells two subjects of one category apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.ingest.sampledata.solids import Buffer, Floats, Pose, Vector, rotation


@dataclass(frozen=True, slots=True)
class Light:
    """Light that falls on a scene.

    Attributes:
        direction: towards the light, of unit length, in the view.
        ambient: share of light that comes from everywhere, 0–1.
        gain: of red, green and blue.
    """

    direction: Vector
    ambient: float
    gain: Vector


@dataclass(frozen=True, slots=True)
class Material:
    """How a surface looks.

    Attributes:
        colours: of the ground and of the pattern, RGB 0–1.
        pattern: name in `PATTERNS`.
        frequency: of the pattern, repeats per unit.
        axis: direction along which the pattern runs.
        phase: shifts the pattern.
        gloss: 0 felt, 1 china.
        grain: strength of fine unevenness, 0–1.
    """

    colours: tuple[Vector, Vector]
    pattern: str = "plain"
    frequency: float = 3.0
    axis: Vector = (0.0, 1.0, 0.0)
    phase: float = 0.0
    gloss: float = 0.2
    grain: float = 0.05


def _plain(q: Floats, material: Material) -> Floats:
    return np.full(len(q), -1, np.float32)


def _stripes(q: Floats, material: Material) -> Floats:
    wave: Floats = np.sin(q @ _f32(material.axis) * _turns(material) + _phase(material))
    return wave


def _dots(q: Floats, material: Material) -> Floats:
    cell = q * np.float32(material.frequency * 0.8) + _phase(material)
    offset = cell - np.round(cell)
    distance: Floats = np.float32(0.36) - np.sqrt((offset * offset).sum(axis=1))
    return distance * np.float32(5)


def _checks(q: Floats, material: Material) -> Floats:
    wave = np.sin(q * (_turns(material) * np.float32(0.7)) + _phase(material))
    product: Floats = wave[:, 0] * wave[:, 1] * wave[:, 2] * np.float32(4)
    return product


def _marble(q: Floats, material: Material) -> Floats:
    turns = _turns(material)
    bend = np.sin(q[:, 0] * turns * 1.3 + 1) + np.sin(q[:, 2] * turns * 1.7 + _phase(material))
    wave: Floats = np.sin(q @ _f32(material.axis) * turns + np.float32(1.6) * bend)
    return wave - np.float32(0.35)


def _patches(q: Floats, material: Material) -> Floats:
    turns = _turns(material) * np.float32(0.6)
    waves = np.sin(q * turns + _phase(material)) + np.float32(0.6) * np.cos(q[:, (1, 2, 0)] * turns * np.float32(1.9))
    total: Floats = waves.sum(axis=1) - np.float32(0.3)
    return total


def _rings(q: Floats, material: Material) -> Floats:
    centre = _f32(material.axis) * np.float32(0.45)
    distance = np.sqrt(((q - centre) ** 2).sum(axis=1))
    wave: Floats = np.sin(distance * _turns(material) * np.float32(1.2) + _phase(material))
    return wave


def _sectors(q: Floats, material: Material) -> Floats:
    angle = np.arctan2(q[:, 0], q[:, 2]) + _phase(material)
    wave: Floats = np.sin(angle * np.float32(max(2, round(material.frequency))))
    return wave


PATTERNS: dict[str, Callable[[Floats, Material], Floats]] = {
    "plain": _plain,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "marble": _marble,
    "patches": _patches,
    "rings": _rings,
    "sectors": _sectors,
}
"""Name to a function of places (N, 3) in units; above 0 is the pattern's colour."""


def _f32(values: Vector) -> Floats:
    return np.array(values, np.float32)


def _turns(material: Material) -> np.float32:
    return np.float32(2 * np.pi * material.frequency)


def _phase(material: Material) -> np.float32:
    return np.float32(material.phase)


def shade(
    buffer: Buffer, materials: tuple[Material, ...], pose: Pose, light: Light
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Colours of a buffer.

    Args:
        buffer: drawn.
        materials: by number.
        pose: that the buffer was drawn in.
        light: in the view.

    Returns:
        (h, w, 3) 0–255, zero where there is nothing, and (h, w) True where a pattern shows its second colour.
    """
    height, width = buffer.depth.shape
    colours = np.zeros((height * width, 3), np.float32)
    patterned = np.zeros(height * width, bool)
    material_of, normals, depths = buffer.material.reshape(-1), buffer.normal.reshape(-1, 3), buffer.depth.reshape(-1)
    direction = _f32(light.direction)
    half = direction + _f32((0, 0, 1))
    half /= np.linalg.norm(half)
    view = rotation(pose.pitch, pose.yaw, pose.roll).astype(np.float32)
    gain = _f32(light.gain) * np.float32(255)
    for number, material in enumerate(materials):
        at = np.flatnonzero(material_of == number)
        if not len(at):
            continue
        normal = normals[at]
        rows, columns = np.divmod(at.astype(np.int32), np.int32(width))
        place = np.stack([buffer.xs[columns], buffer.ys[rows], depths[at]], axis=1) @ view
        value = PATTERNS[material.pattern](place, material)
        weight = np.clip(value * np.float32(4) + np.float32(0.5), 0, 1)[:, None]
        ground, figure = (_f32(colour) for colour in material.colours)
        albedo = ground + weight * (figure - ground)
        if material.grain:
            albedo *= (1 + np.float32(material.grain) * _fine(place))[:, None]
        diffuse = np.clip(normal @ direction * np.float32(0.75) + np.float32(0.25), 0, None)
        sky = np.float32(0.8) + np.float32(0.2) * normal[:, 1]
        lit = np.float32(light.ambient) * sky + np.float32(1.15 * (1 - light.ambient)) * diffuse
        shine = np.clip(normal @ half, 0, 1) ** np.float32(40) * np.float32(0.7 * material.gloss)
        colours[at] = np.clip(albedo * lit[:, None] + shine[:, None], 0, 1) * gain
        patterned[at] = value > 0
    return np.minimum(colours, 255).reshape(height, width, 3), patterned.reshape(height, width)


def _fine(place: Floats) -> Floats:
    """Unevenness between -1 and 1 that sits on the surface, fine as cloth."""
    x, y, z = (place * np.float32(61)).T
    value: Floats = np.sin(x + np.float32(1.7) * np.sin(y)) * np.sin(y * np.float32(1.3) + z)
    value += np.float32(0.5) * np.sin(z * np.float32(2.3) + x * np.float32(1.9))
    return value


_DYES: tuple[Vector, ...] = (
    (0.93, 0.88, 0.77), (0.95, 0.95, 0.93), (0.56, 0.37, 0.22), (0.78, 0.62, 0.43), (0.20, 0.19, 0.20),
    (0.53, 0.54, 0.56), (0.70, 0.16, 0.14), (0.86, 0.42, 0.14), (0.89, 0.71, 0.22), (0.42, 0.45, 0.20),
    (0.16, 0.40, 0.24), (0.15, 0.47, 0.50), (0.50, 0.70, 0.85), (0.15, 0.23, 0.46), (0.47, 0.30, 0.53),
    (0.89, 0.58, 0.63), (0.44, 0.10, 0.18), (0.62, 0.76, 0.58),
)  # fmt: skip
_LEAST_CONTRAST = 0.35


def colours(rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    """A ground, a pattern and an accent colour that stand apart from each other, RGB 0–1."""
    chosen: list[npt.NDArray[np.float64]] = []
    for index in rng.permutation(len(_DYES)).tolist():
        dye = np.clip(np.array(_DYES[index]) + rng.normal(0, 0.03, 3), 0.04, 0.97)
        if all(np.linalg.norm(dye - other) > _LEAST_CONTRAST for other in chosen):
            chosen.append(dye)
        if len(chosen) == 3:
            break
    ground, figure, accent = (tuple(colour.tolist()) for colour in chosen)
    return ground, figure, accent
