"""One forward pass of training: examples in, loss out. What is trained is a part of it, what is frozen is not."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from inference.adapters.calls import UNGUIDED
from training.data.draws import Purpose, noise, timesteps
from training.latents import captions_of, target_latents
from training.methods.method import Method
from training.objective import Diffusion
from training.views.example import Example


class TrainingStep(nn.Module):
    """A method's loss.

    Args:
        method: that is trained.
        adapter: on the pipeline.
        diffusion: the objective.
        seed: of the run.
    """

    def __init__(self, method: Method, adapter: Any, diffusion: Diffusion, seed: int) -> None:
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
        pipe: Any = self.adapter.pipe
        unet, device = pipe.unet, pipe.unet.device
        positions = [example.position for example in examples]

        def drawn(shape: Sequence[int], purpose: Purpose) -> Tensor:
            return torch.from_numpy(noise(self._seed, positions, shape, purpose)).to(device)

        latents = target_latents(pipe, examples, lambda shape: drawn(shape, Purpose.POSTERIOR))
        noises = drawn(latents.shape[1:], Purpose.NOISE)
        if offset := self._diffusion.objective.noise_offset:
            noises = noises + offset * drawn((latents.shape[1], 1, 1), Purpose.OFFSET)
        when = torch.from_numpy(timesteps(self._seed, positions, self._diffusion.timesteps))
        states, added = self._text(pipe, examples)
        conditioned.enter_context(
            self.adapter.generation(self._method.conditions(self.adapter, examples, self._seed), halves=UNGUIDED)
        )
        (predicted,) = unet(
            self._diffusion.noisy(latents, noises, when).to(unet.dtype),
            when.to(device),
            encoder_hidden_states=states.to(unet.dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return self._diffusion.loss(predicted, latents, noises, when)

    def _text(self, pipe: Any, examples: Sequence[Example]) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Text states, and what SDXL's UNet is told besides. A dropped text is the empty one."""
        texts = ["" if example.drops.text else example.caption for example in examples]
        states, pooled = captions_of(pipe, texts, examples)
        if pooled is None:
            return states, None
        sizes = torch.tensor([example.sizes.time_ids() for example in examples], dtype=pooled.dtype)
        return states, {"text_embeds": pooled, "time_ids": sizes.to(pooled.device)}
