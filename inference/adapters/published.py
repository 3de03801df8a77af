"""Checkpoints as the authors of IP-Adapter, MIP-Adapter, MS-Diffusion and EZIGen published them, read strictly.

| file | holds |
| --- | --- |
| `ip-adapter*.bin`, `.safetensors` | `image_proj`, the head; `ip_adapter`, `<k>.to_k_ip.weight`, `<k>.to_v_ip.weight` |
| MIP `model_*.bin` | the same with `<k>.text_to_weight.weight` |
| `ms_adapter.bin` | `image_proj`, the grounding resampler; `ms_adapter`, as `ip_adapter`; `dummy_image_tokens` |
| EZIGen `checkpoint-200000/` | `model.safetensors`, a whole UNet; the adapter is the keys that a UNet does not have |

`.bin` is a pickle of nested mappings or of dotted keys, `.safetensors` has dotted keys; `inference.checkpoints.tensors` says
what else is read. k is the place in `unet.attn_processors`, where self- and cross-attentions take turns: 1, 3, 5 and so
on are the cross-attentions, in the order down, up, mid. What a training run saved whole, with its base, is read too;
see `names.of_training`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from refloom.inference.adapters import names
from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.ezigen import adapter as ezigen
from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConfig
from refloom.inference.adapters.ip_adapter.adapter import IPAdapter, IPAdapterConfig
from refloom.inference.adapters.ip_adapter.heads import HeadConfig
from refloom.inference.adapters.mip.adapter import MIPAdapter
from refloom.inference.adapters.ms_diffusion import adapter as ms_diffusion
from refloom.inference.adapters.ms_diffusion.adapter import MSDiffusion, MSDiffusionConfig
from refloom.inference.adapters.ms_diffusion.grounding import BOX_WIDTH
from refloom.inference.adapters.tokens import layers_of
from refloom.inference.checkpoints.tensors import Contents, contents
from refloom.inference.checkpoints.weights import load_strict, write_safetensors
from refloom.schemas.errors import Refused
from refloom.schemas.wording import shown, some

Kind = TypeVar("Kind", bound=Adapter)

_HEAD_WIDTH = 64
"""Of every published resampler; a file does not say how its projections divide into heads."""


def read_ip_adapter(
    file: str | Path, unet: Any, *, head_width: int = _HEAD_WIDTH, dtype: torch.dtype | None = torch.float32
) -> IPAdapter:
    """A published IP-Adapter, plain or plus.

    Args:
        file: `.bin` or `.safetensors`, an index of shards, or a folder of one of these.
        unet: of the base that it was trained for; only its shapes are read, so it may be on the meta device.
        head_width: of the resampler's heads.
        dtype: of the weights; None keeps the file's.

    Raises:
        Refused: the file is damaged, is of another method, or does not fit the base.
    """
    parts = _parts(Path(file), "ip_adapter", "ip_adapter", unet)
    config = IPAdapterConfig(**_head_values(parts["image_proj"], unet, str(file), head_width))
    return _filled(IPAdapter.on_meta(config), parts, "ip_adapter", str(file), dtype)


def read_mip(
    file: str | Path, unet: Any, *, head_width: int = _HEAD_WIDTH, dtype: torch.dtype | None = torch.float32
) -> MIPAdapter:
    """A published MIP-Adapter, sdxl or sdxl_plus; as `read_ip_adapter`."""
    parts = _parts(Path(file), "mip", "ip_adapter", unet)
    config = HeadConfig(**_head_values(parts["image_proj"], unet, str(file), head_width))
    return _filled(MIPAdapter.on_meta(config), parts, "ip_adapter", str(file), dtype)


def read_ms_diffusion(
    file: str | Path, unet: Any, *, head_width: int = _HEAD_WIDTH, dtype: torch.dtype | None = torch.float32
) -> MSDiffusion:
    """The published MS-Diffusion; as `read_ip_adapter`."""
    parts = _parts(Path(file), "ms_diffusion", "ms_adapter", unet, "dummy_image_tokens")
    head, source = parts["image_proj"], str(file)
    _, tokens, width = _shape(head, "grounding_latents", source, 3)
    phrase_width = _shape(head, "latent_proj.0.weight", source)[1] - BOX_WIDTH
    if phrase_width <= 0:
        raise Refused(f"{source} does not fit: image_proj.latent_proj.0.weight leaves no room for phrases beside boxes")
    config = MSDiffusionConfig(
        **ms_diffusion.config_values(unet),
        image_width=_shape(head, "proj_in.weight", source)[1],
        phrase_width=phrase_width,
        tokens=tokens,
        width=width,
        **_perceiver_values(head, source, head_width),
        dummy_tokens=_shape(parts, "dummy_image_tokens", source, 3)[1],
    )
    return _filled(MSDiffusion.on_meta(config), parts, "ms_adapter", str(file), dtype)


def read_ezigen(checkpoint: str | Path, unet: Any, *, dtype: torch.dtype | None = torch.float32) -> EZIGen:
    """The published EZIGen; only the adapter is read of the whole UNet that the file holds.

    Args:
        checkpoint: the folder, or a file or an index with its keys, with or without those of the UNet.
        unet: of the base that it was trained for; only its shapes are read, so it may be on the meta device.
        dtype: of the weights; None keeps the file's.

    Raises:
        Refused: there is no such file, it is damaged, is of another method, or does not fit the base.
    """
    found = contents(checkpoint)
    file = found.source
    names.refuse_other("ezigen", found.shapes, file)
    own = {_bare(key): tensor for key, tensor in names.without_base(found, unet, _bare).items()}
    tensors = {key if key == "learnable_weights" else f"layers.{key}": tensor for key, tensor in own.items()}
    adapter = EZIGen.on_meta(EZIGenConfig(**ezigen.config_values(unet)))
    load_strict(adapter, tensors, str(file), "it belongs to another base model or another method")
    return adapter if dtype is None else adapter.to(dtype)


def write_ip_adapter(adapter: IPAdapter, file: str | Path) -> None:
    """Write an IP-Adapter as a safetensors file that `pipe.load_ip_adapter` reads, and `read_ip_adapter` too."""
    write_safetensors(Path(file), published_keys(adapter))


def published_keys(adapter: Adapter) -> dict[str, Tensor]:
    """An adapter's tensors under the dotted keys of IP-Adapter's format."""
    numbered = {path: number for number, path in cross_attention_paths(adapter.config.layers).items()}
    tensors: dict[str, Tensor] = {}
    for key, tensor in adapter.state_dict().items():
        if key.startswith("layers."):
            path, name = _split(key.removeprefix("layers."))
            key = f"ip_adapter.{numbered[path]}.{name}"
        tensors[key] = tensor
    return tensors


def cross_attention_paths(layers: Mapping[str, int]) -> dict[int, str]:
    """Paths of the cross-attentions by the number that published files give them."""
    return {2 * place + 1: path for place, path in enumerate(layers)}


def _filled(adapter: Kind, parts: Mapping[str, Any], layers: str, source: str, dtype: torch.dtype | None) -> Kind:
    """The adapter with the file's tensors; `layers` names the part that is keyed by numbers."""
    paths = cross_attention_paths(adapter.config.layers)
    tensors: dict[str, Tensor] = {f"image_proj.{key}": tensor for key, tensor in parts["image_proj"].items()}
    tensors |= {key: tensor for key, tensor in parts.items() if isinstance(tensor, Tensor)}
    for key, tensor in parts[layers].items():
        number, _, name = key.partition(".")
        path = paths.get(names.number(number) or 0)
        # an unknown number keeps its name, so that the report shows the key of the file
        tensors[f"layers.{path}.{name}" if path else key] = tensor
    load_strict(adapter, tensors, source, "it belongs to another base model or another method")
    return adapter if dtype is None else adapter.to(dtype)


