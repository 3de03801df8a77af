"""Numbers of the steps since the last line of the log."""

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Numbers of the steps since the last line of the log. They stay on the device until then.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss, self._norm = torch.zeros((), device=device), torch.zeros((), device=device)
        self._bad, self._bad_in_a_row = torch.zeros((), device=device), torch.zeros((), device=device)
        self._steps = 0

    def add_loss(self, loss: Tensor) -> None:
        """Of a micro-batch, its part of the step's."""
        self._loss += loss.detach().float()

    def add_norm(self, norm: Tensor) -> None:
        """Of a step's gradients, before clipping."""
        bad = ~norm.isfinite()
        self._norm += torch.where(bad, 0.0, norm)
        self._bad += bad
        self._bad_in_a_row = (self._bad_in_a_row + 1) * bad
        self._steps += 1

    def read(self, accelerator: Accelerator) -> dict[str, Any]:
        """Means over the steps and processes since this was last asked for; waits for the device."""
        loss = accelerator.reduce(self._loss, reduction="mean")
        found, norm, bad, row = torch.stack([loss, self._norm, self._bad, self._bad_in_a_row]).tolist()
        steps = self._steps
        for one in (self._loss, self._norm, self._bad):
            one.zero_()
        self._steps = 0
        good = max(1, steps - int(bad))
        return {
            "loss": found / steps,
            "gradient_norm": norm / good,
            "bad_steps": int(bad),
            "bad_in_a_row": int(row),
            "steps": steps,
        }
