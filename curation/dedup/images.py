"""Copies of pictures: by their bytes, and by their perceptual hashes. Pure functions: columns in, copies out."""

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.dedup.columns import Pictures
from refloom.curation.dedup.settings import Copy, Dedup, steps
from refloom.curation.neighbours.phash import BITS, equal_places, hamming_pairs, mirrored

_SET_BITS = (24, 40)
"""A hash marks 31 of 63 terms above their median, unless many are equal: of a picture without structure."""

Flags = npt.NDArray[np.bool_]


def image_copies(pictures: Pictures, judged: int, config: Dedup) -> dict[int, Copy]:
    """From the best picture on: each stays unless it is a copy of one that stays, or of an evaluation picture.

    Args:
        pictures: of evaluation sets, then of the dataset, in any order.
        judged: how many are of evaluation sets; these stay, and are compared with nobody but the dataset's.
        config: settings.

    Returns:
        Row to what it is a copy of.
    """
    rows = np.flatnonzero(meeting(pa.array(pictures.sha256, pa.string()), pictures.phash, pictures.light[:, 1], config))
    some = pictures.take(rows)
    judged = int((rows < judged).sum())
    area = some.sizes.prod(axis=1)
    step = steps(some.quality, config)
    order = list(range(judged)) + sorted(
        range(judged, len(some)), key=lambda row: (-step[row], -int(area[row]), some.ids[row])
    )
    gone: dict[int, Copy] = {}
    index = _Index(some, config)
    for rank, row in enumerate(order):
        found = index.find(row) if rank >= judged else None
        if found is None:
            index.add(row, rank)
        else:
            of, by, similarity = found
            gone[int(rows[row])] = Copy(some.ids[of], "leak" if of < judged else by, similarity)
    return gone


def meeting(
    sha256: pa.Array | pa.ChunkedArray,
    phash: npt.NDArray[np.uint64],
    contrast: npt.NDArray[np.float64],
    config: Dedup,
) -> Flags:
    """Which of N pictures can have a copy at all: somebody has their bytes, or a hash near theirs.

    Of many pictures these are few, and only these need more than a row of numbers each.
    """
    meets = np.zeros(len(phash), bool)
    if not len(phash):
        return meets
    if "bytes" in config.by:
        whole = sha256.combine_chunks() if isinstance(sha256, pa.ChunkedArray) else sha256
        same = whole.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        meets |= np.bincount(same)[same] > 1
    if config.max_hamming is not None and "phash" in config.by:
        usable = np.flatnonzero(meaningful(phash, contrast, config))
        values, (plain, turned) = _places(phash[usable])
        holders = np.bincount(plain, minlength=len(values))
        near = np.zeros(len(values), bool)
        close = hamming_pairs(values, config.max_hamming)
        near[close.i[holders[close.j] > 0]] = True
        near[close.j[holders[close.i] > 0]] = True
        meets[usable] |= (holders[plain] > 1) | (holders[turned] > 0) | near[plain] | near[turned]
    return meets


def _places(
    hashes: npt.NDArray[np.uint64],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Distinct hashes and mirrored hashes, and for each of N its place and that of its mirror image: (2, N)."""
    values, places = equal_places(np.concatenate([hashes, mirrored(hashes)]))
    return values, places.reshape(2, -1)


class _Index:
    """The pictures that stay, by bytes and by hash."""

    def __init__(self, pictures: Pictures, config: Dedup) -> None:
        self._pictures, self._config = pictures, config
        self._places = pictures.places()
        self._aspect = np.log(pictures.sizes[:, 0] / pictures.sizes[:, 1])
        self._bytes: dict[str, list[int]] = defaultdict(list)
        self._hashed: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._near: dict[int, list[tuple[int, int]]] = {}
        self._code = np.full((len(pictures), 2), -1)
        if config.max_hamming is not None and "phash" in config.by:
            usable = np.flatnonzero(meaningful(pictures.phash, pictures.light[:, 1], config))
            values, codes = _places(pictures.phash[usable])
            self._code[usable] = codes.T
            self._near = {code: [(0, code)] for code in range(len(values))}
            close = hamming_pairs(values, config.max_hamming)
            for i, j, bits in zip(close.i.tolist(), close.j.tolist(), close.distance.tolist(), strict=True):
                self._near[i].append((bits, j))
                self._near[j].append((bits, i))

    def find(self, row: int) -> tuple[int, str, float] | None:
        """The picture that stays and that `row` is a copy of, by what, and how alike they are."""
        same = next((other for other in self._bytes[self._pictures.sha256[row]] if self._separate(row, other)), None)
        if same is not None:
            return same, "bytes", 1.0
        codes = [near for code in self._code[row].tolist() for near in self._near.get(code, ())]
        near = [(bits, *entry) for bits, code in codes for entry in self._hashed.get(code, ())]
        for bits, _, other in sorted(near):
            if self._separate(row, other) and self._alike(row, other):
                return other, "phash", 1 - bits / BITS
        return None

    def add(self, row: int, rank: int) -> None:
        """A picture that stays; of the equal frames of one video the best is enough."""
        same = self._bytes[self._pictures.sha256[row]] if "bytes" in self._config.by else []
        if all(self._places[other] != self._places[row] for other in same):
            same.append(row)
        if self._code[row, 0] >= 0:
            hashed = self._hashed[int(self._code[row, 0])]
            if all(self._places[other] != self._places[row] for _, other in hashed):
                hashed.append((rank, row))

    def _separate(self, row: int, other: int) -> bool:
        groups = self._pictures.groups
        return self._places[row] != self._places[other] and groups[row].isdisjoint(groups[other])

    def _alike(self, row: int, other: int) -> bool:
        """What a hash does not see: shape and light."""
        light = np.abs(self._pictures.light[row] - self._pictures.light[other]).max()
        aspect = abs(self._aspect[row] - self._aspect[other])
        return bool(light <= self._config.max_light_change and aspect <= np.log1p(self._config.max_aspect_change))


def meaningful(
    phash: npt.NDArray[np.uint64], contrast: npt.NDArray[np.float64], config: Dedup
) -> npt.NDArray[np.bool_]:
    """Which hashes say something: (N,) of pictures with contrast, and with as many bits set as structure sets."""
    bits = np.bitwise_count(phash)
    enough: npt.NDArray[np.bool_] = (contrast >= config.min_contrast) & (bits >= _SET_BITS[0]) & (bits <= _SET_BITS[1])
    return enough
