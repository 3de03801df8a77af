"""Time and memory that references add to a denoising step, against the bare pipeline and the published processors.

`python -m benchmarks adapters`, or with options of its own: `python -m benchmarks.adapters [--quick] [--device cuda]
[--dtype bf16] [--compile] [--published DIR]`. DIR has `msdiffusion/` of MS-Diffusion's code and `ip_adapter/` of
IP-Adapter's; their attention processors alone are loaded and run beside ours, on the same weights and references.

A GPU steps SDXL's true UNet at 1024 x 1024. A processor steps one with true head sizes, a fifth of the width and half
the side, and single cross-attentions in their true size. Attention grows with the width and everything else with its
square, so references weigh more in the narrow UNet than in the true one; `flops` counts the true one.
"""

import argparse
import copy
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import bases
from benchmarks.table import Result, paired
from refloom.inference.adapters.calls import GUIDED
from refloom.inference.adapters.ms_diffusion.adapter import MSDiffusion
from refloom.inference.adapters.ms_diffusion.conditioning import MSDiffusionConditioning
from refloom.inference.adapters.tokens import TokenAdapter, TokenConditioning

_ASKED = 1.15
"""Times a bare step, with 2 references."""

_BY_HAND = 1.5
"""How much more published processors that compute attention by hand add to a cross-attention: MS-Diffusion's."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how to measure.

    Attributes:
        quick: 2 references only, fewer rounds, of the UNets only the tiny one.
        device, dtype: of UNet and adapter.
        compile: compile the UNet's blocks, ours and bare.
        published: folder of the published code; None to do without.
    """

    quick: bool = False
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compile: bool = False
    published: Path | None = None

    def clock(self) -> float:
        """Seconds: of this process on a processor, of the wall on a GPU that has nothing left to do."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def ratio(self, one: Callable[[], Any], other: Callable[[], Any]) -> tuple[float, float]:
        """Median seconds of `other`, and the median of one / other."""
        _, base, ratio = paired(one, other, 3 if self.quick else 9, clock=self.clock)
        return base, ratio


def run(quick: bool) -> Result:
    """As other benchmarks: on the processor, one thread, without published code."""
    return measure(Setting(quick=quick))


def measure(setting: Setting) -> Result:
    """One row for each base, kind of adapter and number of references."""
    if setting.device == "cpu":
        torch.set_num_threads(1)
    rows: list[list[str]] = []
    checks: list[tuple[str, bool]] = []
    for base in _bases(setting):
        for name, references in bases.cases((2,) if setting.quick else (1, 2, 4)):
            row, checked = _case(setting, base, name, references)
            rows.append(row)
            checks += checked
    return Result(
        "Time of references in a step",
        ("base", "adapter", "references", "bare ms", "ours / bare", "memory, ours / bare", "published / ours"),
        rows,
        f"On {setting.device}, {setting.dtype}, {'compiled' if setting.compile else 'not compiled'}; two rows, of "
        "which MS-Diffusion conditions one. Median of paired runs, after the one that binds keys and values.",
        checks,
    )


@dataclass(frozen=True, slots=True)
class Base:
    """What is timed.

    Attributes:
        name: for the table.
        make: makes it, on the device of the context.
        inputs: what it is called with.
        step: whether it is a whole UNet.
    """

    name: str
    make: Callable[[], Any]
    inputs: dict[str, Any]
    step: bool


def _bases(setting: Setting) -> list[Base]:
    kind: dict[str, Any] = {"device": setting.device, "dtype": setting.dtype}
    found = [
        Base(f"cross-attention {width} wide, {side} x {side}", partial(bases.OneLayer, width), inputs, False)
        for width, side in ((640, 64), (1280, 32))
        for inputs in [bases.layer_inputs(width, side, **kind)]
    ]
    if setting.device != "cpu":
        return [*found, Base("SDXL at 1024 x 1024", bases.sdxl, bases.step_inputs(128, **kind), True)]
    tiny = partial(bases.sdxl, (64, 64, 64), (1, 1, 1))
    found.append(Base("tiny UNet at 128 x 128", tiny, bases.step_inputs(16, **kind), True))
    if not setting.quick:
        narrow = partial(bases.sdxl, (64, 128, 256), (1, 2, 4))
        found.append(Base("narrow UNet at 512 x 512", narrow, bases.step_inputs(64, **kind), True))
    return found


def _case(setting: Setting, base: Base, name: str, references: int) -> tuple[list[str], list[tuple[str, bool]]]:
    """A row of the table, and what was asked of it."""
    torch.manual_seed(0)
    inputs = base.inputs
    with torch.device(setting.device):
        unet = base.make().to(setting.dtype).eval().requires_grad_(False)
    bare = copy.deepcopy(unet)
    if setting.compile and base.step:
        unet.compile_repeated_blocks(fullgraph=True)
        bare.compile_repeated_blocks(fullgraph=True)
    adapter = bases.KINDS[name](unet).to(setting.device, setting.dtype).requires_grad_(False).attach(unet)
    conditioning = bases.conditions(adapter, references)
    published = None
    if setting.published is not None:
        published = _published(setting.published, copy.deepcopy(bare), adapter, conditioning, inputs)
    with torch.no_grad(), adapter.generation(conditioning, halves=GUIDED):
        seconds, ratio = setting.ratio(lambda: unet(**inputs), lambda: bare(**inputs))
        theirs = None if published is None else setting.ratio(published, lambda: unet(**inputs))[1]
        memory = None if setting.device == "cpu" else _memory(unet, bare, adapter, inputs)
    row = [base.name, name, str(references), f"{seconds * 1e3:,.1f}", f"{ratio:.3f}"]
    row += ["" if value is None else f"{value:.3f}" for value in (memory, theirs)]
    return row, _checks(base, f"{base.name}: {name}, {references}:", ratio, theirs, adapter, references)


def _checks(
    base: Base, said: str, ratio: float, theirs: float | None, adapter: TokenAdapter, references: int
) -> list[tuple[str, bool]]:
    checks = []
    if base.step and (references == 2 or adapter.config.tokens == 64):
        checks.append((f"{said} {ratio:.3f} times the bare step, asked {_ASKED}", ratio <= _ASKED))
    if theirs is not None:
        checks.append((f"{said} published code takes {theirs:.2f} times ours, asked 1", theirs >= 1))
        if not base.step and isinstance(adapter, MSDiffusion):
            ours, by_hand = ratio - 1, ratio * theirs - 1
            added = f"{said} by hand adds {by_hand:.1%}, ours {ours:.1%}, asked {_BY_HAND} times as much"
            checks.append((added, by_hand >= _BY_HAND * ours))
    return checks


def _memory(unet: Any, bare: Any, adapter: TokenAdapter, inputs: dict[str, Any]) -> float:
    """Weights, kept keys and values and the peak of a step on a GPU, against weights and peak of the bare one."""
    kept = [held for slot in adapter.slots.values() for held in (slot.key, slot.value)]
    ours = _bytes(*unet.parameters(), *adapter.layers.parameters(), *kept) + _peak(unet, inputs)
    return ours / (_bytes(*bare.parameters()) + _peak(bare, inputs))


def _peak(unet: Any, inputs: dict[str, Any]) -> int:
    """Bytes that one step needs at most above what is held before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    unet(**inputs)
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated()) - held


