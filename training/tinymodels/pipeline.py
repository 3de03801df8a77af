"""Tiny diffusers pipelines: VAE, text encoders and UNet, trained together on pictures and captions."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.loading import load_base
from refloom.schemas.errors import Refused
from refloom.training.data.draws import Purpose
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.frozen import load_vae
from refloom.training.run.latents import latents_of, posterior_of, sampled, text_states
from refloom.training.run.objective import Diffusion
from refloom.training.run.step import Drawn, denoising_losses, drawn_timesteps, draws, pixels_of, text_conditions
from refloom.training.tinymodels.base import Base, sizes
from refloom.training.tinymodels.newpipelines import pipeline
from refloom.training.views.example import Example

_PARTS = ("vae", "unet", "text_encoder", "text_encoder_2")
_SPREAD = 0.1
_TAUGHT = 4
"""One of so many pictures teaches the VAE, whose few weights need no more of them."""
_KEPT_BYTES = 512 << 20
"""Of posteriors: a hundred thousand of 64 px."""
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
    takes = ("vae",)

    def check(self, recipe: Recipe) -> None:
        """See `Trainable.check`."""
        super().check(recipe)
        is_trained = any(name.split(".")[0] == "vae" for name in recipe.tuned)
        if not (is_trained or recipe.models.vae or recipe.models.start):
            raise Refused("the VAE is not trained, and is none yet: set models.vae to RUN/adapter/vae of base/toys/vae")

    def new(self, recipe: Recipe) -> Parts:
        """See `Base.new`. A VAE that was trained before takes the place of the new one."""
        made = pipeline(recipe.adapter, seed=recipe.seed)
        if recipe.models.vae is not None:
            made.register_modules(vae=_vae(recipe.models.vae, made.vae))
        return Parts(made)

    def load(self, folder: Path) -> Parts:
        """See `Base.load`."""
        return Parts(load_base(folder))

    def step(self, trained: Parts, recipe: Recipe) -> nn.Module:
        """See `Trainable.step`."""
        return PipelineStep(trained, Diffusion(trained.pipe.scheduler, recipe.objective), recipe.seed)


class PipelineStep(nn.Module):
    """Loss of a whole pipeline: that of its UNet, with text encoders, and that of its VAE, as far as they are trained.

    Neither sees the other's. A VAE that is not trained reads each picture once; see `Posteriors`.

    Args:
        parts: of the pipeline; what is trained of them is known.
        diffusion: the objective.
        seed: of the run.
    """

    def __init__(self, parts: Parts, diffusion: Diffusion, seed: int) -> None:
        super().__init__()
        self.parts = parts
        self._diffusion, self._seed = diffusion, seed
        self._is_vae_trained, self._is_unet_trained = _is_trained(parts.pipe.vae), _is_trained(parts.pipe.unet)
        self._posteriors = Posteriors(parts.pipe)

    def forward(self, examples: Sequence[Example], conditioned: ExitStack) -> Tensor:
        """The mean loss of a micro-batch; see `TrainingStep.forward`."""
        drawn = draws(self._seed, examples, self.parts.pipe.unet.device)
        if not self._is_vae_trained:
            return self._denoising(examples, drawn)
        copying = self._copying(examples, drawn)
        return self._denoising(examples, drawn) + copying if self._is_unet_trained else copying

    def _denoising(self, examples: Sequence[Example], drawn: Drawn) -> Tensor:
        pipe: Any = self.parts.pipe
        if self._is_vae_trained:
            latents = latents_of(pipe, pixels_of(examples), lambda shape: drawn(shape, Purpose.POSTERIOR))
        else:
            latents = sampled(self._posteriors(examples), lambda shape: drawn(shape, Purpose.POSTERIOR))
        when = drawn_timesteps(self._diffusion, self._seed, examples)
        states, added = text_conditions(pipe, examples, lambda pipe, texts, _: text_states(pipe, texts))
        return denoising_losses(pipe.unet, self._diffusion, latents, drawn, when, states, added).mean()

    def _copying(self, examples: Sequence[Example], drawn: Drawn) -> Tensor:
        """How far the VAE's copies are off, and its latents from what they should be spread like."""
        vae: Any = self.parts.pipe.vae
        share = _TAUGHT if self._is_unet_trained else 1
        taught = pixels_of(examples[: -(-len(examples) // share)]).to(vae.device)
        posterior = vae.encode(taught).latent_dist
        noise = drawn(posterior.mean.shape[1:], Purpose.POSTERIOR)[: len(taught)]
        copies = vae.decode(posterior.mean + posterior.std * noise, return_dict=False)[0]
        return functional.l1_loss(copies, taught) + _SPREAD * spread(posterior.mean, posterior.logvar)


class Posteriors:
    """What a VAE that is not trained makes of pictures: made once for each, and kept in half precision.

    Args:
        pipe: whose VAE it is.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._room = pipe, _KEPT_BYTES
        self._kept: dict[bytes, Tensor] = {}

    def __call__(self, examples: Sequence[Example]) -> Tensor:
        """The posteriors of B targets, as of `posterior_of`, whichever of them were seen before."""
        keys = [hashlib.blake2b(example.target.tobytes(), digest_size=16).digest() for example in examples]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: example for key, example in zip(keys, examples, strict=True) if key not in found}
        if new:
            made = posterior_of(self._pipe, pixels_of(list(new.values()))).half()
            for key, one in zip(new, made, strict=True):
                found[key] = one
                if (size := one.numel() * one.element_size()) <= self._room:
                    self._room -= size
                    self._kept[key] = one.clone()
        return torch.stack([found[key] for key in keys])


def _is_trained(model: nn.Module) -> bool:
    return any(one.requires_grad for one in model.parameters())


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


def _vae(place: str, like: Any) -> Any:
    """The VAE of a folder that a run or diffusers wrote.

    Raises:
        Refused: there is none, or it is of other sizes.
    """
    found = load_vae(place)
    if sizes(found) != sizes(like):
        raise Refused(f"the VAE of {place} is of other sizes than the recipe's: set adapter.vae_channels to them")
    return found


TASK = Pipeline()
