"""Global batches: which samples each holds, in which order, and at which size. No file is read here.

The stream's samples are put into the bucket of their target's aspect; a bucket that holds a global batch is one. Inside
a batch, samples stand in the order in which their row groups are read, so that the contiguous share of a rank comes
from few of them: sixteen ranks do not read every row group sixteen times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refloom.schemas.errors import Refused
from refloom.training.data.buckets import Buckets, Size
from refloom.training.data.catalogue import Catalogue
from refloom.training.data.draws import MAX_SEED, Purpose, generator
from refloom.training.data.mixture import Mixture
from refloom.training.data.order import Order, Place
from refloom.training.data.state import State


@dataclass(frozen=True, slots=True, order=True)
class Draw:
    """A sample of the stream; sorts by when its row group is read.

    Attributes:
        place: of its row.
        position: in the stream.
        target: number of the target picture.
        bucket: of its size.
    """

    place: Place
    position: int
    target: int
    bucket: int


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A global batch.

    Attributes:
        draws: its samples, in order.
        size: (height, width) of all its targets, pixels.
        state: after it.
    """

    draws: tuple[Draw, ...]
    size: Size
    state: State

    def share(self, rank: int, world: int) -> tuple[Draw, ...]:
        """The contiguous part of one rank."""
        each = len(self.draws) // world
        return self.draws[rank * each : (rank + 1) * each]


class Plan:
    """Cuts the stream into global batches.

    Args:
        catalogues: of the datasets.
        weights: of the datasets.
        buckets: sizes to train at.
        global_batch: samples of an optimiser step, over all ranks and accumulated micro-batches.
        seed: of the run.
        window_bytes: of rows that are mixed with each other.

    Raises:
        Refused: a number is out of range.
    """

    def __init__(
        self,
        catalogues: Sequence[Catalogue],
        weights: Sequence[float],
        buckets: Buckets,
        *,
        global_batch: int,
        seed: int,
        window_bytes: int,
    ) -> None:
        if global_batch < 1:
            raise Refused(f"global_batch is {global_batch}: give 1 or more samples")
        if not 0 <= seed <= MAX_SEED:
            raise Refused(f"seed is {seed}: give one from 0 to {MAX_SEED}")
        self.catalogues, self.buckets = tuple(catalogues), buckets
        self.global_batch, self.seed = global_batch, seed
        self._mixture = Mixture(weights, seed=seed)
        self._orders = [
            Order(catalogue.counts, catalogue.group_bytes, seed=seed, source=source, window_bytes=window_bytes)
            for source, catalogue in enumerate(catalogues)
        ]

    @cached_property
    def _starts(self) -> list[Any]:
        return [catalogue.starts for catalogue in self.catalogues]

    def draw(self, position: int) -> Draw:
        """The sample at a position of the stream."""
        source, number = self._mixture(position)
        place = self._orders[source](number)
        target, bucket = self.target(position, place)
        return Draw(place, position, target, bucket)

    def target(self, position: int, place: Place) -> tuple[int, int]:
        """Which picture of a row is the target of the sample at a position, and the bucket of its aspect."""
        row = int(self._starts[place.source][place.group]) + place.row
        pictures, sizes = self.catalogues[place.source].targets(row)
        choice = int(generator(self.seed, position, Purpose.TARGET).integers(len(pictures)))
        return int(pictures[choice]), self.buckets.of(int(sizes[choice, 0]), int(sizes[choice, 1]))

    def begin(self) -> State:
        """Before the first sample."""
        return State.begin(len(self.buckets))

    def next(self, state: State) -> PlannedBatch:
        """The global batch that follows a state."""
        waiting = [list(positions) for positions in state.waiting]
        position = state.position
        while True:
            bucket = self.draw(position).bucket
            waiting[bucket].append(position)
            position += 1
            if len(waiting[bucket]) == self.global_batch:
                break
        draws = tuple(sorted(self.draw(one) for one in waiting[bucket]))
        waiting[bucket] = []
        after = State(state.samples + self.global_batch, position, tuple(map(tuple, waiting)))
        return PlannedBatch(draws, self.buckets.sizes[bucket], after)
