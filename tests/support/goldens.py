"""What tests of golden tensors share: the tiny base models and tensors of a golden file (tests/golden/README.md)."""

import json
from pathlib import Path

import numpy as np
import tinypipes as tiny
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from places import GOLDEN
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from refloom.inference.adapters.vision import ClipVision

NEGATIVE = "blurry"


def same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value; latents hold values of 1e-2 beside values of 10."""
    assert got.shape == wanted.shape
    error = float((got - wanted).abs().max() / wanted.abs().max())
    assert error < 1e-5, error


class Golden:
    """One file: `weights.<part>.<key>` in fp16, the exact values that ran; other tensors by the name of their run."""

    def __init__(self, name: str) -> None:
        file = GOLDEN / f"{name}.safetensors"
        with safe_open(file, framework="pt") as tensors:
            self.meta = json.loads(tensors.metadata()["golden"])
            self._tensors = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._tensors[key]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors whose name begins so, by the rest of it."""
        start = f"{prefix}."
        found = {key.removeprefix(start): value for key, value in self._tensors.items() if key.startswith(start)}
        assert found, prefix
        return found

    def image(self, index: int) -> np.ndarray:
        return self[f"image.{index}"].numpy()

    def weights(self, part: str) -> dict[str, torch.Tensor]:
        found = self.under(f"weights.{part}")
        return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}

    def adapter_file(self, part: str, folder: Path) -> Path:
        """The adapter's weights as a published file."""
        file = folder / f"{part}.safetensors"
        save_file(self.under(f"weights.{part}"), file)
        return file

    def vision(self) -> ClipVision:
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**self.meta["image_encoder"]))
        return ClipVision(self._filled(model, "image_encoder"))

    def unet(self, part: str = "unet") -> UNet2DConditionModel:
        return self._filled(UNet2DConditionModel(**self.meta[part]), part)

    def text_encoder(self, part: str) -> CLIPTextModel:
        """The embedding table has the tokens of the golden prompts only; any other is zero."""
        kind = CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel
        model = kind(CLIPTextConfig(**self.meta[part]))
        values = self.weights(part)
        rows = values.pop("rows")
        table = next(key for key in values if key.endswith("token_embedding.weight"))
        whole = torch.zeros(model.config.vocab_size, model.config.hidden_size)
        whole[rows] = values[table]
        return _frozen(model, values | {table: whole})

    def controlnet(self, unet: UNet2DConditionModel) -> ControlNetModel:
        """Copied from the UNet, but for what the file has."""
        model = ControlNetModel.from_unet(unet, **self.meta["controlnet"])
        return _frozen(model, model.state_dict() | self.weights("controlnet"))

    def pipe(self) -> StableDiffusionXLPipeline:
        """SDXL-shaped, without a VAE: latents of 10 x 10 for 80 px."""
        pipe = StableDiffusionXLPipeline(
            vae=None,
            text_encoder=self.text_encoder("text_encoder"),
            text_encoder_2=self.text_encoder("text_encoder_2"),
            tokenizer=tiny.tokenizer(),
            tokenizer_2=tiny.tokenizer("!"),
            unet=self.unet(),
            scheduler=tiny.scheduler(),
            add_watermarker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def sd_pipe(self) -> StableDiffusionPipeline:
        pipe = StableDiffusionPipeline(
            vae=None,
            text_encoder=self.text_encoder("text_encoder"),
            tokenizer=tiny.tokenizer(),
            unet=self.unet("sd_unet"),
            scheduler=tiny.scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _filled(self, model, part):
        return _frozen(model, self.weights(part))


class Layers:
    """What every cross-attention of a UNet gives in one of its calls."""

    def __init__(self, unet: UNet2DConditionModel, call: int) -> None:
        self.calls, self.call, self.outputs = -1, call, {}
        self._hooks = [unet.register_forward_pre_hook(self._count)]
        for path, module in unet.named_modules():
            if path.endswith(".attn2"):
                self._hooks.append(module.register_forward_hook(self._keeper(path)))

    def _count(self, *_):
        self.calls += 1

    def _keeper(self, path):
        def keep(_, __, output):
            if self.calls == self.call:
                self.outputs[path] = output.clone()

        return keep

    def close(self) -> dict[str, torch.Tensor]:
        for hook in self._hooks:
            hook.remove()
        return self.outputs


def run(pipe, prompts, *, noise, steps, samples=1, after_step=lambda: None, **options) -> list[torch.Tensor]:
    """Latents after each step of a run with the settings of the golden ones."""
    seen = []

    def keep(_, __, ___, kwargs):
        seen.append(kwargs["latents"].clone())
        after_step()
        return kwargs

    pipe(
        list(prompts),
        negative_prompt=[NEGATIVE] * len(prompts),
        num_inference_steps=steps,
        num_images_per_prompt=samples,
        height=80,
        width=80,
        latents=noise,
        output_type="latent",
        callback_on_step_end=keep,
        **({"guidance_scale": 5.0} | options),
    )
    return seen


def _frozen(model, values):
    missing, unknown = model.load_state_dict(values, strict=False)
    assert not unknown
    assert all("position_ids" in key for key in missing), missing
    return model.eval().requires_grad_(False)
