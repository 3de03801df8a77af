"""AdamW over named groups of parameters, its learning rates as a function of the step, and its state as tensors."""

import difflib
import importlib.util
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from refloom.schemas.errors import Refused
from refloom.schemas.wording import some
from refloom.training.recipes.recipe import Optimizer

_UNTOUCHED = "untouched"
"""In place of the state of a parameter that no loss has depended on yet."""


def tune(adapter: nn.Module, prefixes: Sequence[str]) -> dict[str, nn.Parameter]:
    """Freeze an adapter but for what is trained.

    Args:
        adapter: may be on the meta device.
        prefixes: beginnings of names of parameters: whole parts of dotted paths.

    Returns:
        What is trained, by name.

    Raises:
        Refused: a prefix fits no parameter.
    """
    named = dict(adapter.named_parameters())
    for prefix in prefixes:
        if not any(_begins(name, prefix) for name in named):
            parts = {".".join(name.split(".")[:depth]) for name in named for depth in range(1, 4)}
            near = difflib.get_close_matches(prefix, parts, n=1)
            known = sorted({name.split(".")[0] for name in named})
            raise Refused(
                f"tuned names {prefix!r}, which the adapter does not have"
                + (f"; did you mean {near[0]}?" if near else f"; it has {some(known)}")
            )
    adapter.requires_grad_(False)
    chosen = {name: one for name, one in named.items() if any(_begins(name, prefix) for prefix in prefixes)}
    if not chosen:
        raise Refused("nothing is trained: name parts of the adapter in `tuned`")
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def rate(name: str, settings: Optimizer) -> float:
    """Learning rate of a parameter: that of the longest prefix in `lrs`, else `lr`."""
    fits = [prefix for prefix in settings.lrs if _begins(name, prefix)]
    return settings.lrs[max(fits, key=len)] if fits else settings.lr


def groups(named: Mapping[str, nn.Parameter], settings: Optimizer) -> list[dict[str, Any]]:
    """Parameter groups of one learning rate and weight decay each, in the order of their first parameter.

    Raises:
        Refused: a prefix in `lrs` fits nothing that is trained.
    """
    for prefix in settings.lrs:
        if not any(_begins(name, prefix) for name in named):
            raise Refused(f"optimizer.lrs names {prefix!r}, of which nothing is trained")
    made: dict[tuple[float, float], list[str]] = {}
    for name, parameter in named.items():
        decay = settings.weight_decay if settings.decay_vectors or parameter.ndim > 1 else 0.0
        made.setdefault((rate(name, settings), decay), []).append(name)
    return [
        {"params": [named[name] for name in names], "names": names, "lr": lr, "weight_decay": decay}
        for (lr, decay), names in made.items()
    ]


def build(named: Mapping[str, nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of what is trained.

    Raises:
        Refused: see `groups` and `check`.
    """
    check(settings)
    kind: Any = torch.optim.AdamW
    more: dict[str, Any] = {}
    if settings.eight_bit:
        kind = importlib.import_module("bitsandbytes.optim").AdamW8bit
    elif all(parameter.device.type == "cpu" for parameter in named.values()):
        more["fused"] = True  # one pass over the memory in place of ten, which CPUs wait for
    made: torch.optim.Optimizer = kind(groups(named, settings), betas=settings.betas, eps=settings.epsilon, **more)
    return made


def check(settings: Optimizer) -> None:
    """Refuse what this machine cannot do."""
    if settings.eight_bit and importlib.util.find_spec("bitsandbytes") is None:
        raise Refused("optimizer.eight_bit needs bitsandbytes: pip install bitsandbytes, or set it to false")


def factor(step: int, steps: int, settings: Optimizer) -> float:
    """Learning rate of a step over the full one.

    Args:
        step: counted from 0.
        steps: of the run.
        settings: schedule and warm-up.

    Returns:
        0..1.
    """
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return max(0.0, 1 - done) if settings.schedule == "linear" else (1 + math.cos(math.pi * min(1.0, done))) / 2


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser of `build`, by `<parameter>|<what>`: its own tensors, which the next step changes."""
    names = _names(optimizer)
    states: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    found = {f"{names[number]}|{what}": value for number, state in states.items() for what, value in state.items()}
    # such as the last layer of a text encoder of which the one before is read
    without = {f"{name}|{_UNTOUCHED}": torch.zeros(0) for number, name in enumerate(names) if number not in states}
    return found | without


def load_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give a new optimiser what `state_tensors` returned.

    Raises:
        Refused: the state is of other parameters.
    """
    ordered = _names(optimizer)
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, what = key.rpartition("|")
        states.setdefault(name, {})[what] = tensor
    check_names(states, ordered)
    whole = optimizer.state_dict()
    whole["state"] = {number: states[name] for number, name in enumerate(ordered) if _UNTOUCHED not in states[name]}
    optimizer.load_state_dict(whole)


def check_names(saved: Collection[str], trained: Collection[str]) -> None:
    """Refuse the state of an optimiser of other parameters than those that are trained."""
    if odd := sorted(set(saved) ^ set(trained)):
        raise Refused(f"the checkpoint's optimiser is of other parameters: {some(odd)}; set `tuned` back")


def _names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Of its parameters, in the order of their numbers."""
    return [name for group in optimizer.param_groups for name in group["names"]]


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
