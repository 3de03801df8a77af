"""Pairs of rows and their cosines: sorted, without repeats, and thinned to the strongest of each row."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """P pairs of rows.

    Attributes:
        i, j: (P,) row numbers, i < j.
        cosine: (P,) in [-1, 1].
    """

    i: Indices
    j: Indices
    cosine: Floats

    def __len__(self) -> int:
        return len(self.i)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Pairs":
        """Those for which a (P,) mask is true."""
        return Pairs(self.i[mask], self.j[mask], self.cosine[mask])

    def sorted(self) -> "Pairs":
        """By i, then j, each pair once."""
        order = np.lexsort((self.j, self.i))
        i, j, cosine = self.i[order], self.j[order], self.cosine[order]
        first = np.ones(len(i), bool)
        first[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
        return Pairs(i[first], j[first], cosine[first])

    def strongest(self, most: int, keys: Keys | None = None) -> "Pairs":
        """Pairs that are among the `most` strongest of at least one of their two rows; ties go to the smaller key.

        Expects each pair once. Thinning parts first and their union after gives the same as thinning the union.

        Args:
            most: 1 or more.
            keys: (N,) of the rows; their numbers by default.
        """
        if most < 1:
            raise ValueError(f"most is 1 or more, not {most}")
        row = np.concatenate([self.i, self.j])
        other = np.concatenate([self.j, self.i])
        ties = (other,) if keys is None else (other, keys[other])
        order = np.lexsort((*ties, -np.concatenate([self.cosine, self.cosine]), row))
        ordered = row[order]
        starts = np.searchsorted(ordered, ordered)  # where the run of this row begins
        rank = np.empty(len(row), np.int64)
        rank[order] = np.arange(len(row)) - starts
        return self.where(np.minimum(rank[: len(self)], rank[len(self) :]) < most)


def none() -> Pairs:
    """No pairs."""
    return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def union(parts: Iterable[Pairs]) -> Pairs:
    """All pairs of some parts, each once, by i and j."""
    found = [part for part in parts if len(part)]
    if not found:
        return none()
    return Pairs(
        np.concatenate([part.i for part in found]),
        np.concatenate([part.j for part in found]),
        np.concatenate([part.cosine for part in found]),
    ).sorted()


def cosines(vectors: Floats, i: Indices, j: Indices) -> Floats:
    """Cosines of pairs of unit vectors: (N, D), (P,), (P,) to (P,), clipped to [-1, 1].

    Sums in double precision and in an order that D alone decides: a pair has the same cosine in any block, on any
    number of threads and with any matrix library.
    """
    out = np.empty(len(i), np.float32)
    step = max(1, _CHUNK_BYTES // (16 * vectors.shape[1]))
    for start in range(0, len(i), step):
        part = slice(start, start + step)
        product = vectors[i[part]].astype(np.float64)
        product *= vectors[j[part]]
        out[part] = product.sum(axis=1)
    return np.clip(out, -1, 1)
