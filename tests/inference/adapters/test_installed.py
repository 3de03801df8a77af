"""What is done to a pipeline after an adapter was attached: it has its effect beside the adapter, or is refused."""

import copy

import numpy as np
import pytest
import tinypipes as tiny
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from adapting import easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter, nested, references
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, XFormersAttnProcessor
from peft import LoraConfig

from refloom.inference.adapters.attention import CrossAttention, cross_attentions
from refloom.inference.adapters.guidance import reference_guidance
from refloom.inference.adapters.ip_adapter.adapter import IPAdapter
from refloom.inference.adapters.windows import StepWindow
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused

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
    """The same with a UNet of its own, which a test may leave as it likes."""
    parts = base.components | {"unet": copy.deepcopy(base.unet)}
    made = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


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


@pytest.fixture(autouse=True)
def detached(made):
    """What one test leaves attached is not the next one's fault."""
    yield
    for adapter, *_ in made.values():
        adapter.detach()
        adapter.scale, adapter.window = 1.0, StepWindow()


@pytest.fixture
def attached(pipe, made, kind):
    adapter, *rest = made[kind]
    return adapter.attach(pipe), *rest


def picture(pipe, **options) -> np.ndarray:
    return tiny.generate(pipe, "a dog and a cat", **({"height": 32, "width": 32} | options))


def given(pipe, adapter, conditions, **options) -> np.ndarray:
    with adapter.generation(conditions):
        return picture(pipe, **options)


def lora(pipe, name="theirs"):
    torch.manual_seed(3)
    options = {"r": 2, "init_lora_weights": False, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
    pipe.unet.add_adapter(LoraConfig(**options), adapter_name=name)


def on_cross_attentions(pipe, processor):
    for attn in cross_attentions(pipe.unet).values():
        attn.set_processor(processor())


def to_and_fro(*names):
    return lambda pipe: [getattr(pipe, name)() for name in names]


# what is called, and what undoes it
WORKS = {
    "slicing": (lambda pipe: pipe.enable_attention_slicing("max"), lambda pipe: pipe.disable_attention_slicing()),
    "slicing and not": (to_and_fro("enable_attention_slicing", "disable_attention_slicing"), None),
    "no xformers": (to_and_fro("disable_xformers_memory_efficient_attention"), None),
    "stock": (lambda pipe: pipe.unet.set_attn_processor(AttnProcessor()), to_and_fro("disable_attention_slicing")),
    "fused": (
        lambda pipe: pipe.fuse_qkv_projections(vae=False),
        lambda pipe: pipe.unfuse_qkv_projections(vae=False),
    ),
    "fused and not": (
        lambda pipe: [pipe.fuse_qkv_projections(vae=False), pipe.unfuse_qkv_projections(vae=False)],
        None,
    ),
    "no ip adapter": (lambda pipe: pipe.unload_ip_adapter(), None),
    "freeu": (lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.3, 1.4), to_and_fro("disable_freeu")),
    "their lora": (lora, lambda pipe: pipe.unload_lora_weights()),
    "their lora and not": (lambda pipe: [lora(pipe), pipe.unload_lora_weights()], None),
    "offload": (
        lambda pipe: cpu_offload(pipe.unet, torch.device("cpu")),
        lambda pipe: remove_hook_from_submodules(pipe.unet),
    ),
}
FUSED = "fused"
"""Refused beside a LoRA, which adds to projections that fused ones are used instead of."""


@pytest.mark.parametrize(
    ("kind", "call"), [(kind, call) for kind in MAKERS for call in WORKS if (kind, call) != ("easyref", FUSED)]
)
def test_a_call_after_attaching_gives_the_picture_of_the_same_call_before_it(pipe, attached, kind, call):
    adapter, conditions, alone, plain = attached
    do, undo = WORKS[call]
    undo = undo or (lambda _: None)
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
    adapter.detach()
    assert np.array_equal(picture(pipe), without)
    undo(pipe)
    assert not any(isinstance(one, CrossAttention) for one in pipe.unet.attn_processors.values())
    assert call == "stock" or np.array_equal(picture(pipe), plain)


def test_beside_xformers_the_text_is_attended_to_by_our_processor(pipe, made):
    """xformers need a GPU: they are put where they do not run while the adapter acts."""
    adapter, conditions, alone, _ = made["ip_adapter"]
    adapter.attach(pipe)
    on_cross_attentions(pipe, XFormersAttnProcessor)
    np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-3)
    adapter.detach()
    assert {type(attn.processor) for attn in cross_attentions(pipe.unet).values()} == {XFormersAttnProcessor}


