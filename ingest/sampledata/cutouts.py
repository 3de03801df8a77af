"""Subjects cut from photographs: outlines drawn by hand (`outlines.json`), warped with a soft edge and exact parts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from refloom.ingest.sampledata import photos
from refloom.ingest.sampledata.materials import Light
from refloom.ingest.sampledata.solids import Floats, Pose
from refloom.ingest.sampledata.subjects import Placement, Sprite, clipped_window
from refloom.schemas.pictures import Pixels

FACE = "face"
_KEYSTONE = 0.22
_SUPERSAMPLING = 4
_SIDE_LIGHT = 0.16
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Source:
    """A cut-out at one size: (h, w, 4) premultiplied RGBA, (h, w) part numbers + 1, pixels of the photo per pixel."""

    rgba: Pixels
    parts: Pixels
    shrunk: int


@dataclass(frozen=True)
class Cutout:
    """A real subject.

    Attributes:
        number: identity.
        name: ours.
        kind: key of `kinds` in categories.json.
        photo: name of the photograph.
        held_out: occurs only outside of train.
        cut_out: may stand in other places than its own photograph.
        stands: `floor`, or `bottom` where the photograph cuts it off below.
        size: beside other subjects, 1 is a teddy bear.
        lean: tilt that sets it level on a ground seen from farther up than its own was, radians.
        outline, holes: (N, 2) pixels of the photograph.
        shapes: outlines of the parts, later ones lie on earlier ones.
    """

    number: int
    name: str
    kind: str
    photo: str
    held_out: bool
    cut_out: bool
    stands: str
    size: float
    lean: float
    outline: Floats
    holes: tuple[Floats, ...]
    shapes: dict[str, Floats]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(self.shapes)

    @cached_property
    def _frame(self) -> tuple[float, float, float, float]:
        """(middle x, bottom y, width, height) of the outline in the photograph."""
        (x0, y0), (x1, y1) = self.outline.min(axis=0).tolist(), self.outline.max(axis=0).tolist()
        return (x0 + x1) / 2, y1, x1 - x0, y1 - y0

    def extent(self, pose: Pose, *, mirrored: bool = False) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in units around the foot; a unit is the subject's height."""
        points = _applied(self._to_units(pose, mirrored), self.outline)
        (left, bottom), (right, top) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return left, bottom, right, top

    def _to_units(self, pose: Pose, mirrored: bool) -> Matrix:
        """Photograph to units, y up: turned about the upright axis as a flat card, then tilted."""
        middle, bottom, _, height = self._frame
        side = -1 if mirrored else 1
        card = np.array([[side / height, 0, -side * middle / height], [0, -1 / height, bottom / height], [0, 0, 1]])
        turn = np.array([[math.cos(pose.yaw), 0, 0], [0, 1, 0], [_KEYSTONE * math.sin(pose.yaw), 0, 1]])
        roll = pose.roll + side * self.lean
        c, s = math.cos(roll), math.sin(roll)
        product: Matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ turn @ card
        return product

    def draw(self, place: Placement, light: Light, width: int, height: int, *, blurred: bool) -> Sprite | None:
        """The subject in a picture of a size; None where nothing of it lies in the picture."""
        to_picture = np.array([[place.px_per_unit, 0, place.x], [0, -place.px_per_unit, place.y], [0, 0, 1]])
        matrix = to_picture @ self._to_units(place.pose, place.mirrored)
        points = _applied(matrix, self.outline)
        window = clipped_window((*points.min(axis=0).tolist(), *points.max(axis=0).tolist()), width, height)
        if window is None:
            return None
        source = self._source(self._frame[3] / place.px_per_unit, blurred)
        x0, y0, x1, y1 = window
        shift = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]])
        matrix = shift @ _between_centres(matrix, source.shrunk)
        size = (x1 - x0, y1 - y0)
        rgba = cv2.warpPerspective(source.rgba, matrix, size, flags=cv2.INTER_LINEAR).astype(np.float32)
        parts = cv2.warpPerspective(source.parts, matrix, size, flags=cv2.INTER_NEAREST)
        gain = np.array(light.gain, np.float32)
        across = np.linspace(-1, 1, size[0], dtype=np.float32) * np.float32(_SIDE_LIGHT * light.direction[0])
        colours = np.minimum(rgba[..., :3] * (gain * (1 + across)[:, None])[None], rgba[..., 3:])
        return Sprite(x0, y0, colours, rgba[..., 3] / 255, parts)

    def _source(self, photo_px_per_px: float, blurred: bool) -> _Source:
        levels = _sources(self.number, blurred)
        wanted = [source for source in levels if source.shrunk <= max(1.0, photo_px_per_px * 1.3)]
        return wanted[-1]

    def labels(self, matrix: Matrix, width: int, height: int) -> tuple[Pixels, Pixels]:
        """Where the subject and its parts lie when its whole photograph is drawn by `matrix`.

        Args:
            matrix: (3, 3) photograph to picture, pixel edges.
            width, height: of the picture.

        Returns:
            (h, w) 1 inside the outline, and (h, w) part numbers + 1.
        """
        inside = filled([_applied(matrix, self.outline)], width, height)
        for hole in self.holes:
            inside &= ~filled([_applied(matrix, hole)], width, height) & 1
        parts = np.zeros((height, width), np.uint8)
        for number, outline in enumerate(self.shapes.values(), 1):
            parts[filled([_applied(matrix, outline)], width, height) != 0] = number
        return inside, parts * inside


