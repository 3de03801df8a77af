"""What the base's frozen models make of pictures and words, with randomness that is given: computed, or as stored."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from refloom.training.features.stored import pooled_key, states_key
from refloom.training.views.example import Example, targets

Draws = Callable[[tuple[int, ...]], Tensor]
"""Gives standard normal numbers (B, *shape) for the shape of one picture's latents."""


def target_latents(pipe: Any, examples: Sequence[Example], draws: Draws) -> Tensor:
    """Latents of the targets of B examples, (B, C, h, w), scaled: computed, or sampled from what is stored."""
    if examples[0].stored is None:
        pixels = torch.from_numpy(targets(tuple(examples))).permute(0, 3, 1, 2)
        return latents_of(pipe, pixels.to(pipe.unet.device).float() / 127.5 - 1, draws)
    keys = [example.stored.target for example in examples if example.stored]
    return sampled(stored(examples, keys, torch.float32).to(pipe.unet.device), draws)


def captions_of(pipe: Any, texts: Sequence[str], owners: Sequence[Example]) -> tuple[Tensor, Tensor | None]:
    """Text states and pooled states, as of `text_of`: computed, or as stored with the example that each text is of."""
    if owners[0].stored is None:
        return text_of(pipe, texts)
    states, pooled = states_of(pipe, texts, owners), [pooled_key(text) for text in texts]
    if pooled[0] not in owners[0].stored.tensors:
        return states, None
    return states, stored(owners, pooled, pipe.unet.dtype).to(pipe.unet.device)


def states_of(pipe: Any, texts: Sequence[str], owners: Sequence[Example]) -> Tensor:
    """The text states of `captions_of` alone, of any texts."""
    if owners[0].stored is None:
        return text_of(pipe, texts)[0]
    return stored(owners, [states_key(text) for text in texts], pipe.unet.dtype).to(pipe.unet.device)


def stored(owners: Sequence[Example], keys: Sequence[str], dtype: torch.dtype) -> Tensor:
    """Tensors of one shape, each of the example that has it: (B, ...) in the type that models compute in."""
    # cast one by one: autocast refuses to stack a half of another kind than its own
    return torch.stack([one.stored.tensors[key].to(dtype) for one, key in zip(owners, keys, strict=True) if one.stored])


def stored_pictures(examples: Sequence[Example], dtype: torch.dtype) -> list[Tensor] | None:
    """Of each reference of all examples its pictures' features, (pictures, ...); None if pictures are to be read."""
    if examples[0].stored is None:
        return None
    return [
        stored([one] * len(pictures), pictures, dtype)
        for one in examples
        if one.stored is not None
        for pictures in one.stored.references
    ]


@torch.no_grad()
def posterior_of(pipe: Any, pixels: Tensor) -> Tensor:
    """The VAE's posterior of each picture in fp32, for `sampled`.

    Args:
        pipe: whose VAE it is.
        pixels: (B, 3, H, W) in -1..1.

    Returns:
        (B, 2, C, H / 8, W / 8): mean and log variance, scaled.
    """
    mean, deviation = _posterior(pipe, pixels)
    scale = pipe.vae.config.scaling_factor
    return torch.stack([mean * scale, 2 * (deviation * scale).log()], dim=1)


def sampled(posterior: Tensor, draws: Draws) -> Tensor:
    """One sample of each of B posteriors (B, 2, C, h, w), in fp32: (B, C, h, w)."""
    mean, log_variance = posterior.float().unbind(dim=1)
    return mean + (log_variance / 2).exp() * draws(tuple(mean.shape[1:])).to(mean.device)


@torch.no_grad()
def latents_of(pipe: Any, pixels: Tensor, draws: Draws) -> Tensor:
    """One sample of the VAE's posterior for each picture, in fp32.

    Args:
        pipe: whose VAE it is.
        pixels: (B, 3, H, W) in -1..1.
        draws: see there.

    Returns:
        (B, 4, H / 8, W / 8), scaled.
    """
    mean, deviation = _posterior(pipe, pixels)
    sample = mean + deviation * draws(tuple(mean.shape[1:])).to(mean.device)
    return sample * pipe.vae.config.scaling_factor  # type: ignore[no-any-return]


def _posterior(pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    vae = pipe.vae
    with torch.autocast(vae.device.type, enabled=False):  # its activations do not fit into half precision
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        return posterior.mean.float(), posterior.std.float()


@torch.no_grad()
def text_of(pipe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """`text_states` of frozen text encoders."""
    return text_states(pipe, texts)


def text_states(pipe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Text states (B, S, context width) and, of SDXL's pipelines, pooled states (B, width).

    An empty text is encoded as such.
    """
    device = pipe.text_encoder.device
    found = pipe.encode_prompt(
        prompt=list(texts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return found[0], found[2] if len(found) > 2 else None
