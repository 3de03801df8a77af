"""The processes of a run: how many there are, and what one of them does for all."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from refloom.schemas.errors import RefloomError


def processes() -> int:
    """Processes of this run; they meet here, so all of them call it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available():
        if uses_deepspeed():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
            import deepspeed

            # compiles for minutes, for a sum that only generation uses
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            PartialState(backend="gloo")  # which accelerate does not choose by itself for DeepSpeed
        else:
            PartialState(cpu=True)  # several that no MPI started are otherwise taken for one
    return int(PartialState().num_processes)


T = TypeVar("T")


def by_first(work: Callable[[], T]) -> T:
    """Let the first process do something that all of them depend on; called by all.

    Args:
        work: is done; what it returns or raises on purpose can be pickled.

    Returns:
        What it returned, in all processes.

    Raises:
        RefloomError: that it raised, in all processes, so that all of them end alike.
    """
    outcome: list[Any] = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = work()
        except RefloomError as error:
            if PartialState().num_processes == 1:
                raise
            outcome[1] = error
    made, raised = broadcast_object_list(outcome)
    if raised is not None:
        raise raised
    result: T = made
    return result


def uses_deepspeed() -> bool:
    """Whether the launcher asked for DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
