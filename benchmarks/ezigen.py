"""What EZIGen's subjects add to a guided step of Stable Diffusion 2 at 512 x 512, against its own arithmetic floor.

The floor is what the method cannot do without, in every block: four projections of the picture's own positions, and
an attention of them to themselves and to all positions of all subjects. Keys and values of subjects are bound once.
Counted on the meta device in the true size; timed on a processor in a fifth of the width, with true head widths.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.table import Result, paired
from refloom.inference.adapters.calls import GUIDED
from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConditioning, EZIGenConfig, config_values

_SIDE, _CONTEXT, _HEAD = 64, 1024, 64
_TRUE, _NARROW = (320, 640, 1280, 1280), (64, 128, 256, 256)

_ASKED = 1.10
"""Times the step that the floor predicts."""


def run(quick: bool) -> Result:
    """One row for each number of subjects."""
    torch.set_num_threads(1)
    rows, checks = [], []
    for subjects in (1,) if quick else (1, 2, 4):
        bare, floor, every, once = _counted(_TRUE, subjects)
        small_bare, small_floor, _, _ = _counted(_NARROW, subjects)
        seconds, ratio = _timed(_NARROW, subjects, 1 if quick else 5)
        predicted = 1 + small_floor / small_bare
        rows.append(
            [str(subjects)]
            + [f"{1 + flops / bare:.3f}" for flops in (floor, every)]
            + [f"{once / bare:.2f}", f"{seconds * 1e3:,.0f}", f"{predicted:.3f}", f"{ratio:.3f}"]
        )
        said = f"{subjects} subjects: {ratio / predicted:.3f} times the step that the floor predicts, asked {_ASKED}"
        checks.append((said, ratio <= _ASKED * predicted))
    return Result(
        "EZIGen's subjects in a step of Stable Diffusion 2 at 512 x 512",
        (
            "subjects",
            "floor",
            "counted",
            "once a generation",
            "narrow: bare ms",
            "narrow: floor",
            "narrow: ours / bare",
        ),
        rows,
        "Times a bare guided step: in FLOPs at true size, and in FLOPs and time in the narrow UNet (one core, fp32, "
        "median of paired runs, after the step that binds keys and values). Once a generation the UNet reads the "
        "subjects, and their keys and values are made.",
        checks,
    )


def _unet(widths: Sequence[int]) -> Any:
    """Stable Diffusion 2's, with other widths."""
    return UNet2DConditionModel(
        block_out_channels=tuple(widths),
        attention_head_dim=tuple(width // _HEAD for width in widths),
        cross_attention_dim=_CONTEXT,
        use_linear_projection=True,
        sample_size=_SIDE,
    )


def _inputs(rows: int, device: str) -> dict[str, Any]:
    return {
        "sample": torch.randn(rows, 4, _SIDE, _SIDE, device=device),
        "timestep": torch.tensor(500, device=device),
        "encoder_hidden_states": torch.randn(rows, 77, _CONTEXT, device=device),
    }


def _positions(unet: Any) -> dict[str, int]:
    """Positions that each transformer block sees, by path."""
    seen: dict[str, int] = {}
    hooks = [
        block.register_forward_pre_hook(
            lambda _, args, path=path: seen.update({path: args[0].shape[1]}),
        )
        for path, block in unet.named_modules()
        if path.rpartition(".")[0].endswith("transformer_blocks")
    ]
    with torch.no_grad():
        unet(**_inputs(1, str(unet.device)))
    for hook in hooks:
        hook.remove()
    return seen


def _conditions(adapter: EZIGen, positions: dict[str, int], subjects: int, device: str) -> EZIGenConditioning:
    """Random features of one prompt's subjects, as `encode` would make them."""
    return EZIGenConditioning(
        features={
            path: torch.randn(1, subjects, positions[path], width, device=device)
            for path, width in adapter.config.layers.items()
        },
        strengths=torch.ones(1, subjects),
        amount=torch.ones(1),
    )


def _adapter(unet: Any) -> EZIGen:
    return EZIGen(EZIGenConfig(**config_values(unet))).requires_grad_(False)


def _counted(widths: Sequence[int], subjects: int) -> tuple[int, int, int, int]:
    """FLOPs of a bare step, the floor of what subjects add, what they add in every step, and once a generation."""
    with torch.device("meta"):
        unet = _unet(widths).requires_grad_(False)
        adapter = _adapter(unet)
    positions, inputs = _positions(unet), _inputs(2, "meta")
    bare = _flops(partial(unet, **inputs))
    reading = _flops(partial(unet, **_inputs(subjects, "meta")))
    adapter.attach(unet)
    with torch.no_grad(), adapter.generation(_conditions(adapter, positions, subjects, "meta"), halves=GUIDED):
        first = _flops(partial(unet, **inputs)) - bare
        every = _flops(partial(unet, **inputs)) - bare
    adapter.detach()
    rows = len(GUIDED)
    floor = sum(
        rows * (4 * 2 * positions[path] * width**2 + 2 * 2 * positions[path] ** 2 * (1 + subjects) * width)
        for path, width in adapter.config.layers.items()
    )
    return bare, floor, every, first - every + reading


def _flops(call: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _timed(widths: Sequence[int], subjects: int, rounds: int) -> tuple[float, float]:
    """Seconds of a bare step, and how many times that ours takes."""
    torch.manual_seed(0)
    bare, unet = (_unet(widths).eval().requires_grad_(False) for _ in range(2))
    unet.load_state_dict(bare.state_dict())
    adapter, inputs = _adapter(unet), _inputs(2, "cpu")
    conditioning = _conditions(adapter, _positions(unet), subjects, "cpu")
    adapter.attach(unet)
    with torch.no_grad(), adapter.generation(conditioning, halves=GUIDED):
        _, seconds, ratio = paired(lambda: unet(**inputs), lambda: bare(**inputs), rounds)
    adapter.detach()
    return seconds, ratio
