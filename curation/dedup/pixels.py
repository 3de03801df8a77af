"""Whether two pictures are one photograph, by their pixels: laid over each other, and compared block by block.

Hash and embedding propose pairs; two photographs of one sitting are near by both. But only a copy, whatever was cut
off, scaled, mirrored, coloured or written on it, agrees with its original in the small: here each block of one is
correlated with what lies on it of the other, which neither brightness nor contrast changes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]

_WORK_PX = 256
"""Longer side at which pictures are compared: the details of a copy at a quarter of the size are still there."""
_KEYPOINTS = 400
_RATIO = 0.8
"""Of the distances to the nearest and the second keypoint: Lowe's test (IJCV 2004, section 7.1)."""
_LEAST_INLIERS = 8
_REPROJECTION_PX = 2.0
_MOST_SHEAR = 0.06
"""A copy is scaled and shifted, neither turned nor sheared: sine of the angle, about 3.5 degrees."""
_MOST_SCALE = 4.0
_BLOCK_PX = 16
_PLAIN = 2.0
"""Grey levels of 255: the standard deviation of a row or column of a border, and how far one colour reaches."""
_PLAIN_SHARE = 0.4
"""Of a block, from which it is left out: something of one colour may lie over the picture there."""
_TEXTURE = 0.12
"""Standard deviation of a block over that of its picture, from which it shows something."""
_LEAST_BLOCKS = 8
_SAME = 0.95
"""Correlation of a block with its copy: noise and compression cost less."""
_LEAST_SAME = 0.2
_SAME_LIGHT = 3.0
"""Grey levels of 255 by which pixels of a copy differ at most, where nothing is written over them."""
_LEAST_COVERED = 0.98
"""Of one of the two by the other; rounding at work size costs a copy up to a hundredth."""
_UNWRITTEN = 0.5
"""Share of a block that letters leave free."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """One picture laid over another.

    Attributes:
        agreement: share of the blocks with texture that agree, 0 to 1.
        covered: share of the picture that is covered less, or more: (less, more).
    """

    agreement: float
    covered: tuple[float, float]


NOTHING = Overlay(0.0, (0.0, 0.0))
"""Of pictures that have too little texture on each other to be compared."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture as it is compared: grey at work size, its keypoints, and those of its mirror image."""

    grey: Grey
    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.float32] | None


def view(pixels: Pixels) -> View:
    """Make ready what is compared.

    Args:
        pixels: (H, W, 3) uint8 sRGB.
    """
    pixels = _without_border(pixels)
    height, width = pixels.shape[:2]
    scale = _WORK_PX / max(height, width)
    size = max(_BLOCK_PX, round(width * scale)), max(_BLOCK_PX, round(height * scale))
    grey = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    found, descriptors = cv2.SIFT.create(_KEYPOINTS).detectAndCompute(grey, None)
    points = np.array([point.pt for point in found], np.float32).reshape(-1, 2)
    return View(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 0.8), points, descriptors)


def overlay(one: View, other: View) -> Overlay:
    """The best way to lay the other picture over the one: by their keypoints, or edge on edge."""
    laid = [_laid(one, other, where) for where in _ways(one, other)]
    return max(laid, key=lambda found: found.agreement, default=NOTHING)


def is_copy(found: Overlay, least: float) -> bool:
    """Whether one of the two lies wholly in the other, as two photographs hardly do, and agrees with it.

    Args:
        found: how they lie.
        least: agreement, 0 to 1.
    """
    return found.covered[1] >= _LEAST_COVERED and found.agreement >= least


