"""How torch models compute here: on a device that is there, with one thread, with the same sums every time.

What they compute, and in batches of which size, is not decided here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from refloom.schemas.errors import Refused


def check_device(name: str, device: str) -> None:
    """Raise Refused if a model is to run on a CUDA device where torch sees none.

    Args:
        name: of the model.
        device: cpu, cuda or cuda:<n>.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Refused(f"{name} was asked to run on {device}, but torch sees no CUDA device; use device=cpu")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: with more, sums come out in another order. What was set before is set again after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def repeatable() -> Iterator[None]:
    """No gradients, one thread, and convolutions that add up in the same order on a GPU too.

    TF32 is off: it would make fp32 on a GPU differ from the CPU in the third digit.
    """
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), one_thread(), exact:
        yield
