"""UNets of published bases in their true size, without storage: what the numbers of a paper are held to."""

import functools

import torch
from diffusers import UNet2DConditionModel


@functools.cache
def sdxl() -> UNet2DConditionModel:
    """That of SDXL base 1.0."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
        )


@functools.cache
def stable_diffusion_2() -> UNet2DConditionModel:
    """That of Stable Diffusion 2.1."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64, attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
        )
