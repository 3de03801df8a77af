"""Tiny diffusers pipelines with random weights, made without the network: SDXL- and SD-shaped, true CLIP tokenizers.

Real in kind, small in size: the same classes, processors and schedulers as the large ones, widths of 8 to 64.
"""

import functools

import numpy as np
import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Qwen2Tokenizer,
)

TEXT_WIDTH = 16
"""Of each text encoder; the SDXL-shaped context is twice as wide."""


@functools.cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's own, which open_clip ships."""
    simple = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return {names.get(token, token): at for token, at in simple.encoder.items()}, list(simple.bpe_ranks)


def tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's tokenizer; SDXL's second one pads with `!`."""
    vocab, merges = _vocabulary()
    return CLIPTokenizer(vocab=dict(vocab), merges=list(merges), pad_token=pad_token, model_max_length=77)


def text_config(projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=TEXT_WIDTH,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=64,
    )


def scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )


def sdxl_unet() -> UNet2DConditionModel:
    """Three levels of which the lower two attend, with 1 and 2 transformer layers; head width 8."""
    return UNet2DConditionModel(
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + TEXT_WIDTH,
        cross_attention_dim=2 * TEXT_WIDTH,
    )


def sd_unet() -> UNet2DConditionModel:
    """Two attending levels and a plain one, one transformer layer each."""
    return UNet2DConditionModel(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=TEXT_WIDTH,
    )


def sdxl_pipe(seed: int = 0) -> StableDiffusionXLPipeline:
    """SDXL-shaped; pictures of 64 px are latents of 32."""
    torch.manual_seed(seed)
    pipe = StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(TEXT_WIDTH)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(TEXT_WIDTH)),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer("!"),
        unet=sdxl_unet(),
        scheduler=scheduler(),
        add_watermarker=False,
    )
    return _ready(pipe)


def sd_pipe(seed: int = 0) -> StableDiffusionPipeline:
    """SD-shaped; pictures of 32 px are latents of 16."""
    torch.manual_seed(seed)
    pipe = StableDiffusionPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(TEXT_WIDTH)),
        tokenizer=tokenizer(),
        unet=sd_unet(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _ready(pipe)


def _ready(pipe):
    pipe.set_progress_bar_config(disable=True)
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipe


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


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen's, with bytes alone for words, and the special tokens that EasyRef reads."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    vocab = {token: at for at, token in enumerate([*sorted(ByteLevel.alphabet()), *special])}
    return Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=special[1:])


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
