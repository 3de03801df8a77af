"""A small renderer of smooth solids: ellipsoids and lathed bodies in a depth buffer, seen from afar.

Geometry only: which material and part a pixel shows, how deep it lies and where its surface looks. x goes right, y up,
z towards the viewer; lengths are in units of the subject, angles in radians. Colours are in `materials`.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Vector = tuple[float, float, float]
NOTHING = 255
_BISECTIONS = 11
_PROFILE_STEPS = 1024


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A ball stretched along three axes.

    Attributes:
        centre, radii: in units.
        turn: about x, then y, then z.
        material, part: what its pixels are marked with.
    """

    centre: Vector
    radii: Vector
    material: int
    part: int
    turn: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Lathe:
    """A body turned about the y axis, standing on y = 0; only its side and its top are ever seen.

    Attributes:
        radii: at evenly spaced heights from the foot to the rim.
        height: of the rim.
        material, part: of the side.
        rim: material and part of the ring around the opening.
        inside: material and part of the opening.
    """

    radii: tuple[float, ...]
    height: float
    material: int
    part: int
    rim: tuple[int, int]
    inside: tuple[int, int]


Solid = Ellipsoid | Lathe


@dataclass(frozen=True, slots=True)
class Pose:
    """How a subject is seen: turned about its own upright axis, looked down at, tilted in the picture."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


def rotation(about_x: float, about_y: float, about_z: float) -> npt.NDArray[np.float64]:
    """Rz Rx Ry, (3, 3): about y first."""
    cx, sx, cy, sy, cz, sz = (f(a) for a in (about_x, about_y, about_z) for f in (math.cos, math.sin))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    product: npt.NDArray[np.float64] = z @ x @ y
    return product


class Extents:
    """How large the picture of some solids is, quickly: their shapes as arrays."""

    def __init__(self, solids: tuple[Solid, ...]) -> None:
        balls = [solid for solid in solids if isinstance(solid, Ellipsoid)]
        self._centres = np.array([ball.centre for ball in balls]).reshape(-1, 3)
        self._shapes = np.array([_shape(ball) for ball in balls]).reshape(-1, 3, 3)
        self._lathes = [(solid.height, max(solid.radii)) for solid in solids if isinstance(solid, Lathe)]

    def seen(self, pose: Pose) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in units, around the projected origin; a little too large."""
        view = rotation(pose.pitch, pose.yaw, pose.roll)[:2]
        middle = self._centres @ view.T
        half = np.sqrt(((view @ self._shapes) ** 2).sum(axis=2))
        for height, radius in self._lathes:
            up = view[:, 1]
            middle = np.vstack([middle, up * height / 2])
            half = np.vstack([half, np.abs(up) * height / 2 + radius * np.sqrt(1 - up**2)])
        left, bottom = (middle - half).min(axis=0).tolist()
        right, top = (middle + half).max(axis=0).tolist()
        return left, bottom, right, top


def _shape(solid: Ellipsoid) -> npt.NDArray[np.float64]:
    shape: npt.NDArray[np.float64] = rotation(*solid.turn) * np.array(solid.radii)
    return shape