def _parts(path: Path, kind: str, layers: str, unet: Any, *others: str) -> dict[str, Any]:
    """The checkpoint's parts by name: mappings of tensors, and of `others` a tensor each."""
    found = contents(path)
    names.refuse_other(kind, found.shapes, found.source)
    parts: dict[str, Any] = {}
    for key, tensor in _published(found, unet, layers).items():
        name, dot, rest = key.partition(".")
        inside = dot and name not in others
        part = parts.setdefault(name, {}) if inside else parts
        if not isinstance(part, dict) or (not inside and key in parts):
            raise Refused(
                f"{found.source} has {shown(name)} both as a tensor and as a part with tensors: it is damaged"
            )
        part[rest if inside else key] = tensor
    wanted = ("image_proj", layers, *others)
    if set(parts) != set(wanted) or not all(isinstance(parts[name], dict) for name in wanted[:2]):
        held = some(sorted(parts))
        raise Refused(f"{found.source} holds {held or 'nothing'}, not {', '.join(wanted)}: it is another method's")
    return parts


def _published(found: Contents, unet: Any, layers: str) -> dict[str, Tensor]:
    """The adapter's tensors by their published names; where the file has one twice, both must be the same."""
    renamed = names.of_training(found.shapes, unet, layers, found.source)
    out: dict[str, Tensor] = {}
    for key, tensor in found.take(lambda key: renamed[key] is not None).items():
        name = str(renamed[key])
        if name in out and not torch.equal(out[name], tensor):
            raise Refused(f"{found.source} is damaged: {shown(key)} must repeat another tensor of it, and differs")
        out[name] = tensor
    return out


