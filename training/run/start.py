"""The strategy that a run was launched with: `accelerate launch` decides."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from refloom.training.recipes.recipe import Recipe
from refloom.training.run.preflight import TrainingPlan
from refloom.training.run.processes import uses_deepspeed
from refloom.training.run.strategy import Strategy


def start(recipe: Recipe, plan: TrainingPlan, run: Path) -> Strategy:
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
    if not uses_deepspeed():
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