def test_between_two_runs_of_one_generation_processors_are_taken_in_or_refused(pipe, made):
    adapter, conditions, alone, _ = made["mip"]
    with adapter.attach(pipe).generation(conditions):
        picture(pipe)
        pipe.enable_attention_slicing("max")
        np.testing.assert_allclose(picture(pipe), alone, atol=1e-3)
        on_cross_attentions(pipe, Mine)
        with pytest.raises(Refused, match="has a Mine in place of the mip adapter's processor"):
            picture(pipe)
    on_cross_attentions(pipe, AttnProcessor2_0)
    with pytest.raises(Refused, match="another UNet"), adapter.generation(conditions):
        pipe.unet = copy.deepcopy(pipe.unet)
        picture(pipe)
    adapter.detach()


@pytest.mark.parametrize("kind", TOKENS)
def test_a_processor_that_computes_something_else_is_refused_and_its_remedy_works(pipe, attached, kind):
    adapter, conditions, alone, plain = attached
    on_cross_attentions(pipe, Mine)
    adapter.scale = 0.0
    given(pipe, adapter, conditions)
    adapter.scale = 1.0
    path = next(iter(cross_attentions(pipe.unet)))
    with pytest.raises(Refused, match=rf"{path} has a Mine .*set_attn_processor\(AttnProcessor2_0\(\)\)"):
        given(pipe, adapter, conditions)
    pipe.unet.set_attn_processor(AttnProcessor2_0())
    np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-4)
    on_cross_attentions(pipe, Mine)
    with pytest.raises(Refused):
        given(pipe, adapter, conditions)
    adapter.detach()
    assert {type(attn.processor) for attn in cross_attentions(pipe.unet).values()} == {Mine}
    assert np.array_equal(picture(pipe), plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())


def load_theirs(pipe):
    """diffusers' own IP-Adapter."""
    theirs = tiny.randomise(IPAdapter(ip_adapter(pipe).config), 9, 0.5)
    pipe.load_ip_adapter(
        nested(theirs), subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False
    )


@pytest.mark.parametrize("kind", TOKENS)
def test_another_ip_adapter_is_refused_and_unloading_it_is_the_remedy(pipe, attached, kind):
    adapter, conditions, alone, plain = attached
    load_theirs(pipe)
    with pytest.raises(Refused, match=r"has a IPAdapterAttnProcessor2_0 .*call pipe\.unload_ip_adapter\(\)"):
        given(pipe, adapter, conditions)
    pipe.unload_ip_adapter()
    np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-4)
    load_theirs(pipe)
    with pytest.raises(Refused):
        given(pipe, adapter, conditions)
    adapter.detach()
    pipe.unload_ip_adapter()
    assert np.array_equal(picture(pipe), plain)


def test_ezigen_acts_beside_another_ip_adapter_and_beside_any_processor(pipe, made):
    adapter, conditions, alone, plain = made["ezigen"]
    adapter.attach(pipe)
    on_cross_attentions(pipe, Mine)
    assert np.array_equal(given(pipe, adapter, conditions), alone)
    on_cross_attentions(pipe, AttnProcessor2_0)
    load_theirs(pipe)
    embeds = {"ip_adapter_image_embeds": [torch.randn(2, 1, 20, generator=torch.Generator().manual_seed(0))]}
    both, theirs = given(pipe, adapter, conditions, **embeds), picture(pipe, **embeds)
    assert min(np.abs(both - other).max() for other in (alone, theirs, plain)) > 1e-2
    adapter.detach()
    assert np.array_equal(picture(pipe, **embeds), theirs)


def test_fused_projections_beside_a_lora_are_refused_and_unfusing_them_is_the_remedy(pipe, made):
    adapter, conditions, alone, plain = made["easyref"]
    with adapter.attach(pipe).generation(conditions):
        picture(pipe)
        pipe.fuse_qkv_projections(vae=False)  # of the UNet's own weights: between two runs no sums are in their place
        with pytest.raises(Refused, match=r"has a FusedAttnProcessor2_0, which the LoRA .*unfuse_qkv_projections"):
            picture(pipe)
    fused = copy.deepcopy(pipe.unet)
    adapter.detach()
    np.testing.assert_allclose(picture(pipe), plain, atol=1e-3)
    with pytest.raises(Refused, match="FusedAttnProcessor2_0"):
        adapter.attach(pipe)
    pipe.unfuse_qkv_projections(vae=False)
    assert np.array_equal(picture(pipe), plain)
    assert np.array_equal(given(pipe, adapter.attach(pipe), conditions), alone)
    adapter.detach()
    assert (
        fused.mid_block.attentions[0]
        .transformer_blocks[0]
        .attn1.to_qkv.weight.equal(pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_qkv.weight)
    )


