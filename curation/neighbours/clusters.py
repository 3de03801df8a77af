"""Groups out of pairs: connected parts, copies around the best of them, and mean-link clusters with a purity check.

All functions see rows by number and break ties by number: give rows in the order of their ids.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.curation.neighbours.pairs import Floats, Indices, Pairs

_LEAST_FOR_SIGMA = 4
_SIGMA_OF_MAD = 1.4826
_LEAST_SIGMA = 0.01
"""Of a cosine; below it the spread of a handful of members says nothing."""


def components(rows: int, pairs: Pairs) -> Indices:
    """(N,) the smallest row that each row is connected with, over any number of pairs."""
    labels = np.arange(rows)
    while True:
        low = np.minimum(labels[pairs.i], labels[pairs.j])
        before = labels.copy()
        np.minimum.at(labels, before[pairs.i], low)
        np.minimum.at(labels, before[pairs.j], low)
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]
        if np.array_equal(labels, before):
            return labels


def copies(rank: Indices, pairs: Pairs) -> dict[int, tuple[int, float]]:
    """Which rows are copies of which: the best of each neighbourhood stays.

    From the best rank on, a row stays unless it is a neighbour of a better one that stays. So every copy is a direct
    neighbour of what it is a copy of, and a chain a-b-c of copies whose ends differ loses only its middle.

    Args:
        rank: (N,) distinct numbers, smaller is better.
        pairs: of near-copies.

    Returns:
        Row that goes to (row that stays, their cosine); the best of those that stay.
    """
    neighbours: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for i, j, cosine in zip(pairs.i.tolist(), pairs.j.tolist(), pairs.cosine.tolist(), strict=True):
        neighbours[i].append((j, cosine))
        neighbours[j].append((i, cosine))
    gone: dict[int, tuple[int, float]] = {}
    for row in sorted(neighbours, key=lambda row: int(rank[row])):
        if row not in gone:
            for other, cosine in neighbours[row]:
                if rank[other] > rank[row]:
                    gone.setdefault(other, (row, cosine))
    return gone


@dataclass(slots=True)
class _Cluster:
    members: list[int]
    total: npt.NDArray[np.float64]
    places: frozenset[int]
    kind: int
    near: dict[int, int]
    """Clusters with links to this one, and how many of the pairs these are."""
    version: int = 0

    def link(self, other: "_Cluster") -> float:
        """Mean cosine between the members of the two."""
        return float(self.total @ other.total) / (len(self.members) * len(other.members))

    def may_join(self, other: "_Cluster") -> bool:
        return self.places.isdisjoint(other.places) and (self.kind < 0 or other.kind < 0 or self.kind == other.kind)


def mean_link(
    vectors: Floats,
    pairs: Pairs,
    lower: float,
    places: Sequence[frozenset[int]],
    kinds: Indices | None = None,
    agreeing: int = 1,
) -> list[list[int]]:
    """Clusters by average linkage: the two nearest are joined as long as their mean cosine is at least `lower`.

    One row that resembles two subjects does not join them, because the members of the two do not resemble each other;
    taking connected parts would.

    Args:
        vectors: (N, D) unit length.
        pairs: with cosine >= lower; clusters without any pair between them are never joined.
        lower: smallest mean cosine between two clusters that are joined.
        places: for each row, what it stands on, as numbers: rows that share one are never in one cluster.
        kinds: (N,) codes; rows with different codes from 0 up are never in one cluster.
        agreeing: pairs between two clusters of which one has more rows than this; smaller ones need one.

    Returns:
        Clusters of two or more rows, rising, by their first.
    """
    alive: dict[int, _Cluster] = {}
    for row in np.unique(np.concatenate([pairs.i, pairs.j])).tolist():
        kind = -1 if kinds is None else int(kinds[row])
        alive[row] = _Cluster([row], vectors[row].astype(np.float64), places[row], kind, {})
    heap: list[tuple[float, int, int, int, int]] = []
    for i, j in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True):
        alive[i].near[j] = alive[j].near[i] = 1
        _push(heap, alive, i, j, lower, agreeing)
    while heap:
        _, a, b, version_a, version_b = heapq.heappop(heap)
        if a not in alive or b not in alive or (alive[a].version, alive[b].version) != (version_a, version_b):
            continue
        one, other = alive[a], alive.pop(b)
        near = {
            name: one.near.get(name, 0) + other.near.get(name, 0)
            for name in (one.near | other.near)
            if name not in (a, b)
        }
        for name, links in near.items():
            alive[name].near.pop(b, None)
            alive[name].near[a] = links
        kind = max(one.kind, other.kind)
        alive[a] = _Cluster(
            one.members + other.members,
            one.total + other.total,
            one.places | other.places,
            kind,
            near,
            max(version_a, version_b) + 1,
        )
        for name in near:
            _push(heap, alive, min(a, name), max(a, name), lower, agreeing)
    found = [sorted(cluster.members) for cluster in alive.values() if len(cluster.members) > 1]
    return sorted(found)


def _push(
    heap: list[tuple[float, int, int, int, int]],
    alive: dict[int, _Cluster],
    a: int,
    b: int,
    lower: float,
    agreeing: int,
) -> None:
    one, other = alive[a], alive[b]
    needed = agreeing if max(len(one.members), len(other.members)) > agreeing else 1
    if one.near[b] >= needed and one.may_join(other):
        link = one.link(other)
        if link >= lower - 1e-7:  # a pair at the bound itself, whose cosine is rounded to single precision
            heapq.heappush(heap, (-link, a, b, one.version, other.version))


def within_sigma(vectors: Floats, max_sigma: float) -> npt.NDArray[np.bool_]:
    """Which members of a group belong to it: PhotoMaker's check of identities (Li et al., CVPR 2024, data pipeline).

    A member's score is its mean cosine with the others; members whose score lies more than `max_sigma` standard
    deviations below the group's go. Deviations are taken from the median of absolute deviations, because in a group of
    n no score lies further than (n - 1) / sqrt(n) plain standard deviations from the mean: eight of them would need 66
    members. Groups of fewer than 4 have no spread to speak of, and stay.

    Args:
        vectors: (M, D) unit length.
        max_sigma: 8 in PhotoMaker.
    """
    if len(vectors) < _LEAST_FOR_SIGMA:
        return np.ones(len(vectors), bool)
    wide = vectors.astype(np.float64)
    scores = ((wide * wide.sum(axis=0)).sum(axis=1) - (wide * wide).sum(axis=1)) / (len(wide) - 1)
    middle = np.median(scores)
    sigma = max(_LEAST_SIGMA, _SIGMA_OF_MAD * float(np.median(np.abs(scores - middle))))
    inside: npt.NDArray[np.bool_] = scores >= middle - max_sigma * sigma
    return inside


def thinned(vectors: Floats, order: Sequence[int], upper: float | None, most: int) -> list[int]:
    """Members without near-copies of better ones, at most `most`, rising.

    Args:
        vectors: (M, D) unit length.
        order: members, the best first.
        upper: cosine from which the lesser of two goes; None keeps both.
        most: members that stay.
    """
    stay: list[int] = []
    for member in order:
        if len(stay) == most:
            break
        if upper is not None and stay:
            near = (vectors[stay].astype(np.float64) * vectors[member]).sum(axis=1)
            if near.max() >= upper:
                continue
        stay.append(member)
    return sorted(stay)
