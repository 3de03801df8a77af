"""What tests of adapters share: tiny adapters with random weights for tiny pipelines, and references for them."""

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import tinypipes as tiny
import torch

from refloom.inference.adapters import published
from refloom.inference.adapters.easyref import adapter as easyref
from refloom.inference.adapters.easyref.adapter import EasyRef, EasyRefConfig
from refloom.inference.adapters.easyref.qwen import QwenConfig
from refloom.inference.adapters.ezigen import adapter as ezigen
from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConfig
from refloom.inference.adapters.ip_adapter import heads
from refloom.inference.adapters.ip_adapter.adapter import IPAdapter, IPAdapterConfig
from refloom.inference.adapters.ip_adapter.heads import HeadConfig
from refloom.inference.adapters.mip.adapter import MIPAdapter
from refloom.inference.adapters.ms_diffusion import adapter as ms_diffusion
from refloom.inference.adapters.ms_diffusion.adapter import MSDiffusion, MSDiffusionConfig
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.vision import ClipVision

SMALL = {"resampler_width": 24, "resampler_depth": 2, "resampler_heads": 3, "resampler_head_width": 8}


def ip_adapter(pipe, seed=3, head="plain", **options) -> IPAdapter:
    return _ready(IPAdapter(IPAdapterConfig(**_values(pipe, head), **SMALL, **options)), seed)


def mip_adapter(pipe, seed=3, head="plain") -> MIPAdapter:
    return _ready(MIPAdapter(HeadConfig(**_values(pipe, head), **SMALL)), seed)


def ms_adapter(pipe, seed=3) -> MSDiffusion:
    small = {"width": 24, "depth": 2, "heads": 3, "head_width": 8, "tokens": 4}
    widths = {"image_width": 24, "phrase_width": tiny.TEXT_WIDTH}
    return _ready(MSDiffusion(MSDiffusionConfig(**ms_diffusion.config_values(pipe.unet), **small, **widths)), seed)


TINY_QWEN = QwenConfig(
    vocabulary=264,
    width=16,
    feed_forward=24,
    layers=3,
    heads=2,
    key_heads=1,
    vision_depth=2,
    vision_width=16,
    vision_heads=2,
    vision_expansion=2,
)


def easyref_adapter(pipe, seed=3, **options) -> EasyRef:
    """References of 56 px squares are 4 tokens each, and become 4."""
    small = {"qwen": TINY_QWEN, "tokens": 4, "lora_rank": 3, "side": 56} | options
    config = EasyRefConfig(**easyref.config_values(pipe.unet), **small)
    key = (repr(config), seed)
    if key not in _BUILT:
        _BUILT[key] = _built_easyref(config, seed)
    adapter = copy.deepcopy(_BUILT[key])
    adapter.tokenizer = tiny.qwen_tokenizer()
    return adapter


_BUILT: dict[tuple[str, int], EasyRef] = {}
"""By configuration and seed: a language model is built once."""


def _built_easyref(config: EasyRefConfig, seed: int) -> EasyRef:
    adapter = EasyRef(config)
    tiny.randomise(adapter, seed)
    tiny.randomise(adapter.reader, seed, 0.5)  # else references hardly differ
    tiny.randomise(adapter.image_proj, seed, 0.5)
    return adapter.requires_grad_(False)


def ezigen_adapter(pipe, seed=3) -> EZIGen:
    """For SD-shaped pipelines; subjects are read at 32 px, which are latents of 16."""
    return _ready(EZIGen(EZIGenConfig(**ezigen.config_values(pipe.unet), resolution=32)), seed)


def nested(adapter) -> dict:
    """An adapter as the authors would have saved it: nested mappings under their keys."""
    parts: dict = {}
    for key, tensor in published.published_keys(adapter).items():
        name, dot, rest = key.partition(".")
        name = "ms_adapter" if name == "ip_adapter" and adapter.kind == "ms_diffusion" else name
        if dot:
            parts.setdefault(name, {})[rest] = tensor
        else:
            parts[name] = tensor
    return parts


@contextlib.contextmanager
def attached(adapter, pipe) -> Iterator:
    """The adapter on a pipeline that others use too, and off again whatever happens."""
    try:
        yield adapter.attach(pipe)
    finally:
        adapter.detach()


def references(*seeds, phrases=("dog", "cat", "lantern"), **options) -> list[Reference]:
    return [Reference((tiny.picture(seed),), phrases[at], **options) for at, seed in enumerate(seeds)]


def conditioned(pipe, adapter, given, *, prompt=None, **options) -> np.ndarray:
    """One run with references, each with its own noise."""
    with adapter.generation(adapter.encode(given, prompt=prompt)):
        return tiny.generate(pipe, **options)


def latents_by_step(run) -> list[torch.Tensor]:
    """The latents after each step of a run that takes a pipeline's options."""
    seen = []
    run(callback_on_step_end=lambda _, __, ___, kwargs: seen.append(kwargs["latents"].clone()) or kwargs)
    return seen


def _values(pipe, head):
    config = tiny.image_encoder().config
    width = config.projection_dim if head == "plain" else config.hidden_size
    return heads.config_values(pipe.unet, head=head, image_width=width)


def _ready(adapter, seed):
    tiny.randomise(adapter, seed)
    adapter.image_encoder = ClipVision(tiny.image_encoder())
    return adapter.requires_grad_(False)