class Buffer:
    """A window of the picture with what is seen in each pixel.

    Attributes:
        depth: (h, w) z of the nearest surface; -inf where there is none.
        normal: (h, w, 3) of unit length.
        material, part: (h, w); `NOTHING` where there is no surface.
        xs, ys: (w,), (h,) positions of the pixel centres in units.
    """

    def __init__(self, window: tuple[int, int, int, int], anchor: tuple[float, float], px_per_unit: float) -> None:
        """Open an empty window.

        Args:
            window: (x0, y0, x1, y1) pixels of the picture.
            anchor: pixel at which the origin lies.
            px_per_unit: scale.
        """
        x0, y0, x1, y1 = window
        self.xs = ((np.arange(x0, x1) + 0.5 - anchor[0]) / px_per_unit).astype(np.float32)
        self.ys = ((anchor[1] - np.arange(y0, y1) - 0.5) / px_per_unit).astype(np.float32)
        shape = (y1 - y0, x1 - x0)
        self.depth = np.full(shape, -np.inf, np.float32)
        self.normal = np.zeros((*shape, 3), np.float32)
        self.material = np.full(shape, NOTHING, np.uint8)
        self.part = np.full(shape, NOTHING, np.uint8)

    def draw(self, solids: tuple[Solid, ...], pose: Pose) -> None:
        """Add solids; nearer surfaces win."""
        view = rotation(pose.pitch, pose.yaw, pose.roll)
        for solid in solids:
            if isinstance(solid, Ellipsoid):
                self._ellipsoid(solid, view)
            else:
                self._lathe(solid, pose)

    def _span(self, low: float, high: float, positions: Floats) -> slice:
        inside = np.flatnonzero((positions >= low) & (positions <= high))
        return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)

    def _ellipsoid(self, solid: Ellipsoid, view: npt.NDArray[np.float64]) -> None:
        shape = view @ _shape(solid)  # unit ball to view
        centre = view @ np.array(solid.centre)
        half = np.sqrt((shape**2).sum(axis=1))
        rows = self._span(centre[1] - half[1], centre[1] + half[1], self.ys)
        columns = self._span(centre[0] - half[0], centre[0] + half[0], self.xs)
        if rows.stop == rows.start or columns.stop == columns.start:
            return
        inverse = np.linalg.inv(shape).astype(np.float32)
        n0, n1, n2 = inverse.T
        x = (self.xs[columns] - np.float32(centre[0]))[None, :]
        y = (self.ys[rows] - np.float32(centre[1]))[:, None]
        # |n0 x + n1 y + n2 z| = 1, solved for the z nearest to the viewer
        a = n2 @ n2
        b = (n2 @ n0) * x + (n2 @ n1) * y
        c = (n0 @ n0) * x * x + (2 * (n0 @ n1)) * (x * y) + (n1 @ n1) * y * y - np.float32(1)
        inside = b * b - a * c
        z = (np.sqrt(np.maximum(inside, 0)) - b) / a
        hit = (inside > 0) & (z + np.float32(centre[2]) > self.depth[rows, columns])
        if not hit.any():
            return
        at_row, at_column = np.nonzero(hit)
        depth = z[hit]
        ball = n0 * x[0, at_column, None] + n1 * y[at_row, 0, None] + n2 * depth[:, None]
        normal = ball @ inverse
        normal /= np.sqrt((normal * normal).sum(axis=1, keepdims=True))
        self._put(rows.start + at_row, columns.start + at_column, depth + np.float32(centre[2]), normal, solid)

    def _put(
        self, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], depth: Floats, normal: Floats, marks: Ellipsoid
    ) -> None:
        self.depth[rows, columns] = depth
        self.normal[rows, columns] = normal
        self.material[rows, columns] = marks.material
        self.part[rows, columns] = marks.part

    def _lathe(self, solid: Lathe, pose: Pose) -> None:
        """The front of a lathed body: for every pixel the height whose front circle passes through it.

        The tilt in the picture is undone first; seen from above by `pitch`, the point at height h and angle t lies at
        (r sin t, h cos pitch - r cos t sin pitch), which grows with h where the body does not overhang.
        """
        cosine, sine = np.float32(math.cos(pose.pitch)), np.float32(math.sin(pose.pitch))
        cos_roll, sin_roll = np.float32(math.cos(-pose.roll)), np.float32(math.sin(-pose.roll))
        x = cos_roll * self.xs[None, :] - sin_roll * self.ys[:, None]
        y = sin_roll * self.xs[None, :] + cos_roll * self.ys[:, None]
        radii = np.interp(np.linspace(0, 1, _PROFILE_STEPS), np.linspace(0, 1, len(solid.radii)), solid.radii).astype(
            np.float32
        )
        height = np.float32(solid.height)
        slope = np.gradient(radii, height / (_PROFILE_STEPS - 1)).astype(np.float32)
        widens = np.sign(slope)
        squared = x * x

        low, high = np.zeros_like(x), np.ones_like(x)
        for _ in range(_BISECTIONS):
            middle = (low + high) * np.float32(0.5)
            step = (middle * (_PROFILE_STEPS - 1)).astype(np.int32)
            radius = radii[step]
            left = radius * radius - squared
            # where the body is too narrow to reach x, the sign leads to where it is wide enough
            z = np.sqrt(np.abs(left)) * np.where(left < 0, widens[step], np.float32(1))
            below = middle * height * cosine - z * sine < y
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        step = (low * (_PROFILE_STEPS - 1)).astype(np.int32)
        radius = radii[step]
        z = np.sqrt(np.maximum(radius * radius - squared, 0))
        foot = np.sqrt(np.maximum(radii[0] * radii[0] - squared, 0))
        side = (squared <= radius * radius) & (y >= -foot * sine) & (y <= height * cosine)
        side &= y - (low * height * cosine - z * sine) < 3 * height / _PROFILE_STEPS  # beyond it lies the opening
        depth = low * height * sine + z * cosine
        flare = -slope[step]
        length = np.maximum(np.sqrt(1 + flare * flare), 1e-6)
        safe = np.maximum(radius, 1e-6)
        normal = np.stack([x / safe, flare, z / safe], axis=-1) / length[..., None]
        self._put_lathe(side, depth, normal, pose, (solid.material, solid.part))

        if sine > 0.01:
            z = (height * cosine - y) / sine
            distance = np.sqrt(squared + z * z) / radii[-1]
            depth = height * sine + z * cosine + np.float32(1e-3)
            ring = (distance <= 1) & (distance > 0.86)
            self._put_lathe(
                ring, depth, np.broadcast_to(np.array([0, 1, 0], np.float32), normal.shape), pose, solid.rim
            )
            hollow = np.stack([-x, np.full_like(x, 0.5 * radii[-1]), -z], axis=-1)
            hollow /= np.maximum(np.sqrt((hollow * hollow).sum(axis=-1, keepdims=True)), 1e-6)
            self._put_lathe(distance <= 0.86, depth, hollow, pose, solid.inside)

    def _put_lathe(
        self, where: npt.NDArray[np.bool_], depth: Floats, normal: Floats, pose: Pose, marks: tuple[int, int]
    ) -> None:
        """Write pixels whose normals are in the upright body's frame."""
        where = where & (depth > self.depth)
        self.depth[where] = depth[where]
        self.normal[where] = normal[where] @ rotation(pose.pitch, 0, pose.roll).T.astype(np.float32)
        self.material[where], self.part[where] = marks
