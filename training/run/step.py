"""One forward pass of training: examples in, loss out. What is trained is a part of it, what is frozen is not."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from refloom.inference.adapters.calls import UNGUIDED
from refloom.training.data.draws import Purpose, noise, timesteps
from refloom.training.run.latents import captions_of, target_latents
from refloom.training.run.objective import Diffusion
from refloom.training.views.example import Example, targets

if TYPE_CHECKING:
    from refloom.training.methods.method import Method

Drawn = Callable[[Sequence[int], Purpose], Tensor]
TextOf = Callable[[Any, Sequence[str], Sequence[Example]], tuple[Tensor, Tensor | None]]


class TrainingStep(nn.Module):
    """A method's loss.

    Args:
        method: that is trained.
        adapter: on the pipeline.
        diffusion: the objective.
        seed: of the run.
    """

    def __init__(self, method: "Method", adapter: Any, diffusion: Diffusion, seed: int) -> None:
        super().__init__()
        self.adapter = adapter
        self._method, self._diffusion, self._seed = method, diffusion, seed

    def forward(self, examples: Sequence[Example], conditioned: ExitStack) -> Tensor:
        """The mean loss of a micro-batch.

        Noise, timesteps and draws belong to the examples, so it does not matter how a batch is cut.

        Args:
            examples: of one size.
            conditioned: holds the conditions; close it after `backward`, which may compute activations again.
        """
        return self.losses(examples, drawn_timesteps(self._diffusion, self._seed, examples), conditioned).mean()

    def losses(self, examples: Sequence[Example], when: Tensor, conditioned: ExitStack) -> Tensor:
        """The loss of each example, (B,).

        Args:
            examples: B of one size.
            when: (B,) timesteps.
            conditioned: see `forward`.
        """
        return next(self.rounds(examples, [(when, examples)], conditioned))

    def rounds(
        self,
        examples: Sequence[Example],
        rounds: Iterable[tuple[Tensor, Sequence[Example]]],
        conditioned: ExitStack,
    ) -> Iterator[Tensor]:
        """The losses (B,) of examples, round after round, with other timesteps and noise; they are read once for all.

        Args:
            examples: B of one size.
            rounds: (B,) timesteps each, and the examples whose noise is taken.
            conditioned: see `forward`.
        """
        pipe: Any = self.adapter.pipe
        drawn = draws(self._seed, examples, pipe.unet.device)
        latents = target_latents(pipe, examples, lambda shape: drawn(shape, Purpose.POSTERIOR))
        states, added = text_conditions(pipe, examples, captions_of)
        conditioned.enter_context(
            self.adapter.generation(self._method.conditions(self.adapter, examples, self._seed), halves=UNGUIDED)
        )
        for when, owners in rounds:
            noise = draws(self._seed, owners, pipe.unet.device)
            yield denoising_losses(pipe.unet, self._diffusion, latents, noise, when, states, added)


def draws(seed: int, examples: Sequence[Example], device: torch.device) -> Drawn:
    """Gives standard normal numbers (B, *shape) of a purpose, which belong to the examples."""
    positions = [example.position for example in examples]
    return lambda shape, purpose: torch.from_numpy(noise(seed, positions, shape, purpose)).to(device)


def drawn_timesteps(diffusion: Diffusion, seed: int, examples: Sequence[Example]) -> Tensor:
    """(B,)."""
    return torch.from_numpy(timesteps(seed, [example.position for example in examples], *diffusion.timesteps))


def pixels_of(examples: Sequence[Example]) -> Tensor:
    """Targets, (B, 3, H, W) in -1..1."""
    return torch.from_numpy(targets(tuple(examples))).permute(0, 3, 1, 2).float() / 127.5 - 1


def text_conditions(pipe: Any, examples: Sequence[Example], text: TextOf) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Text states, and what SDXL's UNet is told besides. A dropped text is the empty one.

    Args:
        pipe: whose text encoders they are.
        examples: B.
        text: encodes texts, each of an example, with gradients or without; or takes what is stored.
    """
    texts = ["" if example.drops.text else example.caption for example in examples]
    states, pooled = text(pipe, texts, examples)
    if pooled is None:
        return states, None
    sizes = torch.tensor([example.sizes.time_ids() for example in examples], dtype=pooled.dtype)
    return states, {"text_embeds": pooled, "time_ids": sizes.to(pooled.device)}


def denoising_losses(
    unet: Any,
    diffusion: Diffusion,
    latents: Tensor,
    drawn: Drawn,
    when: Tensor,
    states: Tensor,
    added: dict[str, Tensor] | None,
) -> Tensor:
    """Loss of each prediction of the UNet, (B,).

    Args:
        unet: with whatever is on it.
        diffusion: the objective.
        latents: (B, C, h, w).
        drawn: gives noise.
        when: (B,) timesteps.
        states, added: of `text_conditions`.
    """
    noises = drawn(latents.shape[1:], Purpose.NOISE)
    if offset := diffusion.objective.noise_offset:
        noises = noises + offset * drawn((latents.shape[1], 1, 1), Purpose.OFFSET)
    (predicted,) = unet(
        diffusion.noisy(latents, noises, when).to(unet.dtype),
        when.to(latents.device),
        encoder_hidden_states=states.to(unet.dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )
    return diffusion.losses(predicted, latents, noises, when)
