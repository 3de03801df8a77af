"""Adapters beside what diffusers offers: ControlNet, img2img, inpainting, schedulers, compilation, training."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import attached, conditioned, ip_adapter, mip_adapter, ms_adapter, references
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    HeunDiscreteScheduler,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
)
from PIL import Image

from refloom.inference.adapters import windows

MAKERS = {"ip_adapter": ip_adapter, "mip": mip_adapter, "ms_diffusion": ms_adapter}


@pytest.fixture
def pipe():
    return tiny.sdxl_pipe()


def picture(seed=0) -> Image.Image:
    return Image.fromarray(tiny.picture(seed, 64, 64))


@pytest.mark.parametrize("kind", MAKERS)
def test_img2img_inpainting_and_controlnet_run_with_references_and_the_controlnet_sees_text_alone(pipe, kind):
    adapter = MAKERS[kind](pipe).attach(pipe)
    conditioning = adapter.encode(references(0, 1))
    torch.manual_seed(5)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16)).eval()
    tiny.randomise(controlnet.controlnet_mid_block, 1, 0.1)
    parts = {key: value for key, value in pipe.components.items() if key not in ("image_encoder", "feature_extractor")}
    mask = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
    others = {
        StableDiffusionXLImg2ImgPipeline(**parts): {"image": picture(), "strength": 0.6},
        StableDiffusionXLInpaintPipeline(**parts): {"image": picture(), "mask_image": mask, "strength": 0.9},
        StableDiffusionXLControlNetPipeline(**parts, controlnet=controlnet): {"image": picture()},
    }
    for other, options in others.items():
        other.set_progress_bar_config(disable=True)
        if isinstance(other, StableDiffusionXLImg2ImgPipeline):
            options = options | {"height": None, "width": None}
        seen = []
        hook = controlnet.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out[1].clone()))
        plain = run(other, options)
        with adapter.generation(conditioning, pipe=other):
            given = run(other, options)
        hook.remove()
        assert np.abs(plain - given).max() > 1e-3, type(other).__name__
        if isinstance(other, StableDiffusionXLControlNetPipeline):
            assert torch.equal(seen[0], seen[len(seen) // 2])
    adapter.detach()


def run(pipe, options):
    given = {key: value for key, value in ({"height": 64, "width": 64} | options).items() if value is not None}
    latents = pipe(
        "a dog and a cat",
        num_inference_steps=4,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        **given,
    ).images
    return latents.numpy()


@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
def test_any_scheduler_counts_its_own_steps(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    adapter = ip_adapter(pipe).attach(pipe)
    plain = tiny.generate(pipe, num_inference_steps=3)
    acted = conditioned(pipe, adapter, references(0), num_inference_steps=3)
    adapter.window = windows.StepWindow(pipe.num_timesteps)
    assert np.array_equal(conditioned(pipe, adapter, references(0), num_inference_steps=3), plain)
    adapter.window = windows.StepWindow(pipe.num_timesteps - 1)
    last = conditioned(pipe, adapter, references(0), num_inference_steps=3)
    assert len({array.tobytes() for array in (plain, acted, last)}) == 3


def test_one_compiled_block_computes_the_same(pipe):
    """What is quickly seen of compiling; the tests marked so compile all blocks, with each kind."""
    block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    with attached(ms_adapter(pipe), pipe) as adapter:
        wanted = conditioned(pipe, adapter, references(0, 1), num_inference_steps=1)
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        block.compile(backend="eager", fullgraph=True)
        got = conditioned(pipe, adapter, references(0, 1), num_inference_steps=1)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


@pytest.mark.compiled
@pytest.mark.parametrize("kind", MAKERS)
def test_compiled_blocks_have_one_graph_each_and_compute_the_same(pipe, kind):
    """The tiny UNet has blocks of two widths, each on one grid: more graphs would be recompilations."""
    adapter = MAKERS[kind](pipe).attach(pipe)
    wanted = conditioned(pipe, adapter, references(0, 1), num_inference_steps=3)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    pipe.unet.compile_repeated_blocks(backend="eager", fullgraph=True)
    got = conditioned(pipe, adapter, references(0, 1), num_inference_steps=3)
    conditioned(pipe, adapter, references(2, 3), num_inference_steps=3)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    adapter.detach()
    torch._dynamo.reset()


@pytest.mark.compiled
def test_the_compiled_unet_computes_the_same(pipe):
    adapter = ip_adapter(pipe)
    wanted = conditioned(pipe, adapter.attach(pipe), references(0))
    adapter.detach()
    pipe.unet = torch.compile(pipe.unet, backend="eager", fullgraph=True)
    got = conditioned(pipe, adapter.attach(pipe), references(0))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    adapter.detach()
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", MAKERS)
def test_gradients_reach_every_weight_and_checkpointing_changes_none(pipe, kind):
    adapter = MAKERS[kind](pipe).attach(pipe).train().requires_grad_(True)
    pipe.unet.train()
    given, seen = references(0, 1, boxes=((0.0, 0.0, 0.6, 1.0),)), []
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 4, 16, 24, generator=generator)
    text, pooled = torch.randn(2, 77, 32, generator=generator), torch.randn(2, 16, generator=generator)
    for checkpointed in (False, True):
        if checkpointed:
            pipe.unet.enable_gradient_checkpointing()
        adapter.zero_grad()
        with adapter.generation(adapter.encode(given), halves=("positive",)):
            added = {"text_embeds": pooled, "time_ids": torch.ones(2, 6)}
            out = pipe.unet(noise, torch.tensor([10, 500]), text, added_cond_kwargs=added, return_dict=False)[0]
            out.square().mean().backward()
        seen.append({name: parameter.grad for name, parameter in adapter.named_parameters()})
    lost = [name for name, gradient in seen[0].items() if gradient is None or not gradient.abs().sum()]
    # null latents and null tokens have no part in a positive half with places
    assert lost == (["image_proj.grounding_latents"] if kind == "ms_diffusion" else [])
    for name, gradient in seen[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradient, seen[1][name], msg=name)


def test_half_precision_pipelines_take_adapters_of_full_precision(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    wanted, plain = conditioned(pipe, adapter, references(0)), tiny.generate(pipe)
    pipe.to(torch.bfloat16)
    got, rounded = conditioned(pipe, adapter, references(0)), tiny.generate(pipe)
    rounding = np.abs(rounded - plain).mean()
    assert np.abs(got - wanted).mean() < 2 * rounding < np.abs(got - rounded).mean()
