"""Places: a floor before a wall, both from photographs, or a whole photograph with its own subjects in it."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from refloom.ingest.sampledata import cutouts, photos
from refloom.ingest.sampledata.cutouts import Cutout, Matrix
from refloom.ingest.sampledata.photos import Region, View
from refloom.schemas.pictures import Pixels

_FOCAL = 1.2
"""Of the pretended camera, in picture heights."""

WALL, FLOOR = 1, 2
_Rng = np.random.Generator
_LEAST_WALL_ROWS = 0.1


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A place, ready to be stood on.

    Attributes:
        pixels: (H, W, 3) uint8.
        regions: (H, W) `WALL`, `FLOOR`, or 0 where the place is one photograph.
        own: real subjects that are in the photograph, the nearest last.
        labels: (H, W) position in `own` + 1, 0 elsewhere.
        parts: (H, W) part numbers + 1 of those subjects.
        vanish_y: row of the horizon, in or above the picture.
        ground: (first, last) row on which something can stand; None if there are none.
        table_y: row of a table's far edge, behind which people sit; None if there is no table.
        words: what captions call it, one tuple for each of wall and floor, or for the photograph.
        photos: names.
        grey: the photograph has no colours.
    """

    pixels: Pixels
    regions: Pixels
    own: tuple[Cutout, ...]
    labels: Pixels
    parts: Pixels
    vanish_y: float
    ground: tuple[float, float] | None
    table_y: float | None
    words: tuple[tuple[str, ...], ...]
    photos: frozenset[str]
    grey: bool = False

    def pitch_at(self, y: float) -> float:
        """How far something that stands at a row is looked down at, radians."""
        return math.atan2(y - self.vanish_y, _FOCAL * self.pixels.shape[0])

    def reduced(self, times: int) -> "Backdrop":
        """The same, so many times smaller; a place of whole photographs keeps no subjects of its own."""
        size = (self.pixels.shape[1] // times, self.pixels.shape[0] // times)
        still = np.zeros(size[::-1], np.uint8)
        return replace(
            self,
            pixels=cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA),
            regions=cv2.resize(self.regions, size, interpolation=cv2.INTER_NEAREST),
            own=(),
            labels=still,
            parts=still,
            vanish_y=self.vanish_y / times,
            ground=None if self.ground is None else (self.ground[0] / times, self.ground[1] / times),
            table_y=None if self.table_y is None else self.table_y / times,
        )

    def seen_through(self, matrix: Matrix, width: int, height: int) -> "Backdrop":
        """The part of it that a camera sees.

        Args:
            matrix: (3, 3) scale and shift from this picture to the camera's, pixel edges.
            width, height: of the camera's picture.
        """
        move = matrix[:2].copy()
        move[:, 2] += 0.5 * (np.diag(move) - 1)  # cv2 counts from pixel centres
        size, nearest = (width, height), cv2.INTER_NEAREST
        still = np.zeros((height, width), np.uint8)
        zoom, shift = float(matrix[1, 1]), float(matrix[1, 2])
        return Backdrop(
            pixels=cv2.warpAffine(self.pixels, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
            regions=cv2.warpAffine(self.regions, move, size, flags=nearest, borderMode=cv2.BORDER_REPLICATE),
            own=self.own,
            labels=cv2.warpAffine(self.labels, move, size, flags=nearest) if self.own else still,
            parts=cv2.warpAffine(self.parts, move, size, flags=nearest) if self.own else still,
            vanish_y=self.vanish_y * zoom + shift,
            ground=None if self.ground is None else (self.ground[0] * zoom + shift, self.ground[1] * zoom + shift),
            table_y=None if self.table_y is None else self.table_y * zoom + shift,
            words=self.words,
            photos=self.photos,
            grey=self.grey,
        )


def place(rng: _Rng, width: int, height: int, *, table: bool | None = None) -> Backdrop:
    """A floor before a wall, both drawn.

    Args:
        rng: chooses and varies.
        width, height: pixels.
        table: with a table for a floor, without, or as it comes.
    """
    floors = [floor for floor in photos.floors() if table is None or floor.table == table]
    floor = floors[int(rng.integers(len(floors)))]
    walls = [wall for wall in photos.walls() if wall.outdoors or not floor.outdoors]
    return before(rng, floor, walls[int(rng.integers(len(walls)))], width, height)


def before(rng: _Rng, floor: Region, wall: Region, width: int, height: int) -> Backdrop:
    """A floor before a wall, both given.

    Args:
        rng: varies.
        floor, wall: of `photos.floors()` and `photos.walls()`.
        width, height: pixels.
    """
    pitch = float(rng.uniform(0.16, 0.34) if floor.table else rng.uniform(0.12, 0.36))
    vanish = 0.5 - _FOCAL * math.tan(pitch)
    edge = max(vanish + 0.08, float(rng.uniform(0.42, 0.62) if floor.table else rng.uniform(0.25, 0.5)))
    top = max(round(height * _LEAST_WALL_ROWS), round(height * edge))
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:top] = _wall(rng, wall, width, top)
    pixels[top:] = _floor(rng, floor, width, height, top, vanish * height)
    _darken_seam(pixels, top, floor.table)
    pixels = _graded(pixels, rng)
    regions = np.full((height, width), FLOOR, np.uint8)
    regions[:top] = WALL
    nothing = np.zeros((height, width), np.uint8)
    return Backdrop(
        pixels=pixels,
        regions=regions,
        own=(),
        labels=nothing,
        parts=nothing,
        vanish_y=vanish * height,
        ground=(top + 0.03 * height, float(height)),
        table_y=float(top) if floor.table else None,
        words=(floor.words, wall.words),
        photos=frozenset({wall.photo, floor.photo}),
    )


