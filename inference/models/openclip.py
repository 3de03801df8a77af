"""The two halves of a CLIP model as an image and a text embedder, by the `open_clip` package, from local files.

A model is a folder as open_clip writes it for the hub: `open_clip_config.json` with the architecture and the
normalisation of pixels, and `open_clip_model.safetensors`. Its tokenizer is CLIP's own, which the package ships;
configurations that name towers or tokenizers on the hub are refused, because they would be fetched.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import nn

from refloom.inference.checkpoints.keyreport import compare
from refloom.inference.checkpoints.modelfolder import LIBRARY_ERRORS
from refloom.inference.checkpoints.tensors import safetensors_shapes
from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.embedders import Floats, Pixels, check_crops, in_fixed_batches
from refloom.inference.models.entry import Entry
from refloom.inference.models.threads import check_device, repeatable
from refloom.inference.models.transformersfiles import check_numbers, read_json
from refloom.schemas.errors import Refused
from refloom.schemas.wording import some

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BRIEF = 16
_TOWERS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg}
_FETCHED = ("hf_model_name", "hf_tokenizer_name", "timm_model_name")
"""Keys of a configuration that name something that open_clip, transformers or timm would fetch or build by name."""


def load_images(entry: Entry, device: str, precision: str) -> "OpenClipImages":
    """The image half of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    net = _load(entry, device, precision)
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return OpenClipImages(net, device=device, precision=precision, batch_size=batch_size)


def load_texts(entry: Entry, device: str, precision: str) -> "OpenClipTexts":
    """The text half of the registry's entry; its image half is the entry of the same name.

    Raises:
        Refused: as for `load_images`.
    """
    net = _load(entry, device, precision)
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return OpenClipTexts(net, image_model=entry.name, device=device, batch_size=batch_size)


def _load(entry: Entry, device: str, precision: str) -> Any:
    """open_clip's model with both halves, ready for use."""
    check_device(entry.name, device)
    config, weights = entry.files()
    _check_config(entry, config)
    try:
        shapes = safetensors_shapes(weights)
    except Refused as error:
        raise entry.damaged(str(error)) from error
    try:
        # finds the two files by their names; the safetensors come before any pickle in the same folder
        net = open_clip.create_model(
            f"local-dir:{weights.parent}", precision=precision, device=device, weights_only=True
        )
    except LIBRARY_ERRORS as error:
        raise entry.damaged(_misfit(config, weights, shapes)) from error
    for name, tensor in net.state_dict().items():
        # open_clip stretches position embeddings of another size without a word
        if tensor.dim() and shapes.get(name) != tuple(tensor.shape):
            raise entry.damaged(
                f"{name} is {shapes.get(name)} in {weights.name} and {tuple(tensor.shape)} by {config.name}"
            )
    check_numbers(entry, net, weights)
    return net.eval().requires_grad_(False)


def _check_config(entry: Entry, file: Path) -> None:
    """Refuse what is no configuration of a CLIP whose parts open_clip has itself."""
    model = read_json(entry, file).get("model_cfg")
    if not isinstance(model, dict) or not all(isinstance(model.get(tower), dict) for tower in _TOWERS):
        raise entry.damaged(f"{file.name} has no model_cfg with vision_cfg and text_cfg")
    named = [key for tower in _TOWERS for key in _FETCHED if model[tower].get(key)]
    if named:
        told = some(named)
        raise entry.damaged(f"{file.name} names {told}: only open_clip's own towers and tokenizer are known")
    known = {tower: {one.name for one in fields(kind)} for tower, kind in _TOWERS.items()}
    if unknown := [f"{tower}.{key}" for tower in _TOWERS for key in model[tower] if key not in known[tower]]:
        raise entry.damaged(f"{file.name} says {some(unknown)}, which open_clip {open_clip.__version__} does not know")


