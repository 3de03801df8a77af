"""What a frozen UNet sees in a picture: the states before self-attention in each of its transformer blocks (EZIGen).

The UNet is the pipeline's own, as it is without adapters, so nothing is loaded or held twice.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from refloom.inference.adapters.calls import bare
from refloom.inference.adapters.reference import Pixels
from refloom.schemas.errors import Refused

_WHITE = 255
_STRIP_PX = 256
_STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_ANCESTRAL = {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False, "variance_type": "fixed_small"}


def transformer_blocks(unet: Any) -> dict[str, Any]:
    """The UNet's transformer blocks by path in the order in which they run: down, middle, up.

    diffusers registers the middle block last, so that `named_modules` has another order.

    Raises:
        Refused: this is no UNet of Stable Diffusion 1 or 2.
    """
    unet = bare(unet)
    if not hasattr(unet, "down_blocks") or getattr(unet.config, "addition_embed_type", None) is not None:
        raise Refused(f"a {type(unet).__name__} of this shape is none of Stable Diffusion 1 or 2, which EZIGen needs")
    parts = [(f"down_blocks.{at}", block) for at, block in enumerate(unet.down_blocks)]
    parts.append(("mid_block", unet.mid_block))
    parts += [(f"up_blocks.{at}", block) for at, block in enumerate(unet.up_blocks)]
    found = {
        f"{part}.attentions.{at}.transformer_blocks.{layer}": block
        for part, module in parts
        for at, attention in enumerate(getattr(module, "attentions", None) or ())
        for layer, block in enumerate(attention.transformer_blocks)
    }
    other = [path for path, block in found.items() if block.norm_type != "layer_norm"]
    if other or not found:
        raise Refused(f"{other[0] if other else 'no block'} has a plain norm before self-attention, which EZIGen reads")
    return found


@torch.no_grad()
def features(unet: Any, latents: Tensor, timestep: int, text_states: Tensor) -> dict[str, Tensor]:
    """The normalised input of self-attention in each transformer block; the predicted noise is dropped (spec A.1.3).

    Args:
        unet: without an adapter that acts.
        latents: (B, 4, h, w), with the noise of `timestep`.
        timestep: of all latents.
        text_states: (B, S, context width).

    Returns:
        (B, T, C) by path, in the order in which the blocks run.
    """
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for path, block in transformer_blocks(unet).items():

            def keep(_: Any, __: Any, out: Tensor, path: str = path) -> None:
                seen[path] = out

            stack.callback(block.norm1.register_forward_hook(keep).remove)
        # compiled blocks do not look for new hooks
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        dtype = next(unet.parameters()).dtype
        unet(latents.to(dtype), timestep, encoder_hidden_states=text_states.to(dtype), return_dict=False)
    return seen


def subject_pixels(images: Sequence[Pixels], side: int, *, squash: bool = False) -> Tensor:
    """Pictures of subjects as the VAE wants them.

    Args:
        images: (H, W, 3) uint8 each.
        side: of the square that they become.
        squash: whatever their aspect, as the published code does; otherwise white is put at both ends of the short
            side, which is what the cut-outs in training have around them.

    Returns:
        (N, 3, side, side) fp32 in -1..1.
    """
    squares = [resized(image, (side, side)) if squash else _fitted(image, side) for image in images]
    return to_signed(squares)


def to_signed(images: Sequence[Pixels]) -> Tensor:
    """Pictures of one size, (H, W, 3) uint8 each, as (N, 3, H, W) fp32 in -1..1."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def resized(image: Pixels, size: tuple[int, int], how: Image.Resampling = Image.Resampling.BILINEAR) -> Pixels:
    """A picture of another height and width, whatever its aspect; the same array if it has that size already."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], how))


def _fitted(image: Pixels, side: int) -> Pixels:
    """A picture in the middle of a white square, resized to (side, side, 3).

    The square itself, gigabytes for a picture of 20000x1, is never there: its rows are narrowed a strip at a time, and
    then all columns are shortened, which are the two passes of Pillow's own.
    """
    height, width = image.shape[:2]
    longer = max(height, width)
    if height == width:
        return resized(image, (side, side))
    top, left = (longer - height) // 2, (longer - width) // 2
    narrow = np.full((longer, side, 3), _WHITE, np.uint8)
    for start in range(0, height, _STRIP_PX):
        rows = image[start : start + _STRIP_PX]
        strip = np.full((len(rows), longer, 3), _WHITE, np.uint8)
        strip[:, left : left + width] = rows
        narrow[top + start : top + start + len(rows)] = resized(strip, (len(rows), side))
    return resized(narrow, (side, side))


@torch.no_grad()
def vae_latents(pipe: Any, pixels: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """One sample of a pipeline's VAE: pictures (N, 3, H, W) in -1..1 give scaled latents (N, 4, H / 8, W / 8)."""
    # an offloaded VAE is brought where the pipeline computes, and its inputs must be there
    posterior = pipe.vae.encode(pixels.to(pipe._execution_device, pipe.vae.dtype)).latent_dist
    return posterior.sample(generator) * pipe.vae.config.scaling_factor  # type: ignore[no-any-return]


def ancestral(scheduler: Any = None) -> Any:
    """EZIGen's sampler for the noise schedule of a base: DDPM on evenly spaced steps 1, 21, ..., 981 (spec A.4.1).

    Args:
        scheduler: the base's, of any kind; None for Stable Diffusion's noise schedule.
    """
    if scheduler is None:
        return DDPMScheduler(**_STABLE_DIFFUSION, **_ANCESTRAL)  # type: ignore[no-untyped-call]
    return DDPMScheduler.from_config(scheduler.config, **_ANCESTRAL)  # type: ignore[no-untyped-call]