def view(rng: _Rng, width: int, height: int, *, held_out: bool, blurred: bool = False, photo: str = "") -> Backdrop:
    """A crop of a whole photograph with its own subjects.

    Args:
        rng: chooses and varies.
        width, height: pixels.
        held_out: side of the split on which its subjects must be.
        blurred: hide faces.
        photo: its name; chosen if empty.
    """
    choices = [
        entry
        for entry in photos.views()
        if all(subject.held_out == held_out for subject in cutouts.in_photo(entry.photo))
    ]
    named = [entry for entry in choices if entry.photo == photo]
    chosen: View = named[0] if named else choices[int(rng.integers(len(choices)))]
    source = cutouts.face_blurred(chosen.photo) if blurred else photos.pixels(chosen.photo)
    own = tuple(cutouts.in_photo(chosen.photo))
    matrix = _crop(rng, source.shape[1], source.shape[0], own, width, height)
    centres = (
        np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]]) @ matrix @ np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    )
    pixels = cv2.warpAffine(source, centres[:2], (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    labels, parts = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    for number, subject in enumerate(own, 1):
        inside, of_subject = subject.labels(matrix, width, height)
        labels[inside != 0] = number
        parts[inside != 0] = of_subject[inside != 0]
    ground = None
    if chosen.ground is not None:
        first, last = (matrix[1, 1] * row + matrix[1, 2] for row in chosen.ground)
        ground = (first, last) if first < 0.97 * height else None
    return Backdrop(
        pixels=_graded(pixels, rng),
        regions=np.zeros((height, width), np.uint8),
        own=own,
        labels=labels,
        parts=parts,
        vanish_y=float(matrix[1, 1] * chosen.horizon + matrix[1, 2]),
        ground=ground,
        table_y=None,
        words=(chosen.words,),
        photos=frozenset({chosen.photo}),
        grey=bool((source[..., 0] == source[..., 2]).all()),
    )


def _crop(rng: _Rng, full_width: int, full_height: int, own: tuple[Cutout, ...], width: int, height: int) -> Matrix:
    """(3, 3) photograph to picture: covers the picture, maybe mirrored, with the first subject mostly inside."""
    cover = max(width / full_width, height / full_height)
    zoom = cover * float(rng.uniform(1.0, 1.2))
    (x0, y0), (x1, y1) = own[0].outline.min(axis=0) * zoom, own[0].outline.max(axis=0) * zoom
    middle = ((x0 + x1) / 2 - width * rng.uniform(0.35, 0.65), (y0 + y1) / 2 - height * rng.uniform(0.4, 0.6))
    left = float(np.clip(middle[0], 0, full_width * zoom - width))
    if y1 - y0 > 0.9 * height:
        middle = (middle[0], y0 - 0.06 * height)  # what is too tall shows its upper end: people have their faces there
    upper = float(np.clip(middle[1], 0, full_height * zoom - height))
    matrix: Matrix = np.array([[zoom, 0, -left], [0, zoom, -upper], [0, 0, 1]])
    if rng.random() < 0.5:
        matrix = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1.0]]) @ matrix
    return matrix


