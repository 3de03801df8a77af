"""What can be seen to be wrong before any weight is loaded: batch, data, base, encoder, names of what is trained."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.adapters import kinds
from inference.hub import fetch, locate
from inference.loading import load_unet_shapes
from schemas.errors import Refused
from training import optimizer
from training.data.index import Index
from training.features.identity import settings_of
from training.features.store import Store
from training.methods.known import METHODS
from training.methods.method import Method
from training.recipes.recipe import Recipe

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX")}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a run will be.

    Attributes:
        method: that is trained.
        accumulation: forward passes of each process in an optimiser step.
        trained: numbers that are trained.
        whole: numbers of the adapter.
    """

    method: Method
    accumulation: int
    trained: int
    whole: int


def look(recipe: Recipe, world: int) -> Outlook:
    """Check a recipe; data is checked by making the loader.

    Args:
        recipe: to train.
        world: processes.

    Raises:
        Refused: with the remedy.
    """
    accumulation = recipe.batch.accumulation(world)
    if not recipe.models.base:
        raise Refused("there is no base: set models.base to a folder of a diffusers pipeline, or an OWNER/NAME")
    if not recipe.data.sources:
        raise Refused("there is no dataset: set data.sources to a list such as [{url: DATASET}]")
    for tracker in recipe.trackers:
        packages = _PACKAGES.get(tracker, (tracker,))
        if not any(importlib.util.find_spec(package) for package in packages):
            raise Refused(f"the tracker {tracker} is not installed: pip install {packages[0]}, or set trackers=[]")
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        raise Refused("fp16 needs a GPU: set precision=bf16, or precision=no")
    optimizer.check(recipe.optimizer)
    method = METHODS[recipe.method]
    method.check(recipe)
    unet = load_unet_shapes(recipe.models.base)
    config = method.config(recipe, unet)
    _check_encoder(method, recipe)
    adapter = kinds.adapter_class(method.kind).on_meta(config)
    named = optimizer.tune(adapter, recipe.tuned)
    optimizer.groups(named, recipe.optimizer)
    sizes = [sum(one.numel() for one in many) for many in (named.values(), adapter.parameters())]
    return Outlook(method, accumulation, *sizes)


def features(recipe: Recipe) -> list[Store] | None:
    """What was computed before of each source; None if everything is to be computed.

    Raises:
        Refused: only some sources have features, or they are not finished, or of something else.
    """
    sources = recipe.data.sources
    lacking = [source.url for source in sources if source.features is None]
    if len(lacking) == len(sources):
        return None
    if lacking:
        raise Refused(
            f"{lacking[0]} has no features and other sources have: make them with `refloom cache {lacking[0]}`, or "
            "leave `features` out of all sources"
        )
    settings = settings_of(recipe)
    stores = [Store(str(source.features)) for source in sources]
    for store, source in zip(stores, sources, strict=True):
        store.check(settings, Index(source.url, source.split), recipe.data.variants)
    return stores


def _check_encoder(method: Method, recipe: Recipe) -> None:
    """Refuse an image encoder of another width than the adapter reads, by its config alone."""
    reads, name = method.reads_clip(recipe), recipe.models.image_encoder
    if reads is None or name is None:
        return
    found = _encoder_config(name)
    width = found.get("projection_dim" if reads == "pooled" else "hidden_size")
    if width != recipe.adapter.image_width:
        raise Refused(
            f"the image encoder {name} gives {reads} features of width {width}, the recipe wants "
            f"{recipe.adapter.image_width}: it is the wrong one, or set adapter.image_width={width}"
        )


def _encoder_config(name: str) -> dict[str, Any]:
    place = locate(name, "image encoder")
    file = Path(place.path if place.local else fetch(place.name, ["config.json"])) / "config.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{name} is no image encoder: {file} cannot be read ({error})") from error
    vision: dict[str, Any] = values.get("vision_config") or values
    return {"projection_dim": values.get("projection_dim"), "hidden_size": vision.get("hidden_size")}
