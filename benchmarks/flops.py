"""What references add to a step of SDXL at 1024 x 1024, counted on the meta device; and the weights they bring.

The floor is two matrix products of every position with every reference token in the rows where references act, and
nothing else. What is counted beyond it is the method's own: MIP-Adapter's relevance and gate, the maps of auto layout.
"""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import bases
from benchmarks.table import Result
from refloom.inference.adapters.calls import GUIDED

_ASKED = 0.15
"""Of a step, with 2 references."""


def run(quick: bool) -> Result:
    """FLOPs as operations are called with, fp16 sizes, both halves of guidance."""
    kind: dict[str, Any] = {"device": "meta", "dtype": torch.float16}
    with torch.device("meta"):
        unet = bases.sdxl().half().requires_grad_(False)
    inputs = bases.step_inputs(128, **kind)
    shapes: list[tuple[int, ...]] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
        for name, module in unet.named_modules()
        if name.endswith(".attn2")
    ]
    bare, total = _flops(unet, inputs), _bytes(*unet.parameters())
    for hook in hooks:
        hook.remove()
    rows, checks = [], []
    for name, references in bases.cases((2,) if quick else (1, 2, 4)):
        with torch.device("meta"):
            adapter = bases.KINDS[name](unet).half().requires_grad_(False)
        adapter.attach(unet)
        conditioning = bases.conditions(adapter, references)
        with torch.no_grad(), adapter.generation(conditioning, halves=GUIDED):
            first = _flops(unet, inputs) - bare
            every = _flops(unet, inputs) - bare
            kept = _bytes(*(held for slot in adapter.slots.values() for held in (slot.key, slot.value)))
        adapter.detach()
        halves = 1 if conditioning.negative_tokens is None else 2
        tokens = references * conditioning.tokens.shape[2]
        floor = sum(4 * halves * positions * tokens * width for _, positions, width in shapes)
        weights = _bytes(*adapter.layers.parameters())
        shares = [floor / bare, every / bare, (first - every) / bare, weights / total, kept / total]
        rows.append([name, str(references), *(f"{share:.2%}" for share in shares)])
        if references == 2 or name == "64 tokens":
            checks.append(
                (f"{name}, {references}: {every / bare:.2%} more, asked {_ASKED:.0%}", every / bare <= _ASKED)
            )
    return Result(
        "What references add to a step of SDXL at 1024 x 1024",
        ("adapter", "references", "floor", "every step", "once", "weights", "kept keys and values"),
        rows,
        f"Shares of a bare guided step, {bare / 1e12:.2f} TFLOP (a multiplication and an addition are two), and of the "
        f"UNet's weights, {total / 1e9:.2f} GB in fp16. Of the adapter's weights those of the layers are counted, not "
        "those of image heads and encoders, which no step needs.",
        checks,
    )


def _flops(unet: Any, inputs: dict[str, Any]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        unet(**inputs)
    return int(counter.get_total_flops())


def _bytes(*tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
