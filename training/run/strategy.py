"""How a run is spread over processes: one, several with whole weights each (DDP), or DeepSpeed's ZeRO (`zero`).

The loop is the same. Whatever the strategy, a checkpoint holds the same tensors by the same names, so a run goes on
under another one.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from refloom.training.run import optimizer


class Strategy:
    """One process, or several with whole weights each.

    Attributes:
        accelerator: of the run.

    Args:
        accelerator: see there.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._whole: nn.Module = nn.Module()
        self._named: dict[str, nn.Parameter] = {}
        self._optimizer: Any = None

    def prepare(self, step_of: Any, named: Mapping[str, nn.Parameter], adamw: torch.optim.Optimizer) -> tuple[Any, Any]:
        """What is called in place of the training step and of its optimiser.

        Args:
            step_of: the training step, with what is trained.
            named: what is trained, by name.
            adamw: of `optimizer.build`.
        """
        self._whole, self._named, self._optimizer = step_of, dict(named), adamw
        prepared: tuple[Any, Any] = self.accelerator.prepare(step_of, adamw)
        return prepared

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the prepared optimiser what `state` returned, of this strategy or another.

        Raises:
            Refused: the state is of other parameters.
        """
        optimizer.load_state(self._optimizer, tensors)

    def state(self) -> dict[str, Tensor]:
        """The state of the optimiser by `<parameter>|<what>`, whole; called by all processes."""
        return optimizer.state_tensors(self._optimizer)

    def whole(self) -> AbstractContextManager[Any]:
        """The adapter's weights are whole in each process, inside this block; entered by all of them."""
        return nullcontext()

    def clipped(self, limit: float | None) -> Tensor:
        """Clip the gradients of a step, and make all of them 0 if any is not finite; called after `backward`.

        The optimiser then moves weights by its momentum alone; NaN would never leave it again. Nothing waits for the
        device.

        Args:
            limit: largest norm; None for no limit.

        Returns:
            Their norm before.
        """
        many = self._named.values()
        norm: Tensor = self.accelerator.clip_grad_norm_(many, limit or float("inf"))
        # where the norm is not finite, clipping has multiplied all gradients by 0 or NaN: they are 0 or NaN now
        for parameter in many:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        return norm
