"""The models that training uses and never changes: the base's pipeline and the image encoder, each in its precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from refloom.inference.adapters.vision import ClipVision
from refloom.inference.checkpoints.hub import ALIASES, fetch, locate
from refloom.inference.checkpoints.modelfolder import LIBRARY_ERRORS, trouble
from refloom.inference.loading import load_base, load_image_encoder
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.training.recipes.recipe import Recipe

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
IMAGE_ENCODER = "clip"
"""Of the recipe; a base may have a part called image_encoder of its own."""
ENCODERS = ("vae", "text_encoder", "text_encoder_2", IMAGE_ENCODER)
"""All that pictures and texts go through before the UNet."""
_VAE_FILES = ("config.json", "*.safetensors")


def load_frozen(recipe: Recipe, device: torch.device, *, without: Sequence[str] = ()) -> tuple[Any, ClipVision | None]:
    """The pipeline and the image encoder of a recipe.

    They are in the recipe's precision, but for the VAE, whose activations do not fit into half precision.

    Args:
        recipe: that names them.
        device: where they go.
        without: parts that are not loaded, such as `ENCODERS` where features stand for what they make.

    Raises:
        Refused: one of them is not there or not what the recipe needs.
    """
    models, dtype = recipe.models, DTYPES[recipe.precision]
    types = {"default": dtype} | ({} if "vae" in without else {"vae": torch.float32})
    parts = _parts(models.base) if without else ()
    pipe = load_base(
        models.base,
        torch_dtype=types,
        variant=models.variant,
        without=[part for part in without if part in parts],
    )
    if models.vae is not None and "vae" not in without:
        pipe.vae = load_vae(models.vae)
    pipe.to(device)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if recipe.channels_last:
        for part in {"unet", "vae"} - set(without):
            getattr(pipe, part).to(memory_format=torch.channels_last)
    if recipe.gradient_checkpointing and "unet" not in without:
        pipe.unet.enable_gradient_checkpointing()
    if recipe.compile and "unet" not in without:
        pipe.unet.compile_repeated_blocks()
    if models.image_encoder is None or IMAGE_ENCODER in without:
        return pipe, None
    vision = load_image_encoder(models.image_encoder, dtype=dtype)
    vision.model.to(device)
    return pipe, vision


def hold_frozen(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Keep the parameters that are not trained in a precision; what is trained, and all buffers, stay as they are."""
    for parameter in module.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def read_encoder_widths(name: str) -> dict[str, int | None]:
    """Widths of an image encoder's `pooled` features and of its `patches`, by its config alone.

    Raises:
        Refused: there is no such config.
    """
    place = locate(name, "image encoder")
    file = Path(place.path if place.local else fetch(place.name, ["config.json"])) / "config.json"
    try:
        values = strict.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{name} is no image encoder: {file} cannot be read ({error})") from error
    vision = values.get("vision_config") or values if isinstance(values, dict) else None
    if not isinstance(vision, dict):
        raise Refused(f"{name} is no image encoder: {file} describes none; get it again")
    return {"pooled": values.get("projection_dim"), "patches": vision.get("hidden_size")}


def _parts(base: str) -> set[str]:
    """Names of a base's parts, from its index."""
    place = locate(base, "base model")
    folder = place.path if place.local else fetch(ALIASES.get(place.name, place.name), ["model_index.json"])
    try:
        listed = strict.loads((folder / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{base} is no diffusers pipeline: its model_index.json cannot be read ({error})") from error
    if not isinstance(listed, dict):
        raise Refused(f"{base} is no diffusers pipeline: its model_index.json names no parts; get it again")
    return set(listed)


def load_vae(name: str) -> Any:
    """A VAE in fp32.

    Args:
        name: a folder, or OWNER/NAME on a Hub.

    Raises:
        Refused: there is none.
    """
    from diffusers import AutoencoderKL

    place = locate(name, "VAE")
    folder = place.path if place.local else fetch(place.name, _VAE_FILES)
    try:
        return AutoencoderKL.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True, use_safetensors=True
        )
    except LIBRARY_ERRORS as error:
        raise Refused(f"the VAE {name} cannot be loaded: {trouble(folder, 'diffusers')}") from error
