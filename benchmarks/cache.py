"""A training step with features that were kept against one that computes them, in one run; and their size on disk."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
from open_clip import SimpleTokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks import bases
from benchmarks.data import folder, sample
from benchmarks.table import Result, paired
from ingest.engine import Pool
from schemas import masks, pictures
from schemas.dataset import Dataset
from schemas.unit import UnitKey, UnitWriter
from training import optimizer
from training.data.loader import Loader
from training.features import cache as features
from training.frozen import ENCODERS, load_frozen
from training.methods.known import METHODS
from training.objective import Diffusion
from training.preflight import features as known_features
from training.recipes import book
from training.recipes.recipe import Recipe
from training.step import TrainingStep

_SIDE, _BATCH, _VARIANTS = 256, 4, 2
_WIDTHS, _DEPTHS = (64, 128, 256), (1, 1, 2)
_TEXT = (768, 1280)
"""Widths of SDXL's two text encoders; their layers are fewer here."""
_VISION = 384
_ASKED = 1.2


def run(quick: bool) -> Result:
    """CPU time of a step with and without, their ratio, and bytes a sample."""
    rows, rounds = (16, 2) if quick else (64, 8)
    root = folder() / "cache"
    models, samples, kept = (
        _models(root / "models"),
        _samples(root / f"samples-{rows}", rows),
        root / f"features-{rows}",
    )
    summary, counts = features.cache(
        _recipe(models, samples), samples, str(kept), features.Options(variants=_VARIANTS), Pool(workers=0)
    )
    with ExitStack() as stack:
        plain = stack.enter_context(_steps(_recipe(models, samples, f"data.variants={_VARIANTS}")))
        cached = stack.enter_context(_steps(_recipe(models, samples, kept=kept)))
        without, with_, ratio = paired(plain, cached, rounds)
    size = sum(summary.units.values()) / counts.kept
    table = [
        ["computed in every step", f"{without:.2f}", f"{1 / without:.2f}", ""],
        ["kept", f"{with_:.2f}", f"{1 / with_:.2f}", f"{size / 2**10:.0f}"],
    ]
    return Result(
        "Feature cache: IP-Adapter plus on an SDXL-shaped base",
        ("features", "CPU s a step", "steps a CPU second", "KiB a sample on disk"),
        table,
        f"Batches of {_BATCH} at {_SIDE} px, fp32, one thread for models, forward, backward and optimiser, loading "
        f"included; CPU seconds, medians of {rounds} rounds in turn. UNet of widths {_WIDTHS}, text states of SDXL's "
        f"widths, a VAE and an image encoder of a few layers, random weights: what a real base gains depends on its "
        f"UNet and its encoders. {_VARIANTS} variants of {counts.kept} samples of one picture and one "
        "caption, the same for all: texts are kept once a row group.",
        [(f"{ratio:.2f} times the steps, asked {_ASKED}", ratio >= _ASKED)],
    )


@contextmanager
def _steps(recipe: Recipe) -> Any:
    """One optimiser step of a recipe, as the loop does it, as a function."""
    stores = known_features(recipe)
    method, device = METHODS[recipe.method], torch.device("cpu")
    with Loader(recipe.data.sources, recipe.view, recipe.loading, stores=stores) as loader:
        pipe, vision = load_frozen(recipe, device, without=ENCODERS if stores else ())
        adapter: Any = method.make(recipe, pipe)
        adapter.image_encoder = vision
        adamw = optimizer.build(optimizer.tune(adapter, recipe.tuned), recipe.optimizer)
        loss_of = TrainingStep(method, adapter, Diffusion(pipe.scheduler, recipe.objective), recipe.seed)

        def step() -> None:
            with ExitStack() as conditioned:
                loss_of(next(loader).examples, conditioned).backward()
            adamw.step()
            adamw.zero_grad()

        yield step
        adapter.detach()


def _recipe(models: Path, samples: str, *more: str, kept: Path | None = None) -> Recipe:
    source = f"data.sources=[{{url: '{samples}'" + (f", features: '{kept}'}}]" if kept else "}]")
    return book.load(
        "ip_adapter",
        [
            *(source, f"models.base={models / 'base'}", f"models.image_encoder={models / 'clip'}", "precision='no'"),
            *(f"data.side_px={_SIDE}", f"batch.samples={_BATCH}", "data.threads=0", "view.random_crop=true"),
            *(f"adapter.image_width={_VISION}", "adapter.resampler_width=256", "adapter.resampler_heads=4", *more),
        ],
    )


def _models(root: Path) -> Path:
    """A base and an image encoder with random weights; made once."""
    if (root / "clip" / "config.json").exists():
        return root
    torch.manual_seed(0)
    simple = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): at for token, at in simple.encoder.items()}

    def tokenizer() -> Any:
        return CLIPTokenizer(vocab=dict(vocabulary), merges=list(simple.bpe_ranks), model_max_length=77)

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
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=bases.sdxl(_WIDTHS, _DEPTHS),
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


def _samples(root: Path, rows: int) -> str:
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
