"""Adapters beside token merging, VAE tiling and slicing, and offloading, in text-to-image, img2img and ControlNet."""

import copy

import merging
import numpy as np
import pytest
import tinypipes as tiny
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from accelerate.hooks import remove_hook_from_module
from adapting import easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter, references
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from refloom.inference.adapters.attention import cross_attentions
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
PLACED = {"boxes": ((0.0, 0.0, 0.6, 1.0),)}


class Mine(AttnProcessor2_0):
    """A processor that computes nobody knows what."""


@pytest.fixture(scope="module")
def base():
    return tiny.sd_pipe()


@pytest.fixture(scope="module")
def made(base):
    """Of each kind an adapter that is on no pipeline, and conditions of references with a place."""
    out = {}
    for kind, maker in MAKERS.items():
        adapter = maker(base).attach(base)
        out[kind] = adapter, adapter.encode(references(0, 1, **PLACED))
        adapter.detach()
    return out


@pytest.fixture
def pipe(base):
    """The same with a UNet and a VAE of its own."""
    parts = base.components | {name: copy.deepcopy(getattr(base, name)) for name in ("unet", "vae")}
    made = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(autouse=True)
def detached(made):
    yield
    for adapter, _ in made.values():
        adapter.detach()


def source() -> Image.Image:
    return Image.fromarray(tiny.picture(3, 32, 32))


def text_to_image(pipe):
    return pipe, {"height": 32, "width": 32}


def image_to_image(pipe):
    made = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    return made, {"image": source(), "strength": 0.9}


def with_controlnet(pipe):
    torch.manual_seed(5)
    net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16)).eval()
    tiny.randomise(net.controlnet_mid_block, 1, 0.1)
    made = StableDiffusionControlNetPipeline(**pipe.components, controlnet=net, requires_safety_checker=False)
    return made, {"image": source(), "height": 32, "width": 32}


PIPELINES = {"text": text_to_image, "image": image_to_image, "control": with_controlnet}


def picture(pipe, options, **more) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "latent"} | options | more
    out = pipe("a dog and a cat", generator=torch.Generator().manual_seed(7), **given).images
    return out.float().numpy() if isinstance(out, torch.Tensor) else np.asarray(out)


def given(adapter, conditions, pipe, options, **more) -> np.ndarray:
    with adapter.generation(conditions, pipe=pipe):
        return picture(pipe, options, **more)


# -- token merging -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "across"),
    [(kind, across) for kind in TOKENS for across in (False, True) if (kind, across) != ("ms_diffusion", True)],
)
def test_beside_token_merging_references_act_in_any_order_of_attaching(pipe, made, kind, across):
    adapter, conditions = made[kind]
    run, options = text_to_image(pipe)
    plain = picture(run, options)
    alone = given(adapter.attach(pipe), conditions, run, options)
    merging.apply_patch(pipe, merge_crossattn=across)
    after = given(adapter, conditions, run, options)
    adapter.detach()
    merged = picture(run, options)
    before = given(adapter.attach(pipe), conditions, run, options)
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert min(np.abs(after - other).max() for other in (plain, merged, alone)) > 1e-3
    merging.remove_patch(pipe)
    np.testing.assert_allclose(given(adapter, conditions, run, options), alone, atol=1e-4)
    adapter.detach()
    assert np.array_equal(picture(run, options), plain)


@pytest.mark.parametrize("pairs", [1, 2])
def test_where_merged_tokens_have_lost_their_places_layouts_are_refused(pipe, made, pairs):
    """Merging two times leaves as many tokens as the next level of the UNet has: they are not taken for its own."""
    adapter, conditions = made["ms_diffusion"]
    adapter.attach(pipe)
    run, options = text_to_image(pipe)
    alone = given(adapter, conditions, run, options)
    merging.apply_patch(pipe, merge_crossattn=True, pairs=pairs)
    with pytest.raises(Refused, match=r"lost their places: .*merge_crossattn=False"):
        given(adapter, conditions, run, options)
    merging.apply_patch(pipe, pairs=pairs)
    assert np.abs(given(adapter, conditions, run, options) - alone).max() > 1e-3
    merging.remove_patch(pipe)
    np.testing.assert_allclose(given(adapter, conditions, run, options), alone, atol=1e-5)


@pytest.mark.parametrize("across", [False, True])
def test_token_merging_displaces_ezigen_and_taking_it_off_is_the_remedy(pipe, made, across):
    adapter, conditions = made["ezigen"]
    run, options = text_to_image(pipe)
    alone = given(adapter.attach(pipe), conditions, run, options)
    merging.apply_patch(pipe, merge_crossattn=across)
    with pytest.raises(Refused, match="made a Merging"):
        given(adapter, conditions, run, options)
    adapter.detach()
    with pytest.raises(Refused, match="made a Merging"):
        given(adapter.attach(pipe), conditions, run, options)
    adapter.detach()
    merging.remove_patch(pipe)
    np.testing.assert_allclose(given(adapter.attach(pipe), conditions, run, options), alone, atol=1e-5)


# -- the VAE -------------------------------------------------------------------------------------------------------


def small_tiles(pipe):
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 16, 8


