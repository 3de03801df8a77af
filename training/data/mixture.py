"""Which dataset each sample of the stream comes from: a pure function of the seed and the weights.

Weights are kept exactly in every block of 4,096 samples, in a drawn order, so that how many of a dataset came before
sample 10^9 is a multiplication.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite

import numpy as np
import numpy.typing as npt

from refloom.schemas.errors import Refused
from refloom.training.data.draws import Purpose, generator

BLOCK = 4096
_BLOCKS_KEPT = 8


def quotas(weights: Sequence[float]) -> list[int]:
    """Samples of each dataset in a block, at least 1, together `BLOCK`; the largest remainders are rounded up.

    Raises:
        Refused: no weight, or one that is not above 0 or too small to be seen in a block.
    """
    if not weights or not all(isfinite(weight) and weight > 0 for weight in weights):
        raise Refused(f"weights {list(weights)}: give each dataset one above 0")
    exact = np.asarray(weights, np.float64) * BLOCK / sum(weights)
    floors = np.floor(exact).astype(int)
    by_remainder = np.argsort(floors - exact, kind="stable")
    floors[by_remainder[: BLOCK - int(floors.sum())]] += 1
    if not floors.all():
        raise Refused(f"weights {list(weights)}: the smallest is below 1/{BLOCK} of all; raise it or leave it out")
    return [int(quota) for quota in floors]


class Mixture:
    """The stream's datasets.

    Args:
        weights: of the datasets, any scale.
        seed: of the run.
    """

    def __init__(self, weights: Sequence[float], *, seed: int) -> None:
        self.quotas = quotas(weights)
        self._seed = seed
        self._block = lru_cache(maxsize=_BLOCKS_KEPT)(self._make_block)

    def __call__(self, position: int) -> tuple[int, int]:
        """Of a position in the stream: the dataset's number, and how many of that dataset came before."""
        if len(self.quotas) == 1:
            return 0, position
        block, inside = divmod(position, BLOCK)
        sources, ranks = self._block(block)
        source = int(sources[inside])
        return source, block * self.quotas[source] + int(ranks[inside])

    def _make_block(self, block: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each sample of a block its dataset, and how many of that dataset came before it in the block."""
        drawn = generator(self._seed, block, Purpose.MIX)
        sources = drawn.permutation(np.repeat(np.arange(len(self.quotas)), self.quotas))
        ranks = np.zeros(BLOCK, np.int64)
        for source, quota in enumerate(self.quotas):
            ranks[sources == source] = np.arange(quota)
        return sources, ranks
