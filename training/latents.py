"""What the base's frozen models make of pictures and words, with randomness that is given."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def latents_of(pipe: Any, pixels: Tensor, draws: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """One sample of the VAE's posterior for each picture, in fp32.

    Args:
        pipe: whose VAE it is.
        pixels: (B, 3, H, W) in -1..1.
        draws: gives standard normal numbers (B, *shape) for the shape of one picture's latents.

    Returns:
        (B, 4, H / 8, W / 8), scaled.
    """
    vae = pipe.vae
    with torch.autocast(vae.device.type, enabled=False):  # its activations do not fit into half precision
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        mean, deviation = posterior.mean.float(), posterior.std.float()
        sample = mean + deviation * draws(tuple(mean.shape[1:])).to(mean.device)
    return sample * vae.config.scaling_factor  # type: ignore[no-any-return]


@torch.no_grad()
def text_of(pipe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """`text_states` of frozen text encoders."""
    return text_states(pipe, texts)


def text_states(pipe: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Text states (B, S, context width) and, of SDXL's pipelines, pooled states (B, width).

    An empty text is encoded as such.
    """
    device = pipe.unet.device
    found = pipe.encode_prompt(
        prompt=list(texts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return found[0], found[2] if len(found) > 2 else None