def _bytes(*tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _published(
    folder: Path,
    unet: Any,
    adapter: TokenAdapter,
    conditioning: TokenConditioning,
    inputs: dict[str, Any],
) -> Callable[[], Any] | None:
    """A step with the published processors in this UNet; None where there are none for the kind."""
    masked = isinstance(conditioning, MSDiffusionConditioning)
    file = folder / ("msdiffusion/models" if masked else "ip_adapter") / "attention_processor.py"
    if not file.exists() or adapter.kind == "mip":
        return None
    module = _module(file)
    tokens = conditioning.tokens.flatten(1, 2).to(inputs["sample"])
    options: dict[str, Any] = {"num_tokens": tokens.shape[1]}
    extra: dict[str, Any] = {}
    if isinstance(adapter, MSDiffusion) and isinstance(conditioning, MSDiffusionConditioning):
        follows = adapter.mask_threshold is not None
        options = {"num_tokens": adapter.config.tokens, "need_text_attention_map": follows}
        options |= {"use_psuedo_attention_mask": follows, "start_step": 1}
        tokens = torch.cat([adapter.dummy_image_tokens, tokens], dim=1)
        boxes = conditioning.boxes[:, :, 0].to(tokens)
        spans = torch.tensor([[[2 + 3 * at, 3 + 3 * at] for at in range(boxes.shape[1])]], device=boxes.device)
        extra["cross_attention_kwargs"] = {
            "boxes": torch.cat([torch.zeros_like(boxes), boxes]),
            "phrase_idxes": torch.cat([torch.zeros_like(spans), spans]),
        }
    processors = {}
    for path in unet.attn_processors:
        attention = path.removesuffix(".processor")
        if attention not in adapter.config.layers:
            processors[path] = module.AttnProcessor2_0()
            continue
        kind = module.MaskedIPAttnProcessor2_0 if masked else module.IPAttnProcessor2_0
        processor = kind(adapter.config.layers[attention], bases.CONTEXT, **options)
        processor.load_state_dict(adapter.layer(attention).state_dict())
        processors[path] = processor.to(inputs["sample"]).requires_grad_(False)
    unet.set_attn_processor(processors)
    context = torch.cat([inputs["encoder_hidden_states"], _guided(tokens)], dim=1)
    given = inputs | extra | {"encoder_hidden_states": context}

    def step() -> None:
        unet(**given)
        for processor in processors.values():
            # of one step, as ours; the published code keeps the maps of all
            if hasattr(processor, "attention_maps"):
                processor.attention_maps = []

    return step


def _guided(tokens: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(tokens), tokens])


def _module(file: Path) -> Any:
    """A file of processors by itself, without the package around it."""
    name = f"published_{file.parent.parent.name}_{file.parent.name}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(file)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def main() -> int:
    """Measure with options of its own; 1 if something that was asked for is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 references, fewer rounds, a tiny UNet")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="fp32", choices=_DTYPES, help="of UNet and adapter")
    parser.add_argument("--compile", action="store_true", help="compile the UNet's blocks")
    parser.add_argument("--published", type=Path, metavar="DIR", help="run the published processors beside ours")
    options = parser.parse_args()
    setting = Setting(options.quick, options.device, _DTYPES[options.dtype], options.compile, options.published)
    result = measure(setting)
    print(result.terminal())
    return 0 if all(met for _, met in result.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