def _wall(rng: _Rng, region: Region, width: int, rows: int) -> Pixels:
    source = photos.texture(region)
    cover = max(width / source.shape[1], rows / source.shape[0])
    zoom = cover * float(rng.uniform(1.0, 1.25))
    left = float(rng.uniform(0, source.shape[1] * zoom - width + 1e-6))
    upper = float(rng.uniform(0, source.shape[0] * zoom - rows + 1e-6))
    matrix = np.array([[zoom, 0, -left], [0, zoom, -upper]])
    if rng.random() < 0.5:
        matrix = np.array([[-zoom, 0, width - 1 + left], [0, zoom, -upper]])
    wall = cv2.warpAffine(source, matrix, (width, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    sigma = float(rng.uniform(0.4, 3.0)) * width / 640
    blurred: Pixels = cv2.GaussianBlur(wall, (0, 0), sigma)
    return blurred


def _floor(rng: _Rng, region: Region, width: int, height: int, top: int, vanish_y: float) -> Pixels:
    """The texture on a plane below the horizon, mirrored where it ends."""
    source = photos.texture(region)
    texels = region.texels * 480 / height * float(rng.uniform(0.8, 1.2))
    focal = _FOCAL * height
    turn = float(rng.uniform(-math.pi, math.pi)) if not region.table else float(rng.uniform(-0.3, 0.3) + math.pi / 2)
    reach = texels * (height - vanish_y)  # texels per unit of (x - middle) / (y - horizon)
    c, s = math.cos(turn), math.sin(turn)
    onto_texture = np.array([[reach * c, -reach * s, 0], [reach * s, reach * c, 0], [0, 0, 1]])
    onto_texture[:2, 2] = rng.uniform(0, 1, 2) * source.shape[1::-1]
    onto_plane = np.array([[1, 0, -width / 2], [0, 0, focal], [0, 1, top - vanish_y]])
    matrix = onto_texture @ onto_plane
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    floor: Pixels = cv2.warpPerspective(
        source, matrix, (width, height - top), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    far = max(2, (height - top) // 4)
    soft = cv2.GaussianBlur(floor[: 2 * far], (0, 0), 1.4 * height / 480)
    weight = np.linspace(1, 0, len(soft), dtype=np.float32)[:, None, None]
    floor[: len(soft)] = (floor[: len(soft)] + weight * (soft.astype(np.float32) - floor[: len(soft)])).astype(np.uint8)
    return floor


def _darken_seam(pixels: Pixels, top: int, is_table: bool) -> None:
    """Less light reaches the corner of wall and floor; a table has an edge instead."""
    height = len(pixels)
    rows = np.arange(height, dtype=np.float32)
    if is_table:
        shade = 1 - 0.35 * np.exp(-(((rows - top) / (0.006 * height)) ** 2))
    else:
        shade = 1 - 0.4 * np.exp(-np.abs(rows - top) / (0.035 * height))
    near = slice(max(0, top - height // 6), min(height, top + height // 6))
    pixels[near] = (pixels[near] * shade[near, None, None]).astype(np.uint8)


def _graded(pixels: Pixels, rng: _Rng) -> Pixels:
    """Other light: brightness, contrast and warmth, one table a channel."""
    gain = float(rng.uniform(0.8, 1.15))
    warmth = float(rng.normal(0, 0.05))
    gamma = float(rng.uniform(0.85, 1.15))
    levels = (np.arange(256) / 255) ** gamma * gain * 255
    table = np.stack([levels * (1 + warmth), levels, levels * (1 - warmth)], axis=1)
    graded: Pixels = cv2.LUT(pixels, np.clip(table, 0, 255).astype(np.uint8)[None])
    return graded


def average_light(backdrop: Backdrop) -> npt.NDArray[np.float32]:
    """Gains (3,) that let a subject fit in: half-way from white light to the colour of the place."""
    mean = backdrop.pixels[::16, ::16].reshape(-1, 3).mean(axis=0)
    cast = mean / max(1.0, float(mean.mean()))
    brightness = np.clip(0.62 + mean.mean() / 255 * 0.75, 0.7, 1.12)
    gains: npt.NDArray[np.float32] = (brightness * (0.72 + 0.28 * np.clip(cast, 0.6, 1.5))).astype(np.float32)
    return gains
