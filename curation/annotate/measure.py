"""What a look at the pixels of a whole picture says: perceptual hash, sharpness, light and colour. Pure functions."""

from dataclasses import dataclass

import cv2
import numpy as np

from refloom.curation.annotate.decoded import Decoded, Pixels, sharpness, shrink

VERSION = 1
_SHARPNESS_SIDE_PX = 1024
_HASH_SIDE_PX = 32
_HASH_TERMS = 8
_COLOR_SIDE_PX = 160
_AREA = cv2.INTER_AREA


@dataclass(frozen=True, slots=True)
class ImageScores:
    """The columns of `image_scores`; see there for meaning and ranges."""

    phash: int
    sharpness: float
    brightness: float
    contrast: float
    colorfulness: float


def image_scores(picture: Decoded) -> ImageScores:
    """Scores of one picture."""
    small = Decoded(shrink(picture.rgb, _SHARPNESS_SIDE_PX)) if max(picture.size) > _SHARPNESS_SIDE_PX else picture
    mean, deviation = cv2.meanStdDev(small.gray)
    return ImageScores(
        phash=perceptual_hash(small.gray),
        sharpness=sharpness(small.edges),
        brightness=float(mean[0, 0]) / 255,
        contrast=float(deviation[0, 0]) / 255,
        colorfulness=colorfulness(small.rgb),
    )


def perceptual_hash(gray: Pixels) -> int:
    """64-bit hash: which of the 8x8 lowest DCT terms of the 32x32 picture exceed their median (the DC term left out).

    Near-copies differ in few bits, whatever their size and compression.
    """
    while min(gray.shape) >= 4 * _HASH_SIDE_PX:  # exact halving is an order faster than one big step
        height, width = gray.shape
        gray = np.asarray(cv2.resize(gray[: height & ~1, : width & ~1], (width >> 1, height >> 1), interpolation=_AREA))
    small = cv2.resize(gray, (_HASH_SIDE_PX, _HASH_SIDE_PX), interpolation=_AREA).astype(np.float32)
    terms = cv2.dct(small)[:_HASH_TERMS, :_HASH_TERMS].reshape(-1)
    bits = terms > np.partition(terms[1:], 31)[31]  # the median of an odd number of terms
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def colorfulness(pixels: Pixels) -> float:
    """How colourful a picture looks: Hasler and Suesstrunk 2003, M3 on values 0..255 (0 grey, 100 very colourful).

    Statistics of colour need no resolution: every k-th pixel, at most about `_COLOR_SIDE_PX` a side.
    """
    step = max(1, max(pixels.shape[:2]) // _COLOR_SIDE_PX)
    # three bytes as one item: copying pixel by pixel takes half the time of copying channel by channel
    picked = pixels.view("V3")[::step, ::step].copy().view(np.uint8)
    red, green, blue = cv2.split(picked)
    yellow = cv2.addWeighted(red, 0.5, green, 0.5, 0, dtype=cv2.CV_32F)
    opponents = (
        cv2.subtract(red, green, dtype=cv2.CV_16S),
        cv2.subtract(yellow, blue, dtype=cv2.CV_32F),
    )
    mean, deviation = np.array([cv2.meanStdDev(channel) for channel in opponents])[:, :, 0, 0].T
    return float(np.hypot(*deviation) + 0.3 * np.hypot(*mean))
