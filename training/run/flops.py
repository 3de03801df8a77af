"""What a step computes, counted, and what a device could compute at most: their share is the MFU.

Counted are the matrix products, convolutions and attentions of a micro-batch, forwards and backwards, those of frozen
models included; a multiplication and an addition are two. Activations that are computed twice to save memory count
once.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from refloom.training.views.example import Example

PEAKS = (
    ("GH200", 989e12),  # NVIDIA GH200 Grace Hopper Superchip datasheet
    ("GB200", 2.5e15),  # NVIDIA GB200 NVL72 datasheet, one of its GPUs
    ("B200", 2.25e15),  # NVIDIA DGX B200 datasheet, one of its GPUs
    ("H200", 989e12),  # NVIDIA H200 datasheet, SXM
    ("H100 NVL", 835e12),  # NVIDIA H100 datasheet
    ("H100 PCIe", 756e12),
    ("H100", 989e12),  # SXM, whose name says no more
    ("A100", 312e12),  # NVIDIA A100 datasheet, all forms
    ("L40S", 362e12),  # NVIDIA L40S datasheet
    ("L4", 121e12),  # NVIDIA L4 datasheet
    ("A10", 125e12),  # NVIDIA A10 datasheet
)
"""FLOP/s of dense products in bf16 and fp16 with fp32 sums, by a part of the device's name, the first that fits; the
datasheets' numbers "with sparsity" are halved."""


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by the formulas that `FlopCounterMode` has.

    Attributes:
        total: so far.
        backwards: whether gradients are being computed; what then runs with gradients enabled was computed before.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0
        self.backwards = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None and not (self.backwards and torch.is_grad_enabled()):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def of_micro_batch(step_of: Any, examples: Sequence[Example], parameters: Iterable[Tensor]) -> int:
    """FLOPs of a forward and backward pass. Runs them once more, uncompiled, and leaves no gradient behind.

    Args:
        step_of: the training step, not wrapped by what shares gradients among processes.
        examples: of a micro-batch.
        parameters: that are trained.
    """
    counter = _Counter()
    with ExitStack() as conditioned:
        conditioned.enter_context(torch.compiler.set_stance("force_eager"))
        with counter:
            loss = step_of(examples, conditioned)
            counter.backwards = True
            # unlike `backward`, this wakes no hook that would send gradients to other processes
            torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return counter.total


def peak(device: torch.device, precision: str) -> float | None:
    """Most FLOP/s of a device in a precision; None where it is not known: of CPUs, other GPUs, and in fp32.

    Args:
        device: that computes.
        precision: of a recipe.
    """
    if device.type != "cuda" or precision not in ("bf16", "fp16"):
        return None
    return peak_of_name(torch.cuda.get_device_name(device))


def peak_of_name(name: str) -> float | None:
    """The same of a device of this name, as its driver says it."""
    words = f" {name} ".replace("-", " ")
    return next((value for part, value in PEAKS if f" {part} " in words), None)
