"""Cells of the unit sphere: each vector belongs to the nearest of K centroids, which k-means puts where vectors are.

Centroids are fitted once, by one thread, on the vectors whose ids hash lowest. That sample depends on the set of ids
alone: not on their order, and hardly on a few more or fewer of them.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

TILE_ROWS = 1024
"""Rows of a matrix product. Its bits depend on the shape, so the last tile is filled up with zeros."""
_FOLDS = 8
_CELLS_AT_ONCE = 1024


def keys_of(ids: Sequence[str], seed: int = 0) -> Keys:
    """(N,) hashes of ids: they choose the sample, and settle ties without a look at the ids."""
    salt = seed.to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, salt=salt).digest() for name in ids)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def lowest(keys: Keys, count: int) -> Indices:
    """Places of the `count` lowest keys, rising, ties by place; all of them where there are fewer."""
    count = min(count, len(keys))
    if count == 0:
        return np.zeros(0, np.int64)
    places = np.flatnonzero(keys <= np.partition(keys, count - 1)[count - 1])
    return places[np.argsort(keys[places], kind="stable")][:count].astype(np.int64)


def fit(vectors: Floats, count: int, rounds: int = 6) -> Floats:
    """Centroids by spherical k-means (Dhillon and Modha 2001) from the first `count` distinct vectors.

    Args:
        vectors: (S, D) unit length, in an order that does not depend on how the data lies, as `lowest` gives it.
        count: K, of centroids; fewer if there are fewer distinct vectors.
        rounds: of assigning and averaging.

    Returns:
        (K, D) unit length.
    """
    first: dict[bytes, Floats] = {}
    for vector in vectors:
        if len(first) == count:
            break
        first.setdefault(vector.tobytes(), vector)
    centroids = np.stack(list(first.values()))
    for _ in range(rounds):
        homes = np.concatenate([_dots(tile, centroids).argmax(axis=1)[:kept] for tile, kept in tiles(vectors)])
        order = np.argsort(homes, kind="stable")
        present, starts = np.unique(homes[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        for begin in range(0, len(present), _CELLS_AT_ONCE):  # so that double precision is held of few vectors
            some = slice(begin, begin + _CELLS_AT_ONCE)
            members = order[starts[begin] : ends[some][-1]]
            sums = np.add.reduceat(vectors[members].astype(np.float64), starts[some] - starts[begin], axis=0)
            lengths = np.linalg.norm(sums, axis=1, keepdims=True)
            sound = lengths[:, 0] > 1e-9  # a cell whose members cancel out, or without any, keeps its centroid
            centroids[present[some][sound]] = (sums[sound] / lengths[sound]).astype(np.float32)
    return centroids


def neighbourly(centroids: Floats) -> Indices:
    """An order of the cells in which near ones mostly follow each other: (K, D) to (K,) cells.

    Halved again and again across the line between two far ends, so that a run of cells has most of its neighbours
    inside. Nothing but the layout of files depends on it.
    """
    wide = centroids.astype(np.float64)
    waiting, done = [np.arange(len(centroids))], []
    while waiting:
        cells = waiting.pop()
        if len(cells) <= 2:
            done.append(cells)
            continue
        one = wide[cells[(wide[cells] * wide[cells[0]]).sum(axis=1).argmin()]]
        other = wide[cells[(wide[cells] * one).sum(axis=1).argmin()]]
        along = cells[np.argsort((wide[cells] * (other - one)).sum(axis=1), kind="stable")]
        waiting += [along[len(along) // 2 :], along[: len(along) // 2]]
    return np.concatenate(done).astype(np.int64) if done else np.zeros(0, np.int64)


def tiles(vectors: Floats) -> "list[tuple[Floats, int]]":
    """Tiles of `TILE_ROWS` rows and how many of them are real; views where they are full."""
    out = []
    for start in range(0, len(vectors), TILE_ROWS):
        tile = np.asarray(vectors[start : start + TILE_ROWS], np.float32)
        kept = len(tile)
        if kept < TILE_ROWS:
            tile = np.concatenate([tile, np.zeros((TILE_ROWS - kept, vectors.shape[1]), np.float32)])
        out.append((tile, kept))
    return out


def _dots(tile: Floats, centroids: Floats) -> Floats:
    dots: Floats = tile @ centroids.T
    return dots


def nearest(tile: Floats, centroids: Floats, count: int) -> tuple[Indices, Floats]:
    """The nearest centroids of each vector.

    Args:
        tile: (R, D).
        centroids: (K, D) unit length.
        count: C, at most K.

    Returns:
        (R, C) places of centroids by falling cosine, ties by place, and (R, C) their cosines.
    """
    dots = _dots(tile, centroids)
    width = dots.shape[1]
    if width >= 4 * _FOLDS * count and width % _FOLDS == 0:
        # the best C lie in the C folds with the largest maxima: far fewer numbers to put in order
        folds = dots.reshape(len(dots), _FOLDS, -1)
        best = _largest(folds.max(axis=1), count)
        places = (best[:, None, :] + (np.arange(_FOLDS) * folds.shape[2])[None, :, None]).reshape(len(dots), -1)
    else:
        places = np.broadcast_to(np.arange(width), dots.shape)
    values = np.take_along_axis(dots, places, axis=1)
    chosen = _largest(values, count)
    places, values = np.take_along_axis(places, chosen, axis=1), np.take_along_axis(values, chosen, axis=1)
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(places, order, axis=1).astype(np.int64), np.take_along_axis(values, order, axis=1)


def _largest(values: Floats, count: int) -> Indices:
    """(R, C) places of the C largest of each row, in no order."""
    if count >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, values.shape[1] - count, axis=1)[:, values.shape[1] - count :]
