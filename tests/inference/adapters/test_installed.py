"""What is done to a pipeline after an adapter was attached: it has its effect beside the adapter, or is refused."""

import copy

import numpy as np
import pytest
import tinypipes as tiny
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from adapting import easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter, references
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, XFormersAttnProcessor
from peft import LoraConfig

from inference.adapters import published
from inference.adapters.attention import CrossAttention, cross_attentions
from inference.adapters.ip_adapter import IPAdapter, IPAdapterConfig
from schemas.errors import Refused

MAKERS = {
    "ip_adapter": ip_adapter,
    "mip": mip_adapter,
    "ms_diffusion": ms_adapter,
    "easyref": easyref_adapter,
    "ezigen": ezigen_adapter,
}
TOKENS = [kind for kind in MAKERS if kind != "ezigen"]
"""Those that act through processors of cross-attentions."""


class Mine(AttnProcessor2_0):
    """A processor that computes nobody knows what."""


@pytest.fixture(scope="module")
def base():
    return tiny.sd_pipe()


@pytest.fixture
def pipe(base):
    return copy.deepcopy(base)


@pytest.fixture(scope="module")
def made(base):
    """Of each kind an adapter that is on no pipeline, its conditions, the picture with them, and the plain picture."""
    out, plain = {}, picture(base)
    for kind, maker in MAKERS.items():
        adapter = maker(base).attach(base)
        conditions = adapter.encode(references(0, 1))
        out[kind] = adapter, conditions, given(base, adapter, conditions), plain
        adapter.detach()
    return out


@pytest.fixture
def attached(pipe, made, kind):
    adapter, *rest = made[kind]
    yield adapter.attach(pipe), *rest
    adapter.scale = 1.0
    adapter.detach()


def picture(pipe, **options) -> np.ndarray:
    return tiny.generate(pipe, "a dog and a cat", **({"height": 32, "width": 32} | options))


def given(pipe, adapter, conditions, **options) -> np.ndarray:
    with adapter.generation(conditions):
        return picture(pipe, **options)


def processors(pipe):
    return {name: id(processor) for name, processor in pipe.unet.attn_processors.items()}


def lora(pipe, name="theirs"):
    torch.manual_seed(3)
    options = {"r": 2, "init_lora_weights": False, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    pipe.unet.add_adapter(LoraConfig(**options), adapter_name=name)


def stock_on_cross_attentions(processor):
    def do(pipe):
        for attn in cross_attentions(pipe.unet).values():
            attn.set_processor(processor())

    return do


def to_and_fro(*names):
    return lambda pipe: [getattr(pipe, name)() for name in names]


# what is called, and what undoes it
WORKS = {
    "slicing": (lambda pipe: pipe.enable_attention_slicing("max"), lambda pipe: pipe.disable_attention_slicing()),
    "slicing in halves": (lambda pipe: pipe.enable_attention_slicing(), lambda pipe: pipe.disable_attention_slicing()),
    "slicing and not": (to_and_fro("enable_attention_slicing", "disable_attention_slicing"), None),
    "no xformers": (to_and_fro("disable_xformers_memory_efficient_attention"), None),
    "stock": (lambda pipe: pipe.unet.set_attn_processor(AttnProcessor()), to_and_fro("disable_attention_slicing")),
    "xformers": (stock_on_cross_attentions(XFormersAttnProcessor), to_and_fro("disable_attention_slicing")),
    "fused": (to_and_fro("fuse_qkv_projections"), to_and_fro("unfuse_qkv_projections")),
    "fused and not": (to_and_fro("fuse_qkv_projections", "unfuse_qkv_projections"), None),
    "no ip adapter": (lambda pipe: pipe.unload_ip_adapter(), None),
    "freeu": (lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.3, 1.4), to_and_fro("disable_freeu")),
    "tiles": (to_and_fro("enable_vae_tiling"), to_and_fro("disable_vae_tiling")),
    "chunks": (
        lambda pipe: pipe.unet.enable_forward_chunking(1, 1),
        lambda pipe: pipe.unet.disable_forward_chunking(),
    ),
    "their lora": (lora, lambda pipe: pipe.unload_lora_weights()),
    "their lora and not": (lambda pipe: [lora(pipe), pipe.unload_lora_weights()], None),
    "offload": (
        lambda pipe: cpu_offload(pipe.unet, torch.device("cpu")),
        lambda pipe: remove_hook_from_submodules(pipe.unet),
    ),
}
REFUSED = {("easyref", "fused")}


@pytest.mark.parametrize(("kind", "call"), [(kind, call) for kind in MAKERS for call in WORKS])
def test_a_call_after_attaching_gives_the_picture_of_the_same_call_before_it(pipe, attached, kind, call):
    adapter, conditions, alone, plain = attached
    do, undo = WORKS[call]
    undo = undo or (lambda _: None)
    if (kind, call) in REFUSED:
        with pytest.raises(Refused):
            do(pipe)
            given(pipe, adapter, conditions)
        undo(pipe)
        assert np.array_equal(given(pipe, adapter, conditions), alone)
        return
    adapter.detach()
    do(pipe)
    without = picture(pipe)
    before = given(pipe, adapter.attach(pipe), conditions)
    adapter.detach()
    undo(pipe)
    adapter.attach(pipe)
    do(pipe)
    after = given(pipe, adapter, conditions)
    assert np.abs(after - without).max() > 1e-2
    np.testing.assert_allclose(after, before, atol=1e-3)
    if call not in ("freeu", "their lora"):
        np.testing.assert_allclose(after, alone, atol=1e-3)
    adapter.scale = 0.0
    assert np.array_equal(given(pipe, adapter, conditions), without)
    adapter.scale = 1.0
    undo(pipe)
    np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-3)
    adapter.detach()
    assert not any(isinstance(one, CrossAttention) for one in pipe.unet.attn_processors.values())
    np.testing.assert_allclose(picture(pipe), plain, atol=1e-3)
