"""The frozen models of a recipe at work: examples in, tensors by key out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from refloom.inference.adapters.ezigen.referenceunet import to_signed
from refloom.inference.adapters.ms_diffusion.adapter import pooled_texts
from refloom.inference.models.threads import one_thread
from refloom.training.data.sample import Pixels
from refloom.training.features.stored import BLANK, latents_key, phrase_key, picture_key, pooled_key, states_key
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.frozen import load_frozen
from refloom.training.run.latents import posterior_of, text_of
from refloom.training.views.example import Example

Row = dict[str, Any]


class Encoders:
    """All that a recipe keeps frozen, but the UNet.

    Args:
        recipe: that names the models.
        device: where they compute.
        batch: pictures or texts that go through a model at once.
    """

    def __init__(self, recipe: Recipe, device: torch.device, batch: int) -> None:
        self._recipe, self._method, self._batch = recipe, METHODS[recipe.method], batch
        # sums of several threads come out in another order, and bytes must not depend on the machine's cores
        self._threads = one_thread if device.type == "cpu" else nullcontext
        self._pipe, self._vision = load_frozen(recipe, device, without=("unet",))
        self._pools = getattr(self._pipe, "text_encoder_2", None) is not None
        with self._threads():
            self._blank = self._method.blank(recipe, self._vision) if self._method.reads_frozen else None

    def encode(self, examples: Sequence[Example], known: set[str]) -> tuple[list[Row], dict[str, Tensor]]:
        """Features of some examples, those of one sample.

        Args:
            examples: with their pixels.
            known: keys of tensors that are there already.

        Returns:
            A row of `examples` for each, without its place, and the new tensors by key.
        """
        with self._threads():
            return self._encode(examples, known)

    def _encode(self, examples: Sequence[Example], known: set[str]) -> tuple[list[Row], dict[str, Tensor]]:
        rows = [self._row(example) for example in examples]
        wanted = {key for row in rows for key in row["tensors"]} - known
        tensors: dict[str, Tensor] = {}

        targets = {latents_key(digest(one.target)): one.target for one in examples}
        for size in sorted({image.shape for image in targets.values()}):
            of_size = {key: image for key, image in targets.items() if key in wanted and image.shape == size}
            tensors |= self._in_batches(of_size, lambda images: posterior_of(self._pipe, to_signed(images)))

        pictures = {
            picture_key(digest(image)): image
            for example in examples
            for reference in example.references
            for image in reference.images
        }
        tensors |= self._in_batches(
            {key: image for key, image in pictures.items() if key in wanted},
            lambda images: self._method.features(self._recipe, self._pipe, self._vision, images),
        )
        if BLANK in wanted and self._blank is not None:
            tensors[BLANK] = self._blank[0].cpu()
        return rows, tensors | self._texts(examples, wanted)

    def _texts(self, examples: Sequence[Example], wanted: set[str]) -> dict[str, Tensor]:
        """States and pooled states of the texts, and pooled states of the phrases, that are wanted."""
        phrases = [reference.phrase or "" for example in examples for reference in example.references]
        texts = ["", *(example.caption for example in examples), *self._method.words(phrases)]
        due = [one for one in dict.fromkeys(texts) if wanted & {states_key(one), pooled_key(one)}]
        found: dict[str, Tensor] = {}
        for some in _cut(due, self._batch):
            states, pooled = text_of(self._pipe, some)
            found |= {states_key(text): tensor.cpu() for text, tensor in zip(some, states, strict=True)}
            if pooled is not None:
                found |= {pooled_key(text): tensor.cpu() for text, tensor in zip(some, pooled, strict=True)}
        if self._method.pools_phrases:
            named = [one for one in dict.fromkeys(phrases) if phrase_key(one) in wanted]
            for some in _cut(named, self._batch):
                pooled = pooled_texts(self._pipe, some)
                found |= {phrase_key(text): tensor.cpu() for text, tensor in zip(some, pooled, strict=True)}
        return {key: tensor for key, tensor in found.items() if key in wanted}

    def _in_batches(self, images: dict[str, Pixels], encode: Callable[[list[Pixels]], Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for keys in _cut(list(images), self._batch):
            found |= dict(zip(keys, encode([images[key] for key in keys]).cpu(), strict=True))
        return found

    def _row(self, example: Example) -> Row:
        """What `examples` says of a variant, but its place."""
        method, target = self._method, latents_key(digest(example.target))
        phrases = [reference.phrase for reference in example.references]
        references: list[Row] = [
            {
                "phrase": reference.phrase,
                "boxes": None if reference.boxes is None else [list(box) for box in reference.boxes],
                "scale": reference.scale,
                "pictures": [picture_key(digest(image)) for image in reference.images],
            }
            for reference in example.references
        ]
        keys = [target, states_key(example.caption), states_key("")]
        if self._pools:
            keys += [pooled_key(example.caption), pooled_key("")]
        if method.reads_frozen:
            keys += [states_key(text) for text in method.words(phrases)]
            keys += [key for one in references for key in one["pictures"]]
            keys += [phrase_key(phrase or "") for phrase in phrases] if method.pools_phrases else []
            keys += [BLANK] if self._blank is not None else []
        return {
            "caption": example.caption,
            "original_size": list(example.sizes.original_size),
            "crop_top_left": list(example.sizes.crop_top_left),
            "target_size": list(example.sizes.target_size),
            "references": references if method.reads_frozen else None,
            "target": target,
            "tensors": list(dict.fromkeys(keys)),
        }


def digest(image: Pixels) -> str:
    """Of a picture's size and pixels: equal pictures have one tensor."""
    head = f"{image.shape[0]}x{image.shape[1]}:".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()[:32]


def _cut(things: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(things), size):
        yield list(things[start : start + size])
