"""Tiny diffusers pipelines with random weights, made without the network: SDXL- and SD-shaped, true CLIP tokenizers.

Real in kind, small in size: the same classes, processors and schedulers as the large ones, widths of 8 to 64.
"""

import copy
import functools

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from refloom.training.recipes.sizes import PipelineSizes
from refloom.training.tinymodels import newpipelines as pipelines
from refloom.training.tinymodels.newtokenizers import clip_tokenizer as tokenizer
from refloom.training.tinymodels.newtokenizers import qwen_tokenizer

__all__ = ["qwen_tokenizer", "tokenizer"]

TEXT_WIDTH = 16
"""Of each text encoder; the SDXL-shaped context is twice as wide."""

_COMMON = {"text_width": TEXT_WIDTH, "text_feed_forward": 24, "vae_channels": (8, 8), "scaling_factor": 0.18215}
SDXL = PipelineSizes(family="sdxl", unet_channels=(8, 16, 32), head_channels=8, **_COMMON)
SD = PipelineSizes(family="sd", unet_channels=(8, 16, 16), head_channels=8, side_px=32, **_COMMON)


def text_config(projection: int) -> CLIPTextConfig:
    config = pipelines.text_config(SDXL)
    config.projection_dim = projection
    return config


def vae() -> AutoencoderKL:
    return pipelines.vae(SDXL)


def scheduler() -> EulerDiscreteScheduler:
    return pipelines.scheduler(SDXL)


def sdxl_unet() -> UNet2DConditionModel:
    """Three levels of which the lower two attend, with 1 and 2 transformer layers; head width 8."""
    return pipelines.unet(SDXL)


def sd_unet() -> UNet2DConditionModel:
    """Two attending levels and a plain one, one transformer layer each."""
    return pipelines.unet(SD)


def sdxl_pipe(seed: int = 0):
    """SDXL-shaped; pictures of 64 px are latents of 32."""
    return _again(_first(SDXL, seed), add_watermarker=False)


def sd_pipe(seed: int = 0):
    """SD-shaped; pictures of 32 px are latents of 16."""
    return _again(_first(SD, seed), requires_safety_checker=False)


@functools.cache
def _first(sizes: PipelineSizes, seed: int):
    """Built once, since reading CLIP's vocabulary takes longer than most tests."""
    pipe = pipelines.pipeline(sizes, seed=seed)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipe


def _again(pipe, **options):
    """A pipeline with models and a scheduler of its own; tokenizers, which nothing changes, are shared."""
    shared = {name: part for name, part in pipe.components.items() if name.startswith("tokenizer")}
    own = {name: copy.deepcopy(part) for name, part in pipe.components.items() if name not in shared}
    made = type(pipe)(**shared, **own, **options)
    made.set_progress_bar_config(disable=True)
    return made


def image_encoder(hidden: int = 24, projection: int = 20, seed: int = 1) -> CLIPVisionModelWithProjection:
    """28 px pictures in patches of 14: 5 tokens."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        projection_dim=projection,
    )
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False)


def picture(seed: int = 0, height: int = 40, width: int = 56) -> np.ndarray:
    """(height, width, 3) uint8 noise, smooth enough to survive a resize."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def generate(pipe, prompt="a photo of a dog and a cat", **options) -> np.ndarray:
    """One short run with fixed noise, as an array; latents unless asked otherwise."""
    given = {
        "height": 64,
        "width": 64,
        "num_inference_steps": 2,
        "guidance_scale": 5.0,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(7),
    }
    out = pipe(prompt, **(given | options)).images
    return out.float().numpy() if isinstance(out, torch.Tensor) else np.asarray(out)


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 0.2) -> torch.nn.Module:
    """Weights large enough to matter, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module