def _misfit(config: Path, weights: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why open_clip cannot load a model whose files can be read."""
    try:
        with torch.device("meta"):
            net = open_clip.create_model(
                f"local-dir:{weights.parent}", load_weights=False, device="meta", weights_only=True
            )
    except Exception:  # what a value of the configuration leads to, anywhere in open_clip
        return f"{config.name} describes nothing that open_clip {open_clip.__version__} can make"
    report = compare(net, shapes)
    return f"{weights.name} does not fit {config.name}: {report}"


def _brief(net: Any) -> Any:
    """The same text half for texts of at most `_BRIEF` tokens, with the same tensors; None if it cannot be cut.

    Where a token sees only those before it and the end token is what is read, what follows it changes nothing. A name
    in a prompt has about 10 tokens of 77, and a vocabulary has thousands of them: four to five times as fast.
    """
    if net.attn_mask is None or net.text_pool_type != "argmax" or net.context_length <= _BRIEF:
        return None
    short = copy.copy(net)
    short._parameters = net._parameters | {"positional_embedding": nn.Parameter(net.positional_embedding[:_BRIEF])}
    short._buffers = net._buffers | {"attn_mask": net.attn_mask[:_BRIEF, :_BRIEF]}
    return short.requires_grad_(False)


class OpenClipImages:
    """An `embedders.ImageEmbedder`.

    Args:
        net: open_clip's CLIP with its weights on the device; only its image half is kept.
        device: cpu, cuda or cuda:<n>.
        precision: of the weights: fp32, bf16 or fp16.
        batch_size: crops in a forward pass.
    """

    def __init__(self, net: Any, *, device: str, precision: str, batch_size: int) -> None:
        size = net.visual.image_size
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        if height != width:
            raise Refused(f"crops are square, but this CLIP looks at {height}x{width}")
        self.input_px, self.dim = int(height), int(net.visual.output_dim)
        prepared = net.visual.preprocess_cfg
        self._mean = torch.tensor(prepared["mean"], device=device).reshape(1, 3, 1, 1)
        self._deviation = torch.tensor(prepared["std"], device=device).reshape(1, 3, 1, 1)
        self._net, self._device, self._dtype = net.visual, torch.device(device), _DTYPES[precision]
        self.batch_size = batch_size
        self._batches = MicroBatches(batch_size)

    def embed(self, batch: Pixels) -> Floats:
        """See `embedders.ImageEmbedder.embed`."""
        check_crops(batch, self.input_px)
        return in_fixed_batches(batch, self.dim, self._batches, self._run)

    @repeatable()
    def _run(self, batch: Pixels) -> Floats:
        pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float() / 255
        features = self._net(((pixels - self._mean) / self._deviation).to(self._dtype))
        return np.asarray(features.float().cpu().numpy(), np.float32)


class OpenClipTexts:
    """An `embedders.TextEmbedder`.

    Args:
        net: open_clip's CLIP with its weights on the device; its image half is thrown away.
        image_model: name of the registry's image embedder with the same weights.
        device: cpu, cuda or cuda:<n>.
        batch_size: texts in a forward pass.
    """

    def __init__(self, net: Any, *, image_model: str, device: str, batch_size: int) -> None:
        self.image_model, self.dim = image_model, int(net.visual.output_dim)
        self.logit_scale = float(net.logit_scale.float().exp().item())
        net.visual = None
        self._net, self._device = net, torch.device(device)
        self._context = int(net.context_length)
        self._tokenizer = open_clip.SimpleTokenizer(context_length=self._context)
        if net.vocab_size != self._tokenizer.vocab_size:
            raise Refused(f"the text half knows {net.vocab_size} tokens, CLIP's tokenizer {self._tokenizer.vocab_size}")
        self._batches = MicroBatches(batch_size)
        self._brief = _brief(net)

    def embed(self, texts: Sequence[str]) -> Floats:
        """See `embedders.TextEmbedder.embed`."""
        tokens = self._tokenizer(list(texts)).numpy() if texts else np.zeros((0, self._context), np.int64)
        out = np.zeros((len(tokens), self.dim), np.float32)
        # by its own length alone, so that a vector does not depend on its neighbours
        brief = np.full(len(tokens), self._brief is not None) & ~tokens[:, _BRIEF:].any(axis=1)
        out[brief] = in_fixed_batches(tokens[brief, :_BRIEF], self.dim, self._batches, self._run)
        out[~brief] = in_fixed_batches(tokens[~brief], self.dim, self._batches, self._run)
        return out

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """See `embedders.TextEmbedder.truncated`. A start and an end token take two places of the context."""
        return [len(self._tokenizer.encode(text)) + 2 > self._context for text in texts]

    @repeatable()
    def _run(self, tokens: npt.NDArray[np.int64]) -> Floats:
        net = self._net if tokens.shape[1] == self._context else self._brief
        features = net.encode_text(torch.from_numpy(tokens).to(self._device))
        return np.asarray(features.float().cpu().numpy(), np.float32)