@pytest.mark.parametrize("kind", MAKERS)
def test_vae_slicing_changes_nothing_and_tiling_what_it_changes_without_references(pipe, base, kind):
    adapter = MAKERS[kind](base)
    with ReferencePipeline(pipe, adapter) as pipeline:
        pipeline.set_references(references(0, 1))
        options = {"seed": 1, "num_inference_steps": 2, "height": 32, "width": 32, "num_images_per_prompt": 2}

        def pictures():
            return np.stack([np.asarray(one, int) for one in pipeline.generate("a dog and a cat", **options).images])

        alone = pictures()
        pipe.vae.enable_slicing()
        assert np.abs(pictures() - alone).max() <= 1
        pipe.vae.disable_slicing()
        small_tiles(pipe)
        tiled = pictures()
        assert tiled.shape == alone.shape
        pipeline.set_references(references(0, 1))  # EZIGen reads pictures with the VAE
        assert pictures().shape == alone.shape
        pipe.vae.disable_tiling()
        assert np.abs(alone - tiled).mean() < 128
        pipeline.set_references(references(0, 1))
        assert np.abs(pictures() - alone).max() <= 1


@pytest.mark.parametrize("how", ["tiling", "slicing"])
def test_ezigen_edits_beside_vae_tiling_and_slicing(pipe, base, how):
    with ReferencePipeline(pipe, ezigen_adapter(base)) as pipeline:
        pipeline.set_references(references(0))
        mask = np.zeros((32, 32), bool)
        mask[8:24, 8:24] = True
        options = {"seed": 1, "num_inference_steps": 2, "height": 32, "width": 32}
        small_tiles(pipe) if how == "tiling" else pipe.vae.enable_slicing()
        made = pipeline.edit(source(), mask, "a dog", **options).images[0]
        assert made.size == (32, 32)


# -- pipelines and offloading --------------------------------------------------------------------------------------


def sequential(pipe):
    """As `enable_sequential_cpu_offload`, which wants a GPU: every leaf's weights come and go."""
    for name in ("text_encoder", "unet", "vae", "controlnet"):
        if getattr(pipe, name, None) is not None:
            cpu_offload(getattr(pipe, name), torch.device("cpu"))


def by_model(pipe):
    """As `enable_model_cpu_offload`: one model after another."""
    hook = None
    for name in ("text_encoder", "unet", "vae"):
        _, hook = cpu_offload_with_hook(getattr(pipe, name), torch.device("cpu"), prev_module_hook=hook)


OFFLOADS = {"none": lambda pipe: None, "model": by_model, "sequential": sequential}


@pytest.fixture
def whole_again(base):
    """Models that pipelines of this module share are left as they were found."""
    yield
    for module in (base.text_encoder, base.unet, base.vae):
        remove_hook_from_module(module, recurse=True)


@pytest.mark.parametrize(
    ("pipeline", "offload"),
    [("text", "sequential"), ("image", "model"), ("control", "sequential"), ("control", "none")],
)
@pytest.mark.parametrize("kind", MAKERS)
def test_in_every_pipeline_references_act_are_checked_and_go_also_when_it_is_offloaded(
    pipe, made, whole_again, kind, pipeline, offload
):
    adapter, conditions = made[kind]
    run, options = PIPELINES[pipeline](pipe)
    plain = picture(run, options)
    alone = given(adapter.attach(pipe), conditions, run, options)
    assert np.abs(alone - plain).max() > 1e-3
    OFFLOADS[offload](run)
    np.testing.assert_allclose(given(adapter, conditions, run, options), alone, atol=1e-3)

    if kind == "ezigen":
        block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
        fuser = block.fuser
        del block.fuser
        words = "fuser"
    else:
        processors = {path: attn.processor for path, attn in cross_attentions(pipe.unet).items()}
        for attn in cross_attentions(pipe.unet).values():
            attn.set_processor(Mine())
        words = f"has a Mine in place of the {kind} adapter's processor"
    with pytest.raises(Refused, match=words):
        given(adapter, conditions, run, options)
    if kind == "ezigen":
        block.fuser = fuser
    else:
        for path, attn in cross_attentions(pipe.unet).items():
            attn.set_processor(processors[path])
    np.testing.assert_allclose(given(adapter, conditions, run, options), alone, atol=1e-3)
    adapter.detach()
    np.testing.assert_allclose(picture(run, options), plain, atol=1e-3)
    again = given(adapter.attach(pipe), conditions, run, options)
    np.testing.assert_allclose(again, alone, atol=1e-3)
    adapter.detach()


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("kind", TOKENS)
def test_merging_slicing_and_offloading_together(pipe, made, whole_again, kind, pipeline):
    adapter, conditions = made[kind]
    run, options = PIPELINES[pipeline](pipe)
    pipe.enable_attention_slicing("max")
    merging.apply_patch(pipe)
    wanted = given(adapter.attach(pipe), conditions, run, options)
    adapter.detach()
    sequential(run)
    pipe.vae.enable_slicing()
    np.testing.assert_allclose(given(adapter.attach(pipe), conditions, run, options), wanted, atol=1e-3)
    adapter.detach()