def test_the_lora_follows_projections_that_other_loras_leave_behind(pipe, made):
    """A LoRA that was there before attaching has layers in place of projections, which go away with it."""
    adapter, conditions, alone, plain = made["easyref"]
    lora(pipe)
    adapter.attach(pipe)
    assert np.abs(given(pipe, adapter, conditions) - alone).max() > 1e-2
    pipe.unload_lora_weights()
    np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-3)
    linear = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    linear._forward_hooks.clear()
    adapter.fuse_lora = False
    np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-3)
    adapter.fuse_lora = True
    adapter.detach()
    assert np.array_equal(picture(pipe), plain)
    assert not any(module._forward_hooks for module in pipe.unet.modules())


def test_their_lora_fused_between_two_runs_of_one_generation_is_in_the_weights_and_out_again(pipe, made):
    adapter, conditions, _, plain = made["easyref"]
    lora(pipe)
    with adapter.attach(pipe).generation(conditions):
        beside = picture(pipe)
        pipe.fuse_lora()
        fused = picture(pipe)
        pipe.unfuse_lora()
    pipe.unload_lora_weights()
    np.testing.assert_allclose(fused, beside, atol=1e-3)
    adapter.detach()
    np.testing.assert_allclose(picture(pipe), plain, atol=1e-3)


@pytest.mark.parametrize("loss", ["gone", "another", "emptied", "position_net", "patched"])
def test_without_its_place_in_the_blocks_ezigen_is_refused_and_its_remedy_works(pipe, made, loss):
    adapter, conditions, alone, plain = made["ezigen"]
    adapter.attach(pipe)
    block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    if loss == "gone":
        del block.fuser
    elif loss == "another":
        block.fuser = lambda states, objs: states
    elif loss == "emptied":
        block.fuser.slots = []
    elif loss == "position_net":
        del pipe.unet.position_net
    else:
        block.__class__ = Merging
    with pytest.raises(Refused, match="made a Merging" if loss == "patched" else r"fuser, by which|position_net, by"):
        given(pipe, adapter, conditions)
    adapter.detach()
    if loss == "another":
        del block.fuser
    block.__class__ = BasicTransformerBlock
    assert np.array_equal(picture(pipe), plain)
    assert not any(hasattr(module, "fuser") for module in pipe.unet.modules())
    assert np.array_equal(given(pipe, adapter.attach(pipe), conditions), alone)
    adapter.detach()


class Merging(BasicTransformerBlock):
    """As token merging makes blocks."""

    def forward(self, hidden_states, **_):
        return hidden_states


@pytest.mark.parametrize("kind", MAKERS)
def test_a_removed_hook_or_another_unet_is_refused(pipe, attached, kind):
    adapter, conditions, alone, _ = attached
    pipe.unet._forward_pre_hooks.clear()
    with pytest.raises(Refused, match=r"hook .* was taken off .*attach\(pipe\)"):
        given(pipe, adapter, conditions)
    adapter.detach()
    assert np.array_equal(given(pipe, adapter.attach(pipe), conditions), alone)
    own, pipe.unet = pipe.unet, copy.deepcopy(pipe.unet)
    with pytest.raises(Refused, match=r"another UNet .*detach\(\)"):
        given(pipe, adapter, conditions)
    pipe.unet = own


@pytest.mark.parametrize("kind", MAKERS)
def test_the_pipeline_that_runs_is_the_one_that_is_asked(pipe, attached, kind):
    """Two around one UNet, of which the adapter knows the one: it ran with other settings, or never."""
    adapter, conditions, _, plain = attached
    other = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    want = given(pipe, adapter, conditions, num_inference_steps=2)
    given(pipe, adapter, conditions, guidance_scale=1.0, num_inference_steps=3)
    assert np.array_equal(given(other, adapter, conditions, num_inference_steps=2), want)
    assert np.array_equal(picture(other), plain)
    with pytest.raises(Refused, match="on the same UNet through another pipeline"):
        adapter.attach(other)
    adapter.detach()
    adapter.attach(StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False))
    assert np.array_equal(given(pipe, adapter, conditions, num_inference_steps=2), want)


