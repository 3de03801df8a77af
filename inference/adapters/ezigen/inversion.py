"""From a picture back to noise: DPM-Solver++ run the other way, with a text that says nothing (EZIGen, TF-ICON)."""

from contextlib import ExitStack
from typing import Any

import torch
from diffusers import DPMSolverMultistepInverseScheduler
from torch import Tensor

from refloom.schemas.errors import Refused

_EXCEPTIONAL_TOKEN = 7788
"""Repeated without positions; Lu et al. 2023 (TF-ICON) found it to invert real pictures best."""


def inverse_scheduler(scheduler: Any, steps: int) -> Any:
    """The sampler of the inversion, ready for `steps` steps from clean to pure noise.

    Args:
        scheduler: the base's, of any kind; its noise schedule is kept.
        steps: of the whole way; its timesteps are 0, 20, ..., 979 for 50.
    """
    inverse: Any = DPMSolverMultistepInverseScheduler.from_config(  # type: ignore[no-untyped-call]
        scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        timestep_spacing="linspace",
        use_karras_sigmas=False,
        lower_order_final=True,
    )
    inverse.set_timesteps(steps)
    return inverse


@torch.no_grad()
def exceptional_states(pipe: Any) -> Tensor:
    """Text states of one token repeated without positions: (1, 77, context width).

    Raises:
        Refused: the pipeline's text encoder is not CLIP's.
    """
    encoder = pipe.text_encoder
    positions = [module for name, module in encoder.named_modules() if name.endswith("position_embedding")]
    if len(positions) != 1:
        raise Refused(
            f"a {type(encoder).__name__} is not CLIP's text encoder, whose positions the inversion leaves out"
        )
    length = pipe.tokenizer.model_max_length
    tokens = torch.full((1, length), _EXCEPTIONAL_TOKEN, device=pipe._execution_device)
    with ExitStack() as stack:
        hook = positions[0].register_forward_hook(lambda _, __, out: torch.zeros_like(out))
        stack.callback(hook.remove)
        return encoder(tokens)[0]  # type: ignore[no-any-return]


@torch.no_grad()
def invert(pipe: Any, latents: Tensor, *, steps: int, stop: int) -> list[Tensor]:
    """The latents of pictures on their way to noise, without guidance and without an adapter (spec A.4.3).

    Args:
        pipe: of Stable Diffusion 1 or 2; nothing may act on its UNet.
        latents: (B, 4, h, w), scaled and clean.
        steps: of the whole way to pure noise.
        stop: how many of them are made.

    Returns:
        stop + 1 tensors, x_0 (which is `latents`) to x_stop. x_k is at the noise level of timestep k of
        `inverse_scheduler`.
    """
    inverse = inverse_scheduler(pipe.scheduler, steps)
    text_states = exceptional_states(pipe).expand(len(latents), -1, -1)
    trajectory = [latents]
    for timestep in inverse.timesteps[:stop].to(latents.device):
        noise = pipe.unet(trajectory[-1], timestep, encoder_hidden_states=text_states, return_dict=False)[0]
        trajectory.append(inverse.step(noise, timestep, trajectory[-1], return_dict=False)[0])
    return trajectory
