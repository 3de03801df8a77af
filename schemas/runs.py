"""Run lengths of COCO RLE: the compressed string and its checks, many masks at a time, without decoding a pixel.

A mask of size (h, w) is a list of run lengths in column-major order, beginning with unset pixels. COCO's compressed
string writes each run as a signed little-endian base-32 number (5 bits and a continuation bit a character, offset 48);
from the fourth run on it stores the difference to the run two before. pycocotools reads past the end of a string that
is cut inside a number and trusts every length, so nothing reaches it before `parse` has passed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_SIDE_PX = 65_535
MAX_PIXELS = 100_000_000
_MAX_DIGITS = 7  # 35 bits: more than any run or difference in a picture of MAX_PIXELS
_NO_RUN = -(1 << 50)  # makes its run negative, whatever it is a difference to
_ZERO, _CLOSING, _LARGEST = 48, 80, 111  # characters below _CLOSING are the last digit of a number

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Runs:
    """Run lengths of N masks, one behind the other, as pairs of (unset, set) pixels.

    Attributes:
        pairs: (P, 2) run lengths in pixels; the last pair of a mask that ends unset is (length, 0).
        starts: (N + 1,) where each mask's pairs begin.
        sizes: (N, 2) height and width.
    """

    pairs: Ints
    starts: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.sizes)

    def one(self, index: int) -> Ints:
        """The pairs of mask `index`, shape (p, 2)."""
        return self.pairs[self.starts[index] : self.starts[index + 1]]

    def areas(self) -> Ints:
        """Set pixels of each mask, (N,)."""
        return _segment_sums(self.pairs[:, 1], self.starts)


def _segment_sums(values: npt.NDArray[Any], starts: Ints) -> Ints:
    sums: Ints = np.diff(_before(np.cumsum(values, dtype=np.int64), starts))
    return sums


def _before(sums: Ints, positions: Ints) -> Ints:
    """The running sums just before each position; 0 before the first."""
    if not len(sums):
        return np.zeros((len(positions), *sums.shape[1:]), np.int64)
    taken = sums[np.maximum(positions - 1, 0)]
    taken[positions == 0] = 0
    return taken


def sizes_sound(sizes: Ints) -> Bools:
    """(N, 2) heights and widths: True where both are 1..65535 and the area is within the pixel limit."""
    sides_sound = np.all((sizes >= 1) & (sizes <= MAX_SIDE_PX), axis=1)
    area = np.where(sides_sound, sizes[:, 0] * sizes[:, 1], MAX_PIXELS + 1)
    sound: Bools = area <= MAX_PIXELS
    return sound


def parse(counts: Sequence[str], sizes: npt.ArrayLike) -> tuple[Runs, list[str | None]]:
    """Read compressed RLE strings, checking everything that pycocotools does not.

    Args:
        counts: N compressed strings.
        sizes: (N, 2) height and width.

    Returns:
        The runs of all masks (none for a mask with a problem) and per mask None or what is wrong with it.
    """
    size = np.asarray(sizes, np.int64).reshape(-1, 2)
    problems: list[str | None] = [None] * len(counts)
    for index in np.flatnonzero(~sizes_sound(size)).tolist():
        problems[index] = f"impossible mask size {size[index, 0]}x{size[index, 1]}"
    texts = list(counts)
    for index, text in enumerate(counts):
        if not (text and text.isascii()):
            problems[index] = problems[index] or ("counts holds foreign characters" if text else "counts is empty")
            texts[index] = "0"
    number_counts = np.zeros(len(texts), np.int64)
    if texts:
        number_counts, unreadable = _inspect(texts)
        for index in np.flatnonzero(unreadable).tolist():
            problems[index] = problems[index] or "counts is cut or holds foreign characters"
            texts[index], number_counts[index] = "0", 1
    pairs, starts = _pairs(texts, number_counts)

    sums = _segment_sums(pairs[:, 0] + pairs[:, 1], starts)
    pixels = size[:, 0] * size[:, 1]
    wrong = sums != pixels
    if pairs.min(initial=0) < 0:
        wrong |= _segment_sums(np.any(pairs < 0, axis=1), starts) > 0
    for index in np.flatnonzero(wrong).tolist():
        what = "counts holds a negative run" if sums[index] == pixels[index] else f"runs add up to {sums[index]} pixels"
        problems[index] = problems[index] or what
    good = np.array([problem is None for problem in problems], bool)
    if not good.all():
        pair_counts = np.diff(starts)
        pairs = pairs[np.repeat(good, pair_counts)]
        starts = _starts(np.where(good, pair_counts, 0))
    return Runs(pairs, starts, size), problems


def _inspect(texts: list[str]) -> tuple[Ints, Bools]:
    """Numbers in each string, (N,), and True for those cut inside a number or with characters that are no digit."""
    characters = np.frombuffer("".join(texts).encode("ascii"), np.uint8)
    starts = _starts(np.array([len(text) for text in texts], np.int64))
    closing = characters < _CLOSING
    number_counts = np.add.reduceat(closing, starts[:-1], dtype=np.int64)
    unreadable: Bools = ~closing[starts[1:] - 1]
    if characters.min() < _ZERO or characters.max() > _LARGEST:
        unreadable |= _segment_sums((characters < _ZERO) | (characters > _LARGEST), starts) > 0
    return number_counts, unreadable


def _pairs(texts: list[str], number_counts: Ints) -> tuple[Ints, Ints]:
    """Decode sound strings to pairs of run lengths, (P, 2), and where each mask's pairs begin, (N + 1,)."""
    odd = np.flatnonzero(number_counts & 1)
    for index in odd:
        texts[index] += "0"  # a number of no effect, so that every mask is whole pairs
    starts = _starts((number_counts + 1) // 2)
    pairs = _numbers(np.frombuffer("".join(texts).encode("ascii"), np.uint8)).reshape(-1, 2)
    heads = starts[:-1]
    first = pairs[heads, 0]
    pairs[heads, 0] = 0  # the third number is no difference to the first
    sums = np.cumsum(pairs, axis=0)
    sums -= np.repeat(_before(sums, heads), np.diff(starts), axis=0)
    sums[heads, 0] = first
    sums[starts[1:][odd] - 1, 1] = 0
    return sums, starts


def _numbers(characters: npt.NDArray[np.uint8]) -> Ints:
    """Decode the signed base-32 numbers of sound strings, (R,); one of too many digits becomes `_NO_RUN`."""
    last = characters[np.flatnonzero(characters < _CLOSING)]  # the last digit of each number, which has its sign
    values = (((last - _ZERO) ^ 16) - 16).view(np.int8).astype(np.int64)
    going = np.flatnonzero(characters >= _CLOSING)  # the digits before it, the lowest first
    if not len(going):
        return values
    owner = going - np.arange(len(going))  # as many numbers have ended before it
    begins = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    digits = np.diff(np.concatenate([begins, [len(going)]]))
    shifts = 5 * np.minimum(np.arange(len(going)) - np.repeat(begins, digits), _MAX_DIGITS)
    low = np.add.reduceat((characters[going].astype(np.int64) - _CLOSING) << shifts, begins)
    longer = owner[begins]
    values[longer] = (values[longer] << (5 * np.minimum(digits, _MAX_DIGITS))) + low
    values[longer[digits >= _MAX_DIGITS]] = _NO_RUN
    return values


def _starts(counts: Ints) -> Ints:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def write(lengths: Sequence[int] | Ints) -> str:
    """Compress the run lengths of one mask to COCO's string.

    Args:
        lengths: (r,) non-negative run lengths, the first of unset pixels.
    """
    runs = np.asarray(lengths, np.int64)
    values = runs.copy()
    values[3:] -= runs[1:-2]
    out = bytearray()
    for value in values.tolist():
        more = True
        while more:
            digit = value & 31
            value >>= 5
            more = value != (-1 if digit & 16 else 0)
            out.append(digit + (32 if more else 0) + 48)
    return out.decode("ascii")
