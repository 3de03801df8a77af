"""EZIGen: subjects as features of the frozen UNet (spec A.2)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from refloom.inference.adapters.ezigen import adapter as ezigen
from refloom.inference.adapters.ezigen.adapter import EZIGenConditioning, EZIGenConfig, subject_text
from refloom.inference.adapters.ezigen.referenceunet import subject_pixels
from refloom.inference.adapters.reference import Pixels
from refloom.training.data.draws import Purpose, generator, noise
from refloom.training.methods.method import Method
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.latents import latents_of, posterior_of, sampled, states_of, stored_pictures
from refloom.training.views.example import Example


class EZIGen(Method):
    """See `Method`. With `faithful`, dropped subjects are zeros, and the noise of subjects is fresh, as published."""

    kind = "ezigen"
    # to go on until the picture stands still takes an encoder that training lacks
    generation: ClassVar[Mapping[str, Any]] = {"iterations": 1}

    def config(self, recipe: Recipe, unet: Any) -> EZIGenConfig:
        """See `Method.config`."""
        return EZIGenConfig(**ezigen.config_values(unet), resolution=recipe.adapter.resolution)

    def initialise(self, adapter: ezigen.EZIGen, recipe: Recipe, pipe: Any) -> None:
        """See `Method.initialise`."""
        adapter.start_from_self_attention(pipe.unet)

    def feature_settings(self, recipe: Recipe) -> dict[str, Any]:
        """See `Method.feature_settings`."""
        return {"resolution": recipe.adapter.resolution, "faithful": recipe.adapter.faithful}

    def features(self, recipe: Recipe, pipe: Any, vision: Any, images: Sequence[Pixels]) -> Tensor:
        """See `Method.features`: posteriors of the subjects' squares. What the UNet makes of them is not kept."""
        sizes = recipe.adapter
        return posterior_of(pipe, subject_pixels(images, sizes.resolution, squash=sizes.faithful))

    def words(self, phrases: Sequence[str | None]) -> list[str]:
        """See `Method.words`."""
        return [subject_text(phrase) for phrase in phrases]

    def prepare(self, adapter: ezigen.EZIGen, recipe: Recipe) -> None:
        """See `Method.prepare`."""
        super().prepare(adapter, recipe)
        adapter.faithful = recipe.adapter.faithful

    def conditions(self, adapter: ezigen.EZIGen, examples: Sequence[Example], seed: int) -> EZIGenConditioning:
        """See `Method.conditions`.

        The noise of the subjects is the same in every step. With `faithful` each example has its own, fresh in every
        step and one for all its subjects, as published (spec A.1.3-3).
        """
        pipe = adapter.pipe
        counts = [len(example.references) for example in examples]
        owners = [example for example in examples for _ in example.references]
        texts = self.words([one.phrase for example in examples for one in example.references])

        def draws(shape: tuple[int, ...]) -> Tensor:
            return _draws(examples, shape, seed)

        kept = stored_pictures(examples, torch.float32)
        if kept is None:
            images = [one.images[0] for example in examples for one in example.references]
            latents = latents_of(
                pipe, subject_pixels(images, adapter.config.resolution, squash=adapter.faithful), draws
            )
        else:
            latents = sampled(torch.cat(kept).to(pipe.unet.device), draws)
        laid = [_laid(values, counts) for values in (latents, states_of(pipe, texts, owners))]
        strengths = _laid(torch.ones(sum(counts)), counts)
        fresh = _fresh(examples, latents.shape[1:], seed) if adapter.faithful else None
        fixed = torch.Generator().manual_seed(0)
        conditions = adapter.condition(*laid, strengths=strengths, generator=fixed, noise=fresh)
        return adapter.without_subjects(conditions, torch.tensor([example.drops.image for example in examples]))


def _draws(examples: Sequence[Example], shape: Sequence[int], seed: int) -> Tensor:
    """Of the VAE's posterior, for each picture of each example: part 0 is the target's."""
    drawn = [
        generator(seed, example.position, Purpose.POSTERIOR, part=1 + at).standard_normal(shape, np.float32)
        for example in examples
        for at in range(len(example.references))
    ]
    return torch.from_numpy(np.stack(drawn))


def _fresh(examples: Sequence[Example], shape: Sequence[int], seed: int) -> Tensor:
    """Noise for the subjects of each example, (B, *shape)."""
    return torch.from_numpy(noise(seed, [example.position for example in examples], shape, Purpose.SUBJECT_NOISE))


def _laid(values: Tensor, counts: Sequence[int]) -> Tensor:
    """(sum of counts, ...) as (examples, largest count, ...), with zeros behind the shorter ones."""
    out = values.new_zeros(len(counts), max(counts), *values.shape[1:])
    for row, part in zip(out, torch.split(values, list(counts)), strict=True):
        row[: len(part)] = part
    return out


METHOD = EZIGen()
