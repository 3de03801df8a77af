"""DeepSpeed's ZeRO: optimiser states and gradients in parts, one in each process (stage 2), and weights too (stage 3).

Trained weights are fp32, as without it, and forward passes run under autocast. DeepSpeed clips, and leaves a step out
whose gradients are not finite, where `Strategy.clipped` would still move weights by their momentum.

DeepSpeed's own checkpoints are pickles for one number of processes. Here the states of each parameter are put together
instead and written as without it; every process needs room for one parameter more, and for the whole adapter under
stage 3.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_set_full_optimizer_state,
    safe_set_local_optimizer_state,
)
from torch import Tensor, nn
from torch.nn import functional

from refloom.schemas.errors import Refused
from refloom.schemas.wording import some
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.preflight import TrainingPlan
from refloom.training.run.strategy import Strategy

STAGES = (2, 3)
_BUCKET, _ALIGNED = 200_000_000, 2
"""Most numbers that are reduced at once, and what DeepSpeed wants them to be a multiple of."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def settings(recipe: Recipe, plan: TrainingPlan, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What DeepSpeed is told besides the launcher's config.

    Args:
        recipe: to train.
        plan: of the recipe.
        asked: the launcher's config, as DeepSpeed's json.

    Raises:
        Refused: it contradicts the recipe, or one of them asks for what is not done.
    """
    zero = dict(asked.get("zero_optimization") or {})
    _check(recipe, zero, asked)
    bucket = min(_BUCKET, -(-plan.trained // _ALIGNED) * _ALIGNED)
    ours: dict[str, Any] = {
        "train_batch_size": recipe.batch.samples,
        "train_micro_batch_size_per_gpu": recipe.batch.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": recipe.optimizer.clip or 0.0,
    }
    for key, value in ours.items():
        found = asked.get(key, "auto")
        # accelerate puts a 1 where nobody said anything
        if found not in ("auto", value) and not (key == "gradient_accumulation_steps" and found == 1):
            raise Refused(f"DeepSpeed's config says {key}={found}, the recipe {value}: take it out of the config")
    if recipe.precision == "bf16":
        # no module is communicated in less than fp32, as without DeepSpeed
        ours["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    # stage 3 would put a linear of its own in place of torch's, for the frozen models too
    kept = {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket, "memory_efficient_linear": False}
    return {**ours, "zero_optimization": {**kept, **zero}, "zero_allow_untested_optimizer": True}


def _check(recipe: Recipe, zero: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    stage = zero.get("stage")
    if stage not in STAGES:
        raise Refused(f"DeepSpeed is asked for stage {stage}: set zero_stage to 2 or 3")
    for key in ("optimizer", "scheduler"):
        if key in asked:
            raise Refused(f"DeepSpeed's config has an {key} of its own: take it out, the recipe says it")
    for what in ("optimizer", "param"):
        if (zero.get(f"offload_{what}") or {}).get("device", "none") != "none":
            raise Refused(f"states are not kept outside the GPU: set offload_{what}_device to none")
    if recipe.precision == "fp16":
        raise Refused("fp16 is not trained under DeepSpeed: set precision=bf16")
    if recipe.optimizer.eight_bit:
        raise Refused("8-bit states cannot be cut up by DeepSpeed: set optimizer.eight_bit=false")
    if recipe.ema and stage == 3:
        raise Refused("a moving average needs whole weights in each process: take stage 2, or set ema=null")


class Flat(nn.Module):
    """A training step as one module, with all of the adapter's parameters in fp32 and nothing inside.

    Stage 3 gathers weights module by module and expects each process to call the same ones in the same order. Which
    parts of an adapter are called depends on the samples, and the UNet's attention uses weights without their modules.
    So weights are gathered for the whole step. What is frozen in half precision is whole in each process.

    Args:
        step_of: the training step.
    """

    def __init__(self, step_of: Any) -> None:
        super().__init__()
        self._inside = (step_of,)  # so that it is not a part
        for name, parameter in step_of.adapter.named_parameters():
            if parameter.dtype == torch.float32:
                self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, *arguments: Any) -> Tensor:
        """See `TrainingStep.forward`."""
        loss: Tensor = self._inside[0](*arguments)
        return loss


class Zero(Strategy):
    """See `Strategy`."""

    def prepare(self, step_of: Any, named: Mapping[str, nn.Parameter], adamw: torch.optim.Optimizer) -> tuple[Any, Any]:
        """See `Strategy.prepare`."""
        self._whole, self._named = step_of.adapter, dict(named)
        self._engine, self._optimizer = self.accelerator.prepare(Flat(step_of), adamw)
        self._begin_states()
        return self._engine, self._optimizer

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Strategy.load`."""
        wanted = {f"{name}|{what}" for name in self._named for what in (*_MOMENTS, "step")}
        if odd := sorted(wanted ^ set(tensors)):
            raise Refused(f"the checkpoint's optimiser is of other parameters: {some(odd)}; set `tuned` back")
        steps = {float(tensors[f"{name}|step"]) for name in self._named}
        if len(steps) > 1:
            raise Refused("the checkpoint's parameters were not all trained in every step: go on without DeepSpeed")
        for name, parameter in self._named.items():
            for what in _MOMENTS:
                self._set(parameter, what, tensors[f"{name}|{what}"].to(self.accelerator.device))
        for state in self._states().values():
            state["step"].fill_(*steps)

    def state(self) -> dict[str, Tensor]:
        """See `Strategy.state`; whole ones are kept by the first process alone."""
        (step,) = {float(state["step"]) for state in self._states().values()}
        out: dict[str, Tensor] = {}
        for name, parameter in self._named.items():
            for what in _MOMENTS:
                value = safe_get_full_optimizer_state(parameter, what)
                if self.accelerator.is_main_process:
                    out[f"{name}|{what}"] = value.cpu()
            out[f"{name}|step"] = torch.tensor(step)
        return out

    @contextmanager
    def whole(self) -> Iterator[None]:
        """See `Strategy.whole`."""
        many = [one for one in self._whole.parameters() if hasattr(one, "ds_id")]
        with deepspeed.zero.GatheredParameters(many, enabled=bool(many)):
            yield

    def clipped(self, limit: float | None) -> Tensor:
        """See `Strategy.clipped`; DeepSpeed has clipped and stepped in `backward`."""
        norm = float("inf") if self._optimizer.step_was_skipped else self._engine.get_global_grad_norm()
        return torch.as_tensor(norm, dtype=torch.float32, device=self.accelerator.device)

    def _set(self, parameter: Any, what: str, value: Tensor) -> None:
        """Give this process its part of a state of AdamW."""
        if not hasattr(parameter, "ds_id"):
            safe_set_full_optimizer_state(parameter, value, what)
            return
        # DeepSpeed's own way of cutting up under stage 3 fails where a number does not divide by the processes
        size, rank = parameter.ds_tensor.numel(), self.accelerator.process_index
        padded = functional.pad(value.flatten(), (0, size * self.accelerator.num_processes - value.numel()))
        safe_set_local_optimizer_state(parameter, padded[rank * size : (rank + 1) * size], what)

    def _states(self) -> dict[Tensor, dict[str, Tensor]]:
        """Of AdamW, by the flat part that this process has of each group."""
        found: dict[Tensor, dict[str, Tensor]] = self._optimizer.optimizer.state
        return found

    def _begin_states(self) -> None:
        """Make AdamW's states, as its first step would: they are set and read by parameter from now on."""
        zero = self._optimizer.optimizer
        stage2 = hasattr(zero, "single_partition_of_fp32_groups")
        for flat in zero.single_partition_of_fp32_groups if stage2 else zero.fp32_partitioned_groups_flat:
            zero.state[flat] = {"step": torch.tensor(0.0), **{what: torch.zeros_like(flat) for what in _MOMENTS}}
        if stage2:
            zero._lazy_init_hp_params_optimizer_state()