def filled(outlines: Sequence[npt.NDArray[np.floating]], width: int, height: int) -> Pixels:
    """(h, w) 1 inside polygons whose coordinates count from pixel edges."""
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.round((outline - 0.5) * 16).astype(np.int32) for outline in outlines], 1, shift=4)
    return canvas


def _applied(matrix: Matrix, points: Floats) -> npt.NDArray[np.float64]:
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    image: npt.NDArray[np.float64] = homogeneous[:, :2] / homogeneous[:, 2:]
    return image


def _between_centres(matrix: Matrix, shrunk: int) -> Matrix:
    """For cv2, which counts from pixel centres: a matrix between pixel edges, from a source shrunk by a factor."""
    to_edges = np.array([[shrunk, 0, 0.5 * shrunk], [0, shrunk, 0.5 * shrunk], [0, 0, 1]])
    to_centres = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    product: Matrix = to_centres @ matrix @ to_edges
    return product


@cache
def _sources(number: int, blurred: bool) -> tuple[_Source, ...]:
    """A cut-out in its own size, a half and a quarter of it."""
    subject = real()[number]
    photo = face_blurred(subject.photo) if blurred else photos.pixels(subject.photo)
    height, width = photo.shape[:2]
    fine = [outline * _SUPERSAMPLING for outline in (subject.outline, *subject.holes)]
    inside = filled(fine[:1], width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    for hole in fine[1:]:
        inside[filled([hole], width * _SUPERSAMPLING, height * _SUPERSAMPLING) != 0] = 0
    alpha = cv2.resize(inside.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    # pixels of the edge show some of what was behind: they take their colour from further inside
    core = cv2.erode((alpha > 0.99).astype(np.float32), np.ones((3, 3), np.uint8))[..., None]
    near = (
        cv2.GaussianBlur(photo * core, (0, 0), 1.5) / np.maximum(cv2.GaussianBlur(core, (0, 0), 1.5), 1e-4)[..., None]
    )
    colours = np.where(core > 0, photo, np.where(near.max(axis=2, keepdims=True) > 0, near, photo))
    rgba = np.dstack([colours * alpha[..., None], alpha * 255]).round().astype(np.uint8)
    parts = subject.labels(np.eye(3), width, height)[1]
    levels = []
    for shrunk in (1, 2, 4):
        size = (width // shrunk, height // shrunk)
        whole = (size[1] * shrunk, size[0] * shrunk)
        small = cv2.resize(rgba[: whole[0], : whole[1]], size, interpolation=cv2.INTER_AREA)
        levels.append(_Source(small, parts[shrunk // 2 :: shrunk, shrunk // 2 :: shrunk].copy(), shrunk))
    return tuple(levels)


@cache
def face_blurred(photo: str) -> Pixels:
    """A photograph with the faces of its subjects made unknowable, as SA-1B does."""
    pixels = photos.pixels(photo).copy()
    for subject in real().values():
        if subject.photo != photo or FACE not in subject.shapes:
            continue
        outline = subject.shapes[FACE]
        x0, y0 = np.floor(outline.min(axis=0)).astype(int) - 8
        x1, y1 = np.ceil(outline.max(axis=0)).astype(int) + 8
        part = pixels[y0:y1, x0:x1].astype(np.float32)
        smooth = cv2.GaussianBlur(part, (0, 0), (x1 - x0) / 5)
        weight = cv2.GaussianBlur(filled([outline - (x0, y0)], x1 - x0, y1 - y0).astype(np.float32), (0, 0), 3)[
            ..., None
        ]
        pixels[y0:y1, x0:x1] = (part + weight * (smooth - part)).round().astype(np.uint8)
    pixels.flags.writeable = False
    return pixels


@cache
def real() -> dict[int, Cutout]:
    """All real subjects by identity number."""
    return {entry["number"]: _read(entry) for entry in photos.data("outlines.json")["subjects"]}


def _read(entry: dict[str, Any]) -> Cutout:
    def points(flat: list[float]) -> Floats:
        return np.array(flat, np.float32).reshape(-1, 2)

    return Cutout(
        number=entry["number"],
        name=entry["name"],
        kind=entry["kind"],
        photo=entry["photo"],
        held_out=entry["split"] == "val",
        cut_out=entry["cut_out"],
        stands=entry["stands"],
        size=entry["size"],
        lean=entry["lean"],
        outline=points(entry["outline"]),
        holes=tuple(points(hole) for hole in entry["holes"]),
        shapes={name: points(flat) for name, flat in entry["parts"].items()},
    )


def in_photo(photo: str) -> list[Cutout]:
    """Real subjects of a photograph."""
    return [subject for subject in real().values() if subject.photo == photo]


def placeable(*, held_out: bool) -> list[Cutout]:
    """Real subjects that may stand in other places, of one side of the split."""
    return [subject for subject in real().values() if subject.cut_out and subject.held_out == held_out]
