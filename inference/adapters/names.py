"""Whose checkpoint a file is, told from the names of its tensors, and what training runs call those of an adapter."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from refloom.inference.checkpoints.tensors import Contents
from refloom.schemas.errors import Refused
from refloom.schemas.wording import shown, some

_NUMBER = re.compile(r"[0-9]{1,6}")
_SIGNS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("easyref", r"(mllm_final_layer|multimodal_llm)\..*"),
        ("ms_diffusion", r"ms_adapter\..*|dummy_image_tokens|image_proj(_model)?\.grounding_latents"),
        ("mip", r"(ip_adapter|adapter_modules|unet)\..*\.text_to_weight\.weight"),
        ("ezigen", r"(?!layers\.)(.*\.)?(learnable_weights|adapter_norm\.(weight|bias)|adapter\.to_[qkv]\.weight)"),
    )
)
_FACE_ID = re.compile(r"(ip_adapter|adapter_modules)\.[0-9]+\.to_\w+_lora\..*")
_IP_ADAPTER = re.compile(
    r"(ip_adapter|adapter_modules)\.[0-9]+\.to_[kv]_ip\.weight|unet\..*\.processor\.to_[kv]_ip\.weight"
)
_OTHERS = tuple(
    (what, re.compile(pattern))
    for what, pattern in (
        (
            "an adapter as refloom itself saves it: give its folder, with config.json, and no kind",
            r"layers\.(down_blocks|up_blocks|mid_block)\..*|reader\.(trunk|final|visual)\..*",
        ),
        ("an IP-Adapter FaceID, which is not supported: take a plain or plus one", _FACE_ID.pattern),
        ("a LoRA, which diffusers' load_lora_weights reads: give the adapter", r".*(lora_(down|up|A|B)|\.lora\.).*"),
        ("a ControlNet, which diffusers reads: give the adapter", r"controlnet_.*|control_model\..*"),
        ("a whole Stable Diffusion checkpoint, a base: give the adapter", r"model\.diffusion_model\..*"),
        ("a CLIP model, an image encoder: give the adapter", r"(vision_model|text_model|visual)\..*"),
        ("a VAE: give the adapter", r"(encoder|decoder)\.(conv_in|down_blocks|up_blocks|mid_block|mid|down|up)\..*"),
        ("a UNet, a base without an adapter: give the adapter", r"(unet\.)?(down_blocks|up_blocks|mid_block)\..*"),
    )
)


def kind_of(names: Iterable[str]) -> str | None:
    """The method that a checkpoint's tensors are of; None where they are of none that refloom reads."""
    every = list(names)
    for kind, sign in _SIGNS:
        if any(sign.fullmatch(name) for name in every):
            return kind
    if any(_IP_ADAPTER.fullmatch(name) for name in every) and not any(_FACE_ID.fullmatch(name) for name in every):
        return "ip_adapter"
    return None


def refuse_other(kind: str, names: Iterable[str], source: object) -> None:
    """Refuse a checkpoint that is plainly of another method, or of no adapter.

    Args:
        kind: that it is read as.
        names: of its tensors.
        source: the file, for messages.

    Raises:
        Refused: with what it is, and the kind to read it as.
    """
    every = list(names)
    found = kind_of(every)
    if found == kind:
        return
    if found is not None:
        raise Refused(f"{source} is no checkpoint of {kind} but another method's: read it as kind {found}")
    for what, sign in _OTHERS:
        if any(sign.fullmatch(name) for name in every):
            raise Refused(f"{source} is no checkpoint of {kind}, but {what}")


def of_training(shapes: Mapping[str, tuple[int, ...]], unet: Any, layers: str, source: object) -> dict[str, str | None]:
    """The published name of every tensor, where a training run saved the adapter together with its base.

    `adapter_modules.<n>.*` and `unet.<attention>.processor.*` are the adapter's layers, n being their place in
    `unet.attn_processors`; `image_proj_model.*` is the head; all else of `unet.*` is the frozen base.

    Args:
        shapes: of the file's tensors, by name.
        unet: of the base.
        layers: what published files call the part with the layers.
        source: the file, for messages.

    Returns:
        None for what is frozen. Two names of the file may have one published name: they are the same weights.

    Raises:
        Refused: the base inside the file is another one.
    """
    frozen = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    numbers = {name.removesuffix(".processor"): at for at, name in enumerate(unet.attn_processors)}
    out: dict[str, str | None] = {}
    other = []
    for name in shapes:
        part, _, rest = name.partition(".")
        out[name] = name
        if part == "image_proj_model":
            out[name] = f"image_proj.{rest}"
        elif part == "adapter_modules":
            out[name] = f"{layers}.{rest}"
        elif part == "unet":
            path, inside, weight = rest.partition(".processor.")
            if inside and path in numbers:
                out[name] = f"{layers}.{numbers[path]}.{weight}"
            elif frozen.get(rest) == shapes[name]:
                out[name] = None
            else:
                other.append(name)
    if other:
        raise Refused(
            f"{source} belongs to another base model: {some(other)} is not, or of another shape, in this UNet"
        )
    return out


def without_base(found: Contents, unet: Any, inside: Callable[[str], str]) -> dict[str, Tensor]:
    """The tensors that are not those of the frozen UNet, which a file may hold besides.

    Args:
        found: what the file holds.
        unet: of the base that the adapter was trained for; only its shapes are read.
        inside: the UNet's name of a tensor by the file's; of a tensor that cannot be the UNet's, no name that it has.

    Raises:
        Refused: the UNet in the file is another one.
    """
    base = {key: tuple(tensor.shape) for key, tensor in unet.state_dict().items()}
    for key, shape in found.shapes.items():
        if base.get(inside(key), shape) != shape:
            raise Refused(
                f"{found.source} belongs to another base model: {shown(key)} is {shape} there, and {base[inside(key)]} "
                "in this UNet"
            )
    return found.take(lambda key: inside(key) not in base)


def number(text: str) -> int | None:
    """The number that a name has for a layer; None if it is none."""
    return int(text) if _NUMBER.fullmatch(text) else None
