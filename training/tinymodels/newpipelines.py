"""Tiny diffusers pipelines with new weights: the classes, tokenizers and schedulers of SDXL and SD, small widths."""

from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from refloom.training.recipes.sizes import PipelineSizes
from refloom.training.tinymodels.newtokenizers import clip_token_ids, clip_tokenizer

_LIBRARY: Any = diffusers  # whose classes have no types
_LATENT_CHANNELS = 4
_TIME_WIDTH = 8
_TIME_IDS = 6


def pipeline(sizes: PipelineSizes, *, seed: int = 0) -> Any:
    """A pipeline with new weights.

    Args:
        sizes: of its models.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if sizes.family == "sd":
            return _LIBRARY.StableDiffusionPipeline(
                vae=vae(sizes),
                text_encoder=CLIPTextModel(text_config(sizes)),
                tokenizer=clip_tokenizer(words=sizes.words),
                unet=unet(sizes),
                scheduler=scheduler(sizes),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        return _LIBRARY.StableDiffusionXLPipeline(
            vae=vae(sizes),
            text_encoder=CLIPTextModel(text_config(sizes)),
            text_encoder_2=CLIPTextModelWithProjection(text_config(sizes)),
            tokenizer=clip_tokenizer(words=sizes.words),
            tokenizer_2=clip_tokenizer("!", sizes.words),
            unet=unet(sizes),
            scheduler=scheduler(sizes),
            add_watermarker=False,
        )


def text_config(sizes: PipelineSizes) -> CLIPTextConfig:
    """Of each text encoder."""
    return CLIPTextConfig(
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_feed_forward,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        projection_dim=sizes.text_width,
        **clip_token_ids(sizes.words),
    )


def vae(sizes: PipelineSizes) -> Any:
    """An autoencoder of as many levels as it has channels."""
    levels = len(sizes.vae_channels)
    return _LIBRARY.AutoencoderKL(
        block_out_channels=sizes.vae_channels,
        layers_per_block=sizes.vae_layers,
        norm_num_groups=sizes.groups,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=_LATENT_CHANNELS,
        sample_size=sizes.side_px,
        scaling_factor=sizes.scaling_factor,
    )


def scheduler(sizes: PipelineSizes) -> Any:
    """Stable Diffusion's noise schedule."""
    return _LIBRARY.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
        prediction_type=sizes.prediction,
    )


def unet(sizes: PipelineSizes) -> Any:
    """Three levels: of sdxl the lower two attend, with 1 and 2 transformer layers; of sd the upper two, with 1."""
    common: dict[str, Any] = {
        "block_out_channels": sizes.unet_channels,
        "layers_per_block": 1,
        "norm_num_groups": sizes.groups,
        "sample_size": sizes.latent_side,
        "in_channels": _LATENT_CHANNELS,
        "out_channels": _LATENT_CHANNELS,
        # diffusers calls the number of heads of each level so
        "attention_head_dim": tuple(max(1, width // sizes.head_channels) for width in sizes.unet_channels),
    }
    if sizes.family == "sd":
        return _LIBRARY.UNet2DConditionModel(
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=sizes.text_width,
            **common,
        )
    return _LIBRARY.UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=_TIME_IDS * _TIME_WIDTH + sizes.text_width,
        cross_attention_dim=2 * sizes.text_width,
        **common,
    )
