"""How a run is spread over processes: one, several with whole weights each (DDP), or DeepSpeed's ZeRO (`zero`).

`accelerate launch` decides; the loop is the same. Whatever the strategy, a checkpoint holds the same tensors by the
same names, so a run goes on under another one.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from refloom.schemas.errors import RefloomError
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import optimizer
from refloom.training.run.preflight import TrainingPlan


def processes() -> int:
    """Processes of this run; they meet here, so all of them call it."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available():
        if _deepspeed():
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


def start(recipe: Recipe, plan: TrainingPlan, run: Path) -> "Strategy":
    """The strategy that this run was launched with.

    Args:
        recipe: to train.
        plan: of the recipe.
        run: its folder.

    Raises:
        Refused: the recipe, or the launcher's config, asks for what the strategy cannot do.
    """
    options: dict[str, Any] = {
        "mixed_precision": recipe.precision,
        "gradient_accumulation_steps": plan.accumulation,
        "log_with": list(recipe.trackers) or None,
        "project_dir": run,
    }
    # of an earlier run in this process, perhaps of another precision; accelerate has no public way to begin anew
    AcceleratorState._reset_state()
    if not _deepspeed():
        return Strategy(Accelerator(**options))
    from accelerate import DeepSpeedPlugin
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from refloom.training.run.zero import Zero, settings

    plugin = DeepSpeedPlugin(zero3_init_flag=False)
    plugin.deepspeed_config.update(settings(recipe, plan, plugin.deepspeed_config))
    # autocast is DeepSpeed's own, around fp32 weights; accelerate would make the weights themselves bf16
    accelerator = Accelerator(**{**options, "mixed_precision": "no"}, deepspeed_plugin=plugin)
    # else transformers cuts up the frozen models, which are whole in each process
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    return Zero(accelerator)


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


def _deepspeed() -> bool:
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
