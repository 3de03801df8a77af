"""How far a mean of scores may be off: a bootstrap over cases, because pictures of one case are alike."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from refloom.inference.evaluation.cases import Average
from refloom.inference.evaluation.metrics import Score

DRAWS = 1000
LEVEL = 0.95
_TAILS = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)

Interval = tuple[float, float]


def interval(scores: Sequence[tuple[str, str, Score]], how: Average) -> Interval | None:
    """The 95 % interval of `metrics.average`, by percentiles of 1,000 draws of as many cases with replacement.

    The same scores give the same interval: the draws depend on the number of cases alone.

    Args:
        scores: case, part and score of each picture; a case belongs to one part.
        how: the average.

    Returns:
        Lower and upper end; None for fewer than two cases, which say nothing of how cases differ.
    """
    parts: dict[str, str] = {case: part for case, part, _ in scores}
    if len(parts) < 2:
        return None
    order = sorted(parts, key=lambda case: (parts[case], case))
    place = {case: at for at, case in enumerate(order)}
    sums, weights = np.zeros(len(order)), np.zeros(len(order))
    for case, _, (value, pairs) in scores:
        weight = pairs if how == "pairs" else 1
        sums[place[case]] += value * weight
        weights[place[case]] += weight
    drawn = draws(len(order))
    if how == "parts":
        starts = [at for at, case in enumerate(order) if at == 0 or parts[case] != parts[order[at - 1]]]
        above = np.add.reduceat(drawn * sums, starts, axis=1)
        below = np.add.reduceat(drawn * weights, starts, axis=1)
        there = below > 0  # a part of few cases may not be drawn at all
        means = np.where(there, above / np.where(there, below, 1), 0).sum(axis=1) / there.sum(axis=1)
    else:
        means = (drawn @ sums) / (drawn @ weights)
    low, high = np.percentile(means, _TAILS)
    return float(low), float(high)


@lru_cache(maxsize=8)
def draws(cases: int) -> npt.NDArray[np.int16]:
    """(1000, N) how often each of N cases is drawn."""
    generator = np.random.default_rng(cases)
    drawn = np.stack([np.bincount(generator.integers(0, cases, cases), minlength=cases) for _ in range(DRAWS)])
    return drawn.astype(np.int16)
