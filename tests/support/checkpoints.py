"""What tests of checkpoints share: a tiny one of every kind, as its authors would have published it, and its reader."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tinypipes as tiny
import torch
from adapting import TINY_QWEN, easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter
from safetensors.torch import save_file

from refloom.inference.adapters import published
from refloom.inference.adapters.easyref.checkpoint import read_easyref

KINDS = ("ip_adapter", "mip", "ms_diffusion", "ezigen", "easyref")


@cache
def pipe(kind: str) -> Any:
    """A base for it; nothing here changes one."""
    return tiny.sd_pipe() if kind == "ezigen" else _sdxl()


@cache
def _sdxl() -> Any:
    return tiny.sdxl_pipe()


@cache
def _flat(kind: str) -> Mapping[str, torch.Tensor]:
    made = {
        "ip_adapter": ip_adapter,
        "mip": mip_adapter,
        "ms_diffusion": ms_adapter,
        "ezigen": ezigen_adapter,
        "easyref": easyref_adapter,
    }[kind](pipe(kind))
    if kind == "ezigen":
        return {key.removeprefix("layers."): tensor for key, tensor in made.state_dict().items()}
    if kind == "easyref":
        return {_of_easyref(key): tensor for key, tensor in made.state_dict().items()}
    part = "ms_adapter." if kind == "ms_diffusion" else "ip_adapter."
    return {key.replace("ip_adapter.", part): tensor for key, tensor in published.published_keys(made).items()}


def _of_easyref(key: str) -> str:
    part, _, rest = key.partition(".")
    if part == "image_proj":
        return f"image_proj_model.{rest}"
    if key.startswith("reader.final."):
        return f"mllm_final_layer.{key.removeprefix('reader.final.').replace('layer.', 'layers.0.', 1)}"
    if key.startswith("reader.trunk."):
        return f"multimodal_llm.model.{key.removeprefix('reader.trunk.')}"
    if part == "reader":
        return f"multimodal_llm.{rest}"
    path, name, *more = rest.rsplit(".", 2 if part == "layers" else 3)
    return ".".join(
        [f"unet.{path}.processor.{name}_lora" if part == "lora" else f"unet.{path}.processor.{name}", *more]
    )


def flat(kind: str) -> dict[str, torch.Tensor]:
    """The tensors of a published checkpoint by dotted names, without a frozen base."""
    return dict(_flat(kind))


def nested(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same in mappings by part, as `torch.save` has them."""
    parts: dict[str, Any] = {}
    for key, tensor in tensors.items():
        name, dot, rest = key.partition(".")
        if dot:
            parts.setdefault(name, {})[rest] = tensor
        else:
            parts[key] = tensor
    return parts


def in_training(kind: str) -> dict[str, torch.Tensor]:
    """As a training run saves an adapter with its base: `unet.*`, `adapter_modules.*` and `image_proj_model.*`."""
    out = {f"unet.{key}": tensor for key, tensor in pipe(kind).unet.state_dict().items()}
    for key, tensor in flat(kind).items():
        part, _, rest = key.partition(".")
        name = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules", "ms_adapter": "adapter_modules"}
        out[f"{name[part]}.{rest}" if part in name else key] = tensor
    return out


def read(kind: str, path: Path) -> Any:
    """The adapter in a checkpoint, by the reader of its kind."""
    unet = pipe(kind).unet
    if kind == "easyref":
        return read_easyref(path, unet, qwen=TINY_QWEN, side=56)
    if kind == "ezigen":
        return published.read_ezigen(path, unet)
    readers = {"ip_adapter": published.read_ip_adapter, "mip": published.read_mip}
    return readers.get(kind, published.read_ms_diffusion)(path, unet, head_width=8)


def pickled(file: Path, tensors: Any) -> Path:
    """A file of `torch.save`."""
    torch.save(tensors, file)
    return file


def stored(file: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """A safetensors file."""
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, file)
    return file


def same(one: Any, other: Any) -> bool:
    """Whether two adapters have the same tensors."""
    a, b = one.state_dict(), other.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
