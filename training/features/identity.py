"""What features follow from: view, sizes, models. Features of something else are refused."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refloom.inference.checkpoints.hub import ALIASES, fetch, locate
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json
from refloom.training.features.tables import VERSION
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Models, Recipe
from refloom.training.views.view import View

_TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_WORDS = ("*.json", "*.txt", "*.model")
_LENGTH = 16
"""Characters of a revision: enough to tell models apart, few enough to be read."""


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """All that the features of a recipe follow from, besides the samples and the number of variants; json.

    Not the seed, batches, dropout, learning rates: runs that differ in those share features.

    Raises:
        Refused: a model is not there.
    """
    method = METHODS[recipe.method]
    return {
        "version": VERSION,
        "method": {"kind": method.kind, **method.feature_settings(recipe)},
        "transform": {**transform_of(recipe.view), "buckets": [list(size) for size in recipe.data.buckets]},
        "precision": recipe.precision,
        "models": revisions(recipe.models, image_encoder=method.reads_clip(recipe) is not None),
    }


def transform_of(view: View) -> dict[str, Any]:
    """Settings of a view that decide its pictures and words: all but the shares of drops, which are drawn apart."""
    return {key: value for key, value in view.settings().items() if key != "dropout"}


def revisions(models: Models, *, image_encoder: bool) -> dict[str, str]:
    """Hashes of the files of the frozen models, so that a model of the same name and other weights is another one.

    Args:
        models: of the recipe.
        image_encoder: whether it is used.

    Raises:
        Refused: one is not there.
    """
    base = {"variant": models.variant}
    found = {"text": _hash(_files(models.base, _TEXT, **base), models.base)}
    if models.vae is None:
        found["vae"] = _hash(_files(models.base, ("vae",), **base), models.base)
    else:
        found["vae"] = _hash(_files(models.vae, ("",)), models.vae)
    if image_encoder and models.image_encoder is not None:
        found["image_encoder"] = _hash(_files(models.image_encoder, ("",)), models.image_encoder)
    return found


def _files(name: str, parts: tuple[str, ...], variant: str | None = None) -> Iterator[tuple[str, Path]]:
    """Config, vocabulary and weights of parts of a model, with their places in it; weights as diffusers picks them."""
    place = locate(name, "model")
    plain, special = _weights(""), _weights(f".{variant}") if variant else ()
    patterns = (*_WORDS, *plain, *special)
    asked = [f"{part}/{pattern}" if part else pattern for part in parts for pattern in patterns]
    root = place.path if place.local else fetch(ALIASES.get(place.name, place.name), asked)
    for part in parts:
        folder = root / part
        weights = [file for pattern in special for file in folder.glob(pattern)]
        weights = weights or [file for pattern in plain for file in folder.glob(pattern)]
        words = [file for pattern in _WORDS for file in folder.glob(pattern)]
        for file in sorted({*words, *weights}):
            yield file.relative_to(root).as_posix(), file


def _weights(variant: str) -> tuple[str, ...]:
    stems = ("model", "diffusion_pytorch_model")
    return tuple(f"{stem}{variant}{part}.safetensors" for stem in stems for part in ("", "-*-of-*"))


def _hash(files: Iterator[tuple[str, Path]], name: str) -> str:
    listed = []
    for path, file in files:
        with file.open("rb") as stream:
            listed.append([path, hashlib.file_digest(stream, "sha256").hexdigest()])
    if not any(path.endswith(".safetensors") for path, _ in listed):
        raise Refused(f"{name} has no weights in safetensors: save it with save_pretrained(safe_serialization=True)")
    return of_json(listed)[:_LENGTH]
