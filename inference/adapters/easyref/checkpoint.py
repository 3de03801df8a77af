"""EasyRef's checkpoints as its authors' code writes them, read strictly; its LoRA as diffusers reads one.

| key | is |
| --- | --- |
| `mllm_final_layer.` | `layers.0.*`, `norm.weight`, `reference_tokens`: the final layer |
| `multimodal_llm.` | `visual.*`, `model.*`: the trunk, named as in transformers 4 |
| `multimodal_llm.lm_head.weight` | the token embeddings again |
| `image_proj_model.proj.*` | the projector |
| `unet.<attention>.processor.` | `to_k_ip`, `to_v_ip` and the LoRA, `to_q_lora.down` and so on |
| `unet.*` | the frozen UNet |
| `adapter_modules.<n>.*` | the processors again, n being their place in `unet.attn_processors` |

A `.safetensors` file holds these keys, without those that repeat others. A DeepSpeed `.pt` holds them under `module`,
beside its own bookkeeping. `refloom.inference.checkpoints.tensors` says what else is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from refloom.inference.adapters import names
from refloom.inference.adapters.easyref.adapter import EasyRef, EasyRefConfig, config_values
from refloom.inference.adapters.easyref.qwen import QwenConfig
from refloom.inference.adapters.lora import PROJECTIONS
from refloom.inference.checkpoints.tensors import contents
from refloom.inference.checkpoints.weights import load_strict, write_safetensors
from refloom.schemas.errors import Refused
from refloom.schemas.wording import shown, some

_LORA = tuple(f"{name}_lora" for name in PROJECTIONS)


def read_easyref(
    file: str | Path,
    unet: Any,
    *,
    qwen: QwenConfig | None = None,
    side: int = 336,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
) -> EasyRef:
    """A published EasyRef, of any training stage.

    Args:
        file: `.safetensors`, or DeepSpeed's `mp_rank_00_model_states.pt`; or an index of shards, or a folder of these.
        unet: of the base that it was trained for; only its shapes and the names of its weights are read, so it may be
            on the meta device.
        qwen: of its language model, whose heads a file does not tell; None is Qwen2-VL-2B.
        side: that references were read with in training.
        tokenizer: of its language model.
        dtype: of the weights; None keeps the file's.

    Raises:
        Refused: the file is damaged, is of another method, or does not fit the base or the language model.
    """
    found = contents(file)
    source = str(found.source)
    names.refuse_other("easyref", found.shapes, source)
    reference_tokens = found.shapes.get("mllm_final_layer.reference_tokens")
    if reference_tokens is None or len(reference_tokens) != 2:
        raise Refused(f"{source} has no mllm_final_layer.reference_tokens of two dimensions: it is another method's")
    tensors = names.without_base(found, unet, _in_unet)
    ranks = {
        shape[0] for key, shape in found.shapes.items() if key.endswith("to_q_lora.down.weight") and len(shape) == 2
    }
    if len(ranks) > 1:
        raise Refused(f"{source} has LoRAs of the ranks [{some(map(str, sorted(ranks)))}]: they have one")
    config = EasyRefConfig(
        **config_values(unet),
        qwen=qwen or QwenConfig(),
        tokens=reference_tokens[0],
        lora_rank=ranks.pop() if ranks else 0,
        side=side,
    )
    own, repeated = _own(tensors, unet)
    adapter = EasyRef.on_meta(config)
    load_strict(adapter, own, source, "it belongs to another base model or another language model")
    for key, name in repeated.items():
        if own[name].shape != tensors[key].shape or not torch.equal(own[name], tensors[key]):
            raise Refused(f"{source} is damaged: {shown(key)} must repeat the tensor that is {name} here, and differs")
    adapter.tokenizer = tokenizer
    return adapter if dtype is None else adapter.to(dtype)


def write_lora(adapter: EasyRef, file: str | Path) -> None:
    """Write the UNet's LoRA as a safetensors file that `pipe.load_lora_weights` reads, which needs peft.

    It is what EasyRef has learned besides its references; as published, its factor is 1 at any rank.
    """
    write_safetensors(Path(file), {_peft_key(key): tensor for key, tensor in adapter.lora.state_dict().items()})


def _peft_key(key: str) -> str:
    place, factor, weight = key.rsplit(".", 2)
    if place.endswith(".to_out"):
        place += ".0"
    return f"unet.{place}.{'lora_A' if factor == 'down' else 'lora_B'}.{weight}"


def own_key(key: str, path_of_number: Mapping[int, str]) -> str | None:
    """Our name of a key of the file; None for the frozen UNet and for the head that repeats the embeddings.

    Args:
        key: of the file.
        path_of_number: paths of attentions by place in `unet.attn_processors`.
    """
    part, _, rest = key.partition(".")
    if part == "mllm_final_layer":
        return f"reader.final.{rest.replace('layers.0.', 'layer.', 1)}"
    if part == "image_proj_model":
        return f"image_proj.{rest}"
    if part == "multimodal_llm":
        if rest == "lm_head.weight":
            return None
        return f"reader.trunk.{rest.removeprefix('model.')}" if rest.startswith("model.") else f"reader.{rest}"
    if part == "unet":
        path, processor, name = rest.partition(".processor.")
        return _processor_key(path, name) if processor else None
    if part == "adapter_modules":
        number, _, name = rest.partition(".")
        path = path_of_number.get(-1 if (at := names.number(number)) is None else at, "")
        return _processor_key(path, name) if path else key
    return key


def _processor_key(path: str, name: str) -> str:
    projection, _, rest = name.partition(".")
    if projection in _LORA:
        return f"lora.{path}.{projection.removesuffix('_lora')}.{rest}"
    return f"layers.{path}.{name}"


def _own(tensors: Mapping[str, Tensor], unet: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The file's tensors under our keys, and the keys of the file that repeat one of these.

    Unknown tensors keep their names, so that a report shows the key of the file.
    """
    numbered = dict(enumerate(name.removesuffix(".processor") for name in unet.attn_processors))
    own: dict[str, Tensor] = {}
    repeated: dict[str, str] = {}
    for key, tensor in tensors.items():
        name = own_key(key, numbered)
        if name is None and key.startswith("unet."):
            own[key] = tensor
        elif name is None:
            repeated[key] = "reader.trunk.embed_tokens.weight"
        elif key.startswith("adapter_modules.") and name != key:
            repeated[key] = name
        else:
            own[name] = tensor
    return own, repeated


def _in_unet(key: str) -> str:
    """The UNet's own name of a tensor; an empty one, which no tensor has, where it is not the UNet's."""
    return key.removeprefix("unet.") if key.startswith("unet.") else ""