def mirrored(pixels: Pixels) -> Pixels:
    """The picture as a mirror shows it."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _without_border(pixels: Pixels) -> Pixels:
    """The part inside rows and columns of one colour, which a border adds; all of it where nothing else is there."""
    small = cv2.resize(pixels, (_WORK_PX, _WORK_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    kept = []
    for axis in (1, 0):
        varied = np.flatnonzero(small.std(axis=axis).max(axis=1) > _PLAIN)
        if len(varied) < _WORK_PX // 4:
            return pixels
        side = pixels.shape[1 - axis]
        # half a step inside, so that no blend of border and picture is left
        first = 0 if varied[0] == 0 else math.ceil((varied[0] + 1) * side / _WORK_PX)
        last = side if varied[-1] == _WORK_PX - 1 else math.floor(varied[-1] * side / _WORK_PX)
        kept.append(slice(first, last))
    return np.ascontiguousarray(pixels[kept[0], kept[1]])


def _ways(one: View, other: View) -> Iterator[Affine]:
    """(2, 3) from pixels of the other to pixels of the one."""
    height, width = one.grey.shape
    own_height, own_width = other.grey.shape
    yield np.array([[width / own_width, 0, 0], [0, height / own_height, 0]], np.float64)
    if one.descriptors is None or other.descriptors is None or min(len(one.points), len(other.points)) < 2:
        return
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(other.descriptors, one.descriptors, k=2)
    good = [pair[0] for pair in matches if len(pair) == 2 and pair[0].distance < _RATIO * pair[1].distance]
    if len(good) < _LEAST_INLIERS:
        return
    source = other.points[[match.queryIdx for match in good]]
    target = one.points[[match.trainIdx for match in good]]
    found, inliers = cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION_PX)
    if found is None or inliers.sum() < _LEAST_INLIERS:
        return
    (a, b, _), (c, d, _) = found
    if not (1 / _MOST_SCALE < a < _MOST_SCALE and 1 / _MOST_SCALE < d < _MOST_SCALE):
        return
    if max(abs(b), abs(c)) <= _MOST_SHEAR * min(a, d):
        yield found


def _laid(one: View, other: View, where: Affine) -> Overlay:
    height, width = one.grey.shape
    inside = cv2.warpAffine(np.ones_like(other.grey), where, (width, height), flags=cv2.INTER_NEAREST) > 0
    moved = cv2.warpAffine(other.grey, where, (width, height), flags=cv2.INTER_LINEAR)
    area = abs(where[0, 0] * where[1, 1] - where[0, 1] * where[1, 0]) * other.grey.size
    covered = sorted((float(inside.mean()), float(inside.sum() / area)))
    whole = _blocks(inside.astype(np.float32)).min(axis=1) > 0
    ours, theirs = (_blocks(grey)[whole].astype(np.float64) for grey in (one.grey, moved))
    shown = (ours.std(axis=1) > _TEXTURE * one.grey.std()) & (theirs.std(axis=1) > _TEXTURE * other.grey.std())
    shown &= (_plain_share(ours) < _PLAIN_SHARE) & (_plain_share(theirs) < _PLAIN_SHARE)
    if shown.sum() < _LEAST_BLOCKS:
        return NOTHING
    return Overlay(_agreement(ours[shown], theirs[shown]), (covered[0], covered[1]))


def _plain_share(blocks: Affine) -> Affine:
    """(N,) the share of each of (N, 256) blocks that has one grey: of a bar for letters, or of an empty wall."""
    near: Affine = (np.abs(blocks - np.median(blocks, axis=1, keepdims=True)) <= _PLAIN).mean(axis=1)
    return near


def _agreement(ours: Affine, theirs: Affine) -> float:
    """Share of (N, 256) blocks that show the same, what is written over them aside."""
    from_mean, from_their_mean = (blocks - blocks.mean(axis=1, keepdims=True) for blocks in (ours, theirs))
    power = (from_mean**2).sum(axis=1) * (from_their_mean**2).sum(axis=1)
    same = (from_mean * from_their_mean).sum(axis=1) / np.sqrt(power) >= _SAME
    if same.mean() < _LEAST_SAME:
        return float(same.mean())
    # the light of the one in terms of the other's, from blocks that are surely the same
    gain, lift = np.polyfit(theirs[same].ravel(), ours[same].ravel(), 1)
    near = np.abs(ours - gain * theirs - lift) <= _SAME_LIGHT
    return float((same | (near.mean(axis=1) >= _UNWRITTEN)).mean())


def _blocks(grey: Grey) -> Grey:
    """(N, 256) the whole blocks of a picture."""
    rows, columns = (side // _BLOCK_PX for side in grey.shape)
    cut = grey[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
    return cut.swapaxes(1, 2).reshape(rows * columns, _BLOCK_PX * _BLOCK_PX)