@pytest.mark.parametrize("kind", MAKERS)
def test_perturbed_attention_guidance_has_the_positive_half_twice(pipe, attached, kind):
    """With two pictures of a prompt the rows of three parts divide into two, too."""
    adapter, conditions, _, plain = attached
    pag = StableDiffusionPAGPipeline(**pipe.components, requires_safety_checker=False, pag_applied_layers="mid")
    pag.set_progress_bar_config(disable=True)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pair = {"latents": latents, "num_images_per_prompt": 2}
    unguided = given(pag, adapter, conditions, pag_scale=1e-12, **pair)
    np.testing.assert_allclose(unguided, given(pag, adapter, conditions, pag_scale=0.0, **pair), atol=1e-4)
    guided = given(pag, adapter, conditions, pag_scale=3.0, **pair)
    alone = given(pag, adapter, conditions, pag_scale=3.0, latents=latents[:1])
    np.testing.assert_allclose(guided[:1], alone, atol=1e-3)
    assert np.abs(guided - unguided).max() > 1e-3
    assert np.abs(guided - picture(pag, pag_scale=3.0, **pair)).max() > 1e-2
    with pytest.raises(Refused, match="pipeline without PAG can"), reference_guidance(pag, 2.0):
        pass
    assert np.array_equal(picture(pipe), plain)


def test_reference_guidance_finds_the_adapter_on_what_was_compiled(pipe, made):
    adapter, conditions, *_ = made["ip_adapter"]
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pair = {"latents": latents, "num_images_per_prompt": 2}
    with adapter.attach(pipe).generation(conditions), reference_guidance(pipe, 2.0):
        want = picture(pipe, **pair)
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    with torch.compiler.set_stance("force_eager"):
        with adapter.generation(conditions), reference_guidance(pipe, 2.0):
            got = picture(pipe, **pair)
    np.testing.assert_allclose(got, want, atol=1e-4)
    adapter.detach()


def test_a_pipeline_that_does_not_tell_its_halves_is_refused(pipe, made):
    class Silent(DiffusionPipeline):
        def __init__(self, unet):
            super().__init__()
            self.register_modules(unet=unet)

        def __call__(self, states):
            return self.unet(torch.zeros(2, 4, 16, 16), 1, states).sample

    adapter, conditions, *_ = made["ip_adapter"]
    silent, states = Silent(pipe.unet), torch.zeros(2, 77, 16)
    adapter.attach(pipe)
    with pytest.raises(Refused, match=r"Silent does not say .*halves="), adapter.generation(conditions):
        silent(states)
    with adapter.generation(conditions, halves=("negative", "positive")):
        silent(states)
    adapter.detach()


def test_the_pipeline_with_references_refuses_before_it_computes_anything(pipe, made):
    adapter = easyref_adapter(pipe)
    pipeline = ReferencePipeline(pipe, adapter).set_references(references(0))
    adapter.reader.register_forward_hook(lambda *_: pytest.fail("it read the references"))
    on_cross_attentions(pipe, Mine)
    with pytest.raises(Refused, match="has a Mine"):
        pipeline.generate("a dog", seed=1, num_inference_steps=1)
    pipeline.pipe = copy.copy(pipe)
    with pytest.raises(Refused, match="another pipeline"):
        pipeline.generate("a dog", seed=1, num_inference_steps=1)


def test_a_check_takes_microseconds_and_waits_for_no_device(pipe, made, monkeypatch):
    """Nothing is looked up in the UNet, and no tensor is read."""
    adapter, *_ = made["easyref"]
    adapter.attach(pipe)
    with monkeypatch.context() as patched:
        patched.setattr(type(pipe.unet), "named_children", lambda _: pytest.fail("it walks through the UNet"))
        patched.setattr(torch.Tensor, "__bool__", lambda _: pytest.fail("it reads a tensor"))
        patched.setattr(torch.Tensor, "item", lambda _: pytest.fail("it reads a tensor"))
        adapter.check_installed()
    adapter.detach()


def test_attached_before_the_unet_is_compiled_and_again_after_it_acts(pipe, made):
    adapter, conditions, alone, plain = made["ezigen"]
    adapter.attach(pipe)
    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    for _ in range(2):
        np.testing.assert_allclose(given(pipe, adapter, conditions), alone, atol=1e-4)
        adapter.detach()
        np.testing.assert_allclose(picture(pipe), plain, atol=1e-4)
        adapter.attach(pipe)
    torch._dynamo.reset()
