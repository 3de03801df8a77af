"""Shares with intervals: resampled over whole clusters (subjects, people, videos), whose pairs are not independent."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_DRAWS = 2000
_SEED = 0
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval, and how many were counted."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}; n {self.count})"


def share(counts: Mapping[str, tuple[int, int]]) -> Share:
    """Sum of hits over sum of trials, with a bootstrap over the clusters.

    Where every cluster has all or none, the bootstrap shows no spread: then the bound is that of the rule of three for
    the number of clusters, 1 - 0.05 ** (1 / n), which is wide as it should be for few.

    Args:
        counts: cluster to its hits and its trials.

    Raises:
        ValueError: there is no trial.
    """
    hits, trials = (np.array([pair[at] for pair in counts.values()], float) for at in (0, 1))
    if trials.sum() == 0:
        raise ValueError("there is nothing to count")
    value = float(hits.sum() / trials.sum())
    drawn = np.random.default_rng(_SEED).integers(0, len(hits), (_DRAWS, len(hits)))
    below = trials[drawn].sum(axis=1)
    shares = hits[drawn].sum(axis=1)[below > 0] / below[below > 0]
    low, high = np.percentile(shares, _TAILS)
    bound = 1 - 0.05 ** (1 / np.count_nonzero(trials))
    if value == 1:
        low = 1 - bound
    if value == 0:
        high = bound
    return Share(value, float(low), float(high), int(trials.sum()))
