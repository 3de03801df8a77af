"""What a base's configs say that decides which requests can be, and the refusals that follow. No weight is read."""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Whole, check

_ENCODERS = ("text_encoder", "text_encoder_2")
_NEAREST = 8
"""Pixels of a latent where a base does not say."""


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """Of one base.

    Attributes:
        pipeline: class of diffusers.
        factor: pixels of a latent, of which sides are multiples.
        text_layers: of its shallowest text encoder; None without one.
        scheduler: its config.
    """

    pipeline: type
    factor: int
    text_layers: int | None
    scheduler: Mapping[str, Any]

    @classmethod
    def of(cls, pipe: Any) -> Self:
        """Of a pipeline that is loaded."""
        encoders = [getattr(pipe, name, None) for name in _ENCODERS]
        layers = [int(one.config.num_hidden_layers) for one in encoders if one is not None]
        scheduler = getattr(pipe, "scheduler", None)
        return cls(
            type(pipe),
            int(getattr(pipe, "vae_scale_factor", _NEAREST)),
            min(layers, default=None),
            {} if scheduler is None else dict(scheduler.config),
        )

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Of a base that lies in a folder; None where its configs are not as diffusers writes them.

        Whoever loads it then says what is wrong with it.
        """
        import diffusers

        index = _json(folder / "model_index.json")
        pipeline = getattr(diffusers, str(index.get("_class_name")), None)
        if not isinstance(pipeline, type):
            return None
        layers = [_json(folder / name / "config.json").get("num_hidden_layers") for name in _ENCODERS]
        return cls(
            pipeline,
            vae_factor(folder / "vae"),
            min((int(one) for one in layers if isinstance(one, int)), default=None),
            read_scheduler(folder),
        )

    @property
    def names(self) -> frozenset[str]:
        """Of the arguments that the pipeline takes."""
        return frozenset(inspect.signature(self.pipeline.__call__).parameters)

    def default(self, name: str) -> Any:
        """What the pipeline takes where an argument is not given; None where it has no such argument."""
        found = inspect.signature(self.pipeline.__call__).parameters.get(name)
        return None if found is None or found.default is inspect.Parameter.empty else found.default

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse arguments of a generation that this base cannot have.

        Args:
            given: by name, each in its own range; what is absent or None is the pipeline's own.

        Raises:
            Refused: naming the setting, its value, what it can be here, and the remedy.
        """
        for name in ("height", "width"):
            check_side(name, given.get(name), self.factor)
        if self.text_layers is not None and given.get("clip_skip") is not None:
            last = self.text_layers - 1
            check("clip_skip", given["clip_skip"], Whole(0, last, remedy=f"the text encoder has {last + 1} layers"))
        steps, most = given.get("num_inference_steps"), self.scheduler.get("num_train_timesteps")
        if isinstance(steps, int) and isinstance(most, int):
            check("num_inference_steps", steps, Whole(1, most, remedy=f"the base was trained with {most} steps"))
        self._check_strength(given)
        check_schedule(self.scheduler)

    def _check_strength(self, given: Mapping[str, Any]) -> None:
        """Of image to image and inpainting: too little of a short schedule is no step at all."""
        strength = self.default("strength") if given.get("strength") is None else given["strength"]
        steps = given.get("num_inference_steps") or self.default("num_inference_steps")
        elsewhere = any(given.get(name) is not None for name in ("timesteps", "denoising_start"))
        if elsewhere or not isinstance(strength, int | float) or not isinstance(steps, int):
            return
        if int(steps * strength) < 1:
            raise Refused(
                f"strength is {strength} with num_inference_steps {steps}: {strength:g} x {steps} is less than one "
                f"step, so nothing would happen; give num_inference_steps from {math.ceil(1 / strength)}, or a larger "
                "strength"
            )


def read_scheduler(base: Path) -> dict[str, Any]:
    """Config of the scheduler of a base that lies in a folder."""
    return _json(base / "scheduler" / "scheduler_config.json")


def vae_factor(folder: Path) -> int:
    """Pixels of a latent of the VAE in a folder, by its config; 8 where it does not say."""
    channels = _json(folder / "config.json").get("block_out_channels")
    return 2 ** (len(channels) - 1) if isinstance(channels, list) and channels else _NEAREST


def check_side(name: str, side: Any, factor: int) -> None:
    """Refuse a height or width that latents do not fill; None is the base's own."""
    if side is not None and (side < factor or side % factor):
        near = max(factor, round(side / factor) * factor)
        raise Refused(f"the {name} is a multiple of {factor}, not {side}: {near} is the nearest")


def check_schedule(scheduler: Mapping[str, Any], prediction: str | None = None) -> None:
    """Refuse noise prediction where the last timestep is nothing but noise: there is no picture in its prediction.

    Args:
        scheduler: config.
        prediction: what the UNet predicts; None for what the config says.

    Raises:
        Refused: with the remedy.
    """
    predicted = prediction or scheduler.get("prediction_type", "epsilon")
    if scheduler.get("rescale_betas_zero_snr") and predicted == "epsilon":
        raise Refused(
            "prediction_type is epsilon with rescale_betas_zero_snr true: at the last timestep there is nothing but "
            "noise, of which epsilon tells no picture; give v_prediction if the base was trained with it, or set "
            "rescale_betas_zero_snr to false"
        )


def _json(file: Path) -> dict[str, Any]:
    """What a config holds; nothing where it cannot be read, of which whoever loads the base will speak."""
    try:
        values = strict.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
