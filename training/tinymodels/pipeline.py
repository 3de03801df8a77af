"""Tiny diffusers pipelines: VAE, text encoders and UNet, trained together on pictures and captions."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.loading import load_base
from refloom.training.data.draws import Purpose
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.latents import latents_of, text_states
from refloom.training.run.objective import Diffusion
from refloom.training.run.step import denoising_losses, drawn_timesteps, draws, pixels_of, text_conditions
from refloom.training.tinymodels.base import Base
from refloom.training.tinymodels.newpipelines import pipeline
from refloom.training.views.example import Example

_PARTS = ("vae", "unet", "text_encoder", "text_encoder_2")
_SPREAD = 0.1
_TAUGHT = 4
"""One of so many pictures teaches the VAE, whose few weights need no more of them."""
_DEVIATION = 0.05
"""Of the posterior around its mean: small, but so that the decoder forgives errors of that size."""


class Parts(nn.Module):
    """The models of a pipeline as one module.

    Attributes:
        pipe: the pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.pipe = pipe
        for name in _PARTS:
            if getattr(pipe, name, None) is not None:
                self.add_module(name, getattr(pipe, name))

    def save_pretrained(self, folder: str | Path) -> None:
        """As diffusers saves pipelines."""
        self.pipe.save_pretrained(folder, safe_serialization=True)


class Pipeline(Base):
    """See `Trainable`."""

    kind = "pipeline"

    def new(self, recipe: Recipe) -> Parts:
        """See `Base.new`."""
        return Parts(pipeline(recipe.adapter, seed=recipe.seed))

    def load(self, folder: Path) -> Parts:
        """See `Base.load`."""
        return Parts(load_base(folder))

    def step(self, trained: Parts, recipe: Recipe) -> nn.Module:
        """See `Trainable.step`."""
        return PipelineStep(trained, Diffusion(trained.pipe.scheduler, recipe.objective), recipe.seed)


class PipelineStep(nn.Module):
    """Loss of a whole pipeline: that of its UNet, with text encoders, and that of its VAE. Neither sees the other's.

    Args:
        parts: of the pipeline.
        diffusion: the objective.
        seed: of the run.
    """

    def __init__(self, parts: Parts, diffusion: Diffusion, seed: int) -> None:
        super().__init__()
        self.parts = parts
        self._diffusion, self._seed = diffusion, seed

    def forward(self, examples: Sequence[Example], conditioned: ExitStack) -> Tensor:
        """The mean loss of a micro-batch; see `TrainingStep.forward`."""
        pipe: Any = self.parts.pipe
        device = pipe.unet.device
        drawn = draws(self._seed, examples, device)
        pixels = pixels_of(examples).to(device)
        taught = pixels[: -(-len(pixels) // _TAUGHT)]
        latents = latents_of(pipe, pixels, lambda shape: drawn(shape, Purpose.POSTERIOR))
        posterior = pipe.vae.encode(taught).latent_dist
        noise = drawn(posterior.mean.shape[1:], Purpose.POSTERIOR)[: len(taught)]
        copies = pipe.vae.decode(posterior.mean + posterior.std * noise, return_dict=False)[0]
        copying = functional.l1_loss(copies, taught)
        when = drawn_timesteps(self._diffusion, self._seed, examples)
        states, added = text_conditions(pipe, examples, lambda pipe, texts, _: text_states(pipe, texts))
        denoising = denoising_losses(pipe.unet, self._diffusion, latents, drawn, when, states, added).mean()
        return denoising + copying + _SPREAD * spread(posterior.mean, posterior.logvar)


def spread(mean: Tensor, logvar: Tensor) -> Tensor:
    """How far latents are from a mean of 0 and a variance of 1 of each channel, over the micro-batch.

    Unlike the divergence from a standard normal distribution it does not push pictures together, so a VAE of few
    weights keeps them apart, and needs no scaling factor.

    Args:
        mean, logvar: (B, C, h, w), of the posterior.

    Returns:
        A number.
    """
    means, deviations = mean.mean(dim=(0, 2, 3)), mean.std(dim=(0, 2, 3))
    noise = logvar / 2 - torch.log(torch.tensor(_DEVIATION))
    return (means.square() + (deviations - 1).square()).mean() + noise.square().mean()


TASK = Pipeline()
