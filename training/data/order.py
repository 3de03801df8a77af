"""Which row is the n-th of a dataset's endless stream: a pure function of the seed, tested without any file.

An epoch permutes row groups, cuts them into windows of a few, and permutes the rows inside each window. Rows are as
mixed as a window is wide, and a row group is read once per epoch instead of once per row. Epochs follow one another
without a gap, so no rank ever has a step less than another.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from schemas.errors import Refused
from training.data.draws import Purpose, generator

Ints = npt.NDArray[np.int64]
_EPOCHS_KEPT = 4
_WINDOWS_KEPT = 16


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a row lies; sorts by when its row group is read.

    Attributes:
        source: number of the dataset.
        epoch: of the dataset, from 0.
        window: of the epoch.
        slot: of the row group in its window.
        row: among the accepted rows of its row group.
        group: row group in the dataset.
    """

    source: int
    epoch: int
    window: int
    slot: int
    row: int
    group: int


class Order:
    """The stream of one dataset.

    Args:
        counts: accepted rows of each row group.
        seed: of the run.
        source: number of the dataset in the mixture, so that two of the same size differ.
        window_groups: row groups in a window.

    Raises:
        Refused: there is no row at all.
    """

    def __init__(self, counts: Ints, *, seed: int, source: int = 0, window_groups: int = 8) -> None:
        if window_groups < 1:
            raise Refused(f"window_groups is {window_groups}: give 1 or more row groups to mix")
        if not counts.sum():
            raise Refused("there is no row to order")
        self.rows = int(counts.sum())
        self._counts = np.asarray(counts, np.int64)
        self._filled = np.flatnonzero(self._counts)
        self._seed, self._source, self._width = seed, source, window_groups
        self._epoch = lru_cache(maxsize=_EPOCHS_KEPT)(self._make_epoch)
        self._window = lru_cache(maxsize=_WINDOWS_KEPT)(self._make_window)

    def __call__(self, number: int) -> Place:
        """The place of the n-th row of the stream; takes as long for any n."""
        epoch, at = divmod(number, self.rows)
        _, starts = self._epoch(epoch)
        window = int(np.searchsorted(starts, at, side="right")) - 1
        groups, slots, rows = self._window(epoch, window)
        inside = at - int(starts[window])
        slot = int(slots[inside])
        return Place(self._source, epoch, window, slot, int(rows[inside]), int(groups[slot]))

    def _make_epoch(self, epoch: int) -> tuple[Ints, Ints]:
        """Row groups in their order, and the first row of each window."""
        drawn = generator(self._seed, epoch, Purpose.GROUPS, stream=self._source)
        groups = drawn.permutation(self._filled)
        ends = np.cumsum(self._counts[groups])[self._width - 1 :: self._width]
        return groups, np.concatenate([[0], ends])

    def _make_window(self, epoch: int, window: int) -> tuple[Ints, Ints, Ints]:
        """Row groups of a window, and of each of its rows in their order the slot and the row."""
        groups = self._epoch(epoch)[0][window * self._width : (window + 1) * self._width]
        counts = self._counts[groups]
        slots = np.repeat(np.arange(len(groups)), counts)
        rows = np.concatenate([np.arange(count) for count in counts])
        drawn = generator(self._seed, epoch, Purpose.ROWS, stream=self._source, part=window)
        mixed = drawn.permutation(len(rows))
        return groups, slots[mixed], rows[mixed]
