"""What benchmarks of training share: samples, and an SDXL-shaped base of random weights, large enough to be timed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks import bases
from benchmarks.data import sample
from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.tinymodels.newtokenizers import clip_tokenizer

SIDE, BATCH = 256, 4
WIDTHS, _DEPTHS = (64, 128, 256), (1, 1, 2)
_TEXT = (768, 1280)
"""Widths of SDXL's two text encoders; their layers are fewer here."""
_VISION = 384


def recipe(models: Path, url: str, *more: str, kept: Path | None = None) -> Recipe:
    """IP-Adapter plus on these."""
    source = f"data.sources=[{{url: '{url}'" + (f", features: '{kept}'}}]" if kept else "}]")
    return book.load(
        "ip_adapter",
        [
            *(source, f"models.base={models / 'base'}", f"models.image_encoder={models / 'clip'}", "precision='no'"),
            *(
                f"data.side_px={SIDE}",
                f"batch.samples={BATCH}",
                f"batch.micro={BATCH}",
                "data.threads=0",
                "view.random_crop=true",
            ),
            *(f"adapter.image_width={_VISION}", "adapter.resampler_width=256", "adapter.resampler_heads=4", *more),
        ],
    )


def models(root: Path) -> Path:
    """A base and an image encoder with random weights; made once."""
    if (root / "clip" / "config.json").exists():
        return root
    torch.manual_seed(0)

    def texts(kind: Callable[[CLIPTextConfig], Any], width: int) -> Any:
        return kind(
            CLIPTextConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=2,
                num_attention_heads=width // 64,
                projection_dim=1280,
                bos_token_id=49406,
                eos_token_id=49407,
            )
        )

    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 64, 128, 128),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            scaling_factor=0.13025,
        ),
        text_encoder=texts(CLIPTextModel, _TEXT[0]),
        text_encoder_2=texts(CLIPTextModelWithProjection, _TEXT[1]),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer("!"),
        unet=bases.sdxl(WIDTHS, _DEPTHS),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    pipe.save_pretrained(root / "base")
    config = CLIPVisionConfig(
        hidden_size=_VISION,
        intermediate_size=4 * _VISION,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=224,
        patch_size=14,
        projection_dim=_VISION,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(root / "clip")
    return root


def samples(root: Path, rows: int) -> str:
    """Samples of one photograph each; made once."""
    if (root / "manifests/compose/u0.json").exists():
        return str(root)
    stock = []
    for path in sorted((sample(60, 4) / "coco/train2017").glob("*.jpg"))[:16]:
        pixels = pictures.decode(path.read_bytes())
        side = min(pixels.shape[:2])
        stock.append(pictures.encode_jpeg(cv2.resize(pixels[:side, :side], (512, 512)), 92))
    mask = masks.encode(np.ones((64, 64), np.uint8))
    seen = {"picture": 0, "object_id": "a", "box": [0.0, 0.0, 64.0, 64.0], "mask": mask}
    subject = {"subject_id": "a", "kind": "object", "phrase": "thing", "mentions": [], "appearances": [seen]}
    listed = [{"image_id": "a", "width": 512, "height": 512, "orientation": 1, "captions": ["a thing in a picture"]}]
    with UnitWriter(Dataset(str(root), create=True).folder, UnitKey("compose", "u0", "bench")) as writer:
        for number in range(rows):
            data = stock[number % len(stock)]
            row = {"sample_id": f"image/{number}", "kind": "image", "why": "timing", "pictures": listed}
            writer.expect("image")
            images = [{"bytes": data, "path": "a.jpg"}]
            writer.add("samples", row | {"subjects": [subject], "images": images}, weight=len(data), below="train")
            writer.keep("image")
    return str(root)
