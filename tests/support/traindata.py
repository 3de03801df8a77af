"""What tests of training share: samples that every view accepts, tiny models in folders, and recipes for them."""

import json
from pathlib import Path
from typing import Any

import tinypipes as tiny
from adapting import TINY_QWEN
from loading import write_samples
from PIL import Image
from scenes import directed, scene
from transformers import CLIPTokenizer

from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.tinymodels import newencoders as encoders
from refloom.training.tinymodels import newtokenizers as tokenizers

PAIRS = {"mip/sdxl": 20, "mip/sdxl_plus": 24, "ip_adapter": 24, "ms_diffusion": 24}
"""Recipes that read references with CLIP, and the width that they read."""

CUP = "cup.png"

RECIPES = (
    "easyref/1-alignment",
    "easyref/2-single",
    "easyref/3-multi",
    "ezigen",
    "ip_adapter",
    "mip/sdxl",
    "mip/sdxl_plus",
    "ms_diffusion",
)


def video(number: int) -> tuple[Any, list[bytes]]:
    """A sample of three frames with a cup and a dog, elsewhere for every number."""
    move = 3 * (number % 7)
    frames = tuple(
        {
            "cup": (20 + step + move, 60 + step, 100 + step + move, 160 + step),
            "dog": (150 + step - move, 50 + step, 260 + step - move, 150 + step),
        }
        for step in (0, 20, 40)
    )
    sample = scene("video", frames)
    return sample.row | {"sample_id": f"video/test-{number}/0"}, [bytes(data) for data in sample._images]


def write_videos(root: Path, units: int = 2, rows: int = 6, held_out: int = 0) -> str:
    return write_samples(root, units + held_out, rows, video, held_out=held_out)


def cross(number: int) -> tuple[Any, list[bytes]]:
    """A cross sample: a cup and a dog on the second picture, and each on one of its own."""
    move = 3 * (number % 7)
    cup, dog = (20 + move, 60, 100 + move, 160), (150 - move, 50, 260 - move, 150)
    parts = [{"cup": (40 + move, 40, 140 + move, 180)}, {"cup": cup, "dog": dog}, {"dog": (60 + move, 60, 180, 190)}]
    sample = directed(scene("cross", parts), 1, ("the dog and the cup in a photo", (2, 0)))
    listed = [one | {"image_id": f"{one['image_id']}/{number}"} for one in sample.row["pictures"]]
    told = {"sample_id": f"cross/test/1/{number}", "pictures": listed}
    return sample.row | told, [bytes(data) for data in sample._images]


WORDS = ("a", "an", "and", "are", "car", "cup", "dog", "in", "is", "of", "on", "photo", "picture", "the", "there")
"""What samples and prompts of these tests say."""


def short_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's, which knows few words by their own numbers and reads others in letters.

    All of the vocabulary takes half a second to read from a file, which a training step of a tiny model does not.
    """
    vocab, merges = tokenizers.known_words(WORDS)
    pairs: list[Any] = list(merges)
    return CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=pad_token, model_max_length=77)


def write_models(root: Path) -> None:
    """Tiny models of every kind that recipes name, and a picture for prompts of a validation."""
    sdxl, sd = tiny.sdxl_pipe(), tiny.sd_pipe()
    sdxl.tokenizer, sdxl.tokenizer_2, sd.tokenizer = short_tokenizer(), short_tokenizer("!"), short_tokenizer()
    sdxl.save_pretrained(root / "sdxl")
    sd.save_pretrained(root / "sd")
    tiny.image_encoder().save_pretrained(root / "clip")
    model = encoders.qwen(TINY_QWEN)
    tiny.randomise(model, 4, 0.3).save_pretrained(root / "qwen")
    tiny.qwen_tokenizer().save_pretrained(root / "qwen")
    Image.fromarray(tiny.picture(5, 48, 48)).save(root / CUP)


def sources(*urls: str, features: Path | str | None = None) -> str:
    """The setting that names datasets, and the features of the samples of each."""
    more = {"features": str(features)} if features else {}
    return f"data.sources={json.dumps([{'url': url, **more} for url in urls])}"


def settings(name: str, models: Path, url: str, *more: str) -> list[str]:
    """What a debug recipe needs to be told here."""
    set_ = [sources(url), f"models.base={models / ('sd' if name == 'ezigen' else 'sdxl')}"]
    if name in PAIRS:
        set_.append(f"models.image_encoder={models / 'clip'}")
    if name.startswith("easyref"):
        set_.append(f"models.language_model={models / 'qwen'}")
    return [*set_, *more]


def recipe(name: str, models: Path, url: str, *more: str) -> Recipe:
    """A debug recipe with tiny models."""
    return book.load(f"debug/{name}", settings(name, models, url, *more))
