"""What is minimised, as pure functions of tensors."""

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.nn import functional

from refloom.inference.basefacts import check_schedule
from refloom.schemas.errors import Refused
from refloom.training.recipes.recipe import PREDICTIONS, Objective


class Diffusion:
    """The noise schedule of a base, and the loss of what its UNet predicts.

    Args:
        scheduler: the base's, of any kind; its config has the schedule.
        objective: what is asked.

    Attributes:
        timesteps: the lowest, and the one above the highest, that training draws.

    Raises:
        Refused: the base predicts something else than noise or velocity, or noise where there is nothing else; or it
        has fewer timesteps.
    """

    def __init__(self, scheduler: Any, objective: Objective) -> None:
        self.scheduler: Any = DDPMScheduler.from_config(scheduler.config)  # type: ignore[no-untyped-call]
        self.prediction = objective.prediction or str(self.scheduler.config.prediction_type)
        if self.prediction not in PREDICTIONS:
            raise Refused(
                f"the base predicts {self.prediction}, which is not trained: set objective.prediction to one of "
                f"{', '.join(PREDICTIONS)}, or take another base"
            )
        self.objective = objective
        count = int(self.scheduler.config.num_train_timesteps)
        self.timesteps = objective.timesteps or (0, count)
        if self.timesteps[1] > count:
            raise Refused(f"the base has {count} timesteps, so objective.timesteps ends at {count} at most")
        if self.timesteps[1] == count:
            check_schedule(self.scheduler.config, self.prediction)
        self._alphas: Tensor = self.scheduler.alphas_cumprod.double()

    def noisy(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents (B, C, h, w) with the noise of their timesteps (B,)."""
        signal, deviation = self._parts(timesteps, latents)
        return signal * latents + deviation * noise

    def losses(self, predicted: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Mean squared error of each prediction, weighted, in fp32.

        Args:
            predicted: (B, C, h, w), what the UNet says.
            latents: (B, C, h, w), without noise.
            noise: (B, C, h, w).
            timesteps: (B,).

        Returns:
            (B,).
        """
        wanted = noise
        if self.prediction == "v_prediction":
            signal, deviation = self._parts(timesteps, latents)
            wanted = signal * noise - deviation * latents
        each = functional.mse_loss(predicted.float(), wanted.float(), reduction="none").flatten(1).mean(dim=1)
        return each * self.weights(timesteps).to(each)

    def weights(self, timesteps: Tensor) -> Tensor:
        """Weight of each timestep, (B,); see `snr_weights`."""
        alphas = self._alphas[timesteps.cpu()]
        return snr_weights(alphas / (1 - alphas), self.objective.min_snr_gamma, self.prediction)

    def _parts(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self._alphas[timesteps.cpu()].reshape(-1, 1, 1, 1)
        return alphas.sqrt().to(like), (1 - alphas).sqrt().to(like)


def snr_weights(snr: Tensor, gamma: float | None, prediction: str) -> Tensor:
    """Min-SNR weighting (arXiv 2303.09556, section 3.4): min(SNR, gamma) of the picture's error.

    Args:
        snr: (B,), signal over noise, squared.
        gamma: None weighs all alike.
        prediction: epsilon, whose error is SNR times the picture's; or v_prediction, SNR + 1 times.

    Returns:
        (B,).
    """
    if gamma is None:
        return torch.ones_like(snr)
    return snr.clamp(max=gamma) / (snr + (1 if prediction == "v_prediction" else 0))
