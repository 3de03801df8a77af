"""Which row is the n-th of a dataset's endless stream: a pure function of the seed, tested without any file.

An epoch permutes row groups, cuts them into windows of some bytes, and permutes the rows inside each window. Rows are
as mixed as a window is wide, and a row group is read once per epoch instead of once per row. Windows are measured in
the bytes of accepted rows, so that small row groups, and views that accept few rows, are mixed as well as others.
Epochs follow one another without a gap, so no rank ever has a step less than another.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from refloom.schemas.errors import Refused
from refloom.training.data.draws import Purpose, generator

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
        counts: (G,) accepted rows of each row group.
        sizes: (G,) bytes of them.
        seed: of the run.
        source: number of the dataset in the mixture, so that two of the same size differ.
        window_bytes: of a window; it holds the row groups that begin within them, at least one.

    Raises:
        Refused: there is no row at all.
    """

    def __init__(self, counts: Ints, sizes: Ints, *, seed: int, window_bytes: int, source: int = 0) -> None:
        if window_bytes < 1:
            raise Refused(f"window_bytes is {window_bytes}: give some hundreds of millions")
        if not counts.sum():
            raise Refused("there is no row to order")
        self.rows = int(counts.sum())
        self._counts, self._sizes = np.asarray(counts, np.int64), np.asarray(sizes, np.int64)
        self._filled = np.flatnonzero(self._counts)
        self._seed, self._source, self._window_bytes = seed, source, window_bytes
        self._epoch = lru_cache(maxsize=_EPOCHS_KEPT)(self._make_epoch)
        self._window = lru_cache(maxsize=_WINDOWS_KEPT)(self._make_window)

    def __call__(self, number: int) -> Place:
        """The place of the n-th row of the stream; takes as long for any n."""
        epoch, at = divmod(number, self.rows)
        _, _, starts = self._epoch(epoch)
        window = int(np.searchsorted(starts, at, side="right")) - 1
        groups, slots, rows = self._window(epoch, window)
        inside = at - int(starts[window])
        slot = int(slots[inside])
        return Place(self._source, epoch, window, slot, int(rows[inside]), int(groups[slot]))

    def _make_epoch(self, epoch: int) -> tuple[Ints, Ints, Ints]:
        """Row groups in their order, and of each window the first row group and the first row."""
        drawn = generator(self._seed, epoch, Purpose.GROUPS, stream=self._source)
        groups = drawn.permutation(self._filled)
        sizes, counts = self._sizes[groups], self._counts[groups]
        _, first = np.unique((np.cumsum(sizes) - sizes) // self._window_bytes, return_index=True)
        return groups, np.append(first, len(groups)), (np.cumsum(counts) - counts)[first]

    def _make_window(self, epoch: int, window: int) -> tuple[Ints, Ints, Ints]:
        """Row groups of a window, and of each of its rows in their order the slot and the row."""
        all_groups, first, _ = self._epoch(epoch)
        groups = all_groups[first[window] : first[window + 1]]
        counts = self._counts[groups]
        slots = np.repeat(np.arange(len(groups)), counts)
        rows = np.concatenate([np.arange(count) for count in counts])
        drawn = generator(self._seed, epoch, Purpose.ROWS, stream=self._source, part=window)
        mixed = drawn.permutation(len(rows))
        return groups, slots[mixed], rows[mixed]