def _head_values(head: Mapping[str, Tensor], unet: Any, source: str, head_width: int) -> dict[str, Any]:
    """Config of one of IP-Adapter's heads, from the shapes of its tensors."""
    context_width = int(unet.config.cross_attention_dim)
    values = {"context_width": context_width, "layers": layers_of(unet)}
    if "proj.weight" in head:
        rows, image_width = _shape(head, "proj.weight", source)
        if rows % context_width:
            raise Refused(
                f"{source} belongs to another base model: its head makes {rows} numbers, which are no tokens of width "
                f"{context_width}"
            )
        return values | {"head": "plain", "image_width": image_width, "tokens": rows // context_width}
    if "latents" in head:
        _, tokens, width = _shape(head, "latents", source, 3)
        perceiver = _perceiver_values(head, source, head_width)
        return values | {
            "head": "plus",
            "image_width": _shape(head, "proj_in.weight", source)[1],
            "tokens": tokens,
            "resampler_width": width,
            **{f"resampler_{name}": value for name, value in perceiver.items()},
        }
    raise Refused(
        f"{source} has neither the plain nor the plus head of IP-Adapter, but {some(head)}: the full-face and FaceID "
        "variants are not supported"
    )


def _perceiver_values(head: Mapping[str, Tensor], source: str, head_width: int) -> dict[str, Any]:
    inner, width = _shape(head, "layers.0.0.to_q.weight", source)
    hidden, _ = _shape(head, "layers.0.1.1.weight", source)
    if inner % head_width or hidden % width:
        raise Refused(
            f"{source} does not fit: image_proj.layers.0 has projections of {inner} and {hidden} numbers, which are no "
            f"heads of {head_width} and no multiple of its width {width}"
        )
    return {
        "depth": len({key.split(".")[1] for key in head if key.startswith("layers.")}),
        "heads": inner // head_width,
        "head_width": head_width,
        "expansion": hidden // width,
    }


def _shape(tensors: Mapping[str, Any], key: str, source: str, dimensions: int = 2) -> tuple[int, ...]:
    name = f"image_proj.{key}" if key != "dummy_image_tokens" else key
    if key not in tensors:
        raise Refused(f"{source} lacks {name}: it is another method's, or cut down")
    shape = tuple(tensors[key].shape)
    if len(shape) != dimensions:
        raise Refused(f"{source} does not fit: {name} is {shape}, and must have {dimensions} dimensions")
    return shape


def _bare(key: str) -> str:
    return key.removeprefix("unet.")


def _split(key: str) -> tuple[str, str]:
    """`<path>.<projection>.weight` into path and the rest."""
    path, name, weight = key.rsplit(".", 2)
    return path, f"{name}.{weight}"
