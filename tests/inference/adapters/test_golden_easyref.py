"""EasyRef against what the published code computed; `golden/easyref.md` tells how its tensors were made."""

import pytest
import tinypipes as tiny
import torch
from adapting import TINY_QWEN
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from places import GOLDEN
from safetensors.torch import load_file

from refloom.inference.adapters.easyref.checkpoint import read_easyref
from refloom.inference.adapters.reference import Reference

PROMPT = "a dog beside a red lantern"
EMBEDS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@pytest.fixture(scope="module")
def cases() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "easyref_cases.safetensors")


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
        cross_attention_dim=16,
    )
    tensors = load_file(GOLDEN / "easyref.safetensors")
    frozen = {key.removeprefix("unet."): tensor.float() for key, tensor in tensors.items() if key.startswith("unet.")}
    unet.load_state_dict({key: tensor for key, tensor in frozen.items() if ".processor." not in key})
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts = {**tiny.sdxl_pipe().components, "unet": unet.eval().requires_grad_(False), "scheduler": scheduler}
    pipe = StableDiffusionXLPipeline(**parts | {"text_encoder": None, "text_encoder_2": None}, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def adapter(pipe):
    made = read_easyref(GOLDEN / "easyref.safetensors", pipe.unet, qwen=TINY_QWEN, side=56, dtype=torch.float32)
    made.requires_grad_(False).tokenizer = tiny.qwen_tokenizer()
    yield made.attach(pipe)
    made.detach()


def pictures(cases) -> Reference:
    return Reference(tuple(cases[f"image.{at}"].numpy() for at in range(3)))


def run(pipe, adapter, cases) -> torch.Tensor:
    with adapter.generation(adapter.encode([pictures(cases)], prompt=PROMPT)):
        return pipe(
            **{name: cases[name] for name in EMBEDS},
            latents=cases["latents"].clone(),
            num_inference_steps=3,
            guidance_scale=5.0,
            height=32,
            width=24,
            output_type="latent",
        ).images


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_reference_tokens(adapter, cases):
    conditions = adapter.encode([pictures(cases)], prompt=PROMPT)
    close(conditions.tokens[0], cases["tokens.3"])
    close(conditions.negative_tokens[0], cases["tokens.null"])
    close(adapter.encode([Reference((cases["image.1"].numpy(),))]).tokens[0], cases["tokens.1"])
    spread = [(cases["tokens.3"] - cases[name]).abs().max() for name in ("tokens.1", "tokens.null")]
    assert min(spread) > 0.01


def test_published_weights_are_causal(adapter, cases):
    """Spec A1.3: the published code asks for bidirectional attention and does not get it."""
    adapter.reader.attention = "bidirectional"
    other = adapter.encode([pictures(cases)], prompt=PROMPT).tokens[0]
    assert (other - cases["tokens.3"]).abs().max() > 1e-3


@pytest.mark.parametrize("fuse", [True, False])
def test_every_attention_and_the_unet(pipe, adapter, cases, fuse):
    adapter.fuse_lora, ours = fuse, {}

    def keep(name):
        def hook(_, __, out):
            ours.setdefault(name, (out[0] if name == "noise" else out).clone())

        return hook

    names = [name for name in cases if name.startswith("attention.")]
    modules = {name: pipe.unet.get_submodule(name.removeprefix("attention.")) for name in names}
    hooks = [module.register_forward_hook(keep(name)) for name, module in (modules | {"noise": pipe.unet}).items()]
    run(pipe, adapter, cases)
    for hook in hooks:
        hook.remove()
    assert len(names) == 8
    for name in (*names, "noise"):
        close(ours[name], cases[name])


@pytest.mark.parametrize("scale", [1.0, 0.6, 0.0])
def test_a_short_run(pipe, adapter, cases, scale):
    """The published scale leaves the LoRA as it is."""
    adapter.scale, adapter.faithful = scale, True
    close(run(pipe, adapter, cases), cases[f"run.lora.{scale}"])
    adapter.faithful = False
    other = (run(pipe, adapter, cases) - cases[f"run.lora.{scale}"]).abs().max()
    assert other < 1e-4 if scale == 1 else other > 1e-2


def test_a_short_run_without_the_lora(pipe, adapter, cases):
    """As the published code runs by default, whatever the weights (spec A6-10)."""
    adapter.lora_scale = 0.0
    close(run(pipe, adapter, cases), cases["run.bare.1.0"])
    assert (cases["run.bare.1.0"] - cases["run.lora.1.0"]).abs().max() > 1e-2
