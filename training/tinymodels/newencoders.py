"""A tiny CLIP and a tiny Qwen2-VL with new weights, in the layouts that adapters read."""

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from refloom.inference.adapters.easyref.qwen import QwenConfig
from refloom.training.recipes.sizes import ClipSizes, QwenSizes
from refloom.training.tinymodels.newtokenizers import clip_token_ids, qwen_vocabulary


def clip(sizes: ClipSizes, *, seed: int = 0) -> Any:
    """Pictures and texts in one space.

    Args:
        sizes: of both towers.
        seed: of the weights.
    """
    tower = {
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "projection_dim": sizes.projection,
    }
    vision = {**tower, "image_size": sizes.side_px, "patch_size": sizes.patch_px}
    text = {**tower, **clip_token_ids(sizes.words)}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=sizes.projection)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def qwen(config: QwenConfig, *, seed: int = 0) -> Any:
    """Qwen2-VL with all its layers.

    Args:
        config: its shapes.
        seed: of the weights.
    """
    whole = config.library()
    whole.text_config.num_hidden_layers = config.layers
    whole.text_config.layer_types = ["full_attention"] * config.layers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(**whole.to_dict()))


def qwen_config(sizes: QwenSizes) -> QwenConfig:
    """Shapes of a tiny Qwen2-VL that reads bytes."""
    return QwenConfig(
        vocabulary=qwen_vocabulary(),
        width=sizes.width,
        feed_forward=2 * sizes.width,
        layers=sizes.layers,
        heads=sizes.heads,
        key_heads=sizes.heads,
        vision_depth=sizes.vision_layers,
        vision_width=sizes.vision_width,
        vision_heads=sizes.heads,
        vision_expansion=2,
    )
