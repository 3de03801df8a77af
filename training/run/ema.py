"""A moving average of trained weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Weights averaged over steps, in fp32 on their own device.

    Args:
        named: what is trained, by name.
        decay: share of the average that stays in a step; lower at first, (1 + n) / (10 + n), so that it forgets where
            it began.
        since: steps that were done when it began.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float, since: int = 0) -> None:
        self._named, self._decay, self.since = dict(named), decay, since
        self.averages: dict[str, Tensor] = {name: one.detach().float().clone() for name, one in named.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step of the run, counted from 0."""
        counted = step - self.since
        share = 1 - min(self._decay, (1 + counted) / (10 + counted))
        torch._foreach_lerp_(list(self.averages.values()), [one.detach() for one in self._named.values()], share)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with averages of a checkpoint.

        Raises:
            KeyError: they are of other weights.
        """
        for name, average in self.averages.items():
            average.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand where the weights are, inside this block."""
        stock = {name: one.data for name, one in self._named.items()}
        try:
            for name, one in self._named.items():
                one.data = self.averages[name]
            yield
        finally:
            for name, one in self._named.items():
                one.data = stock[name]
