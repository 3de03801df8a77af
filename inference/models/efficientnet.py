"""EfficientNet-Lite0 as an image embedder: the pooled features before the classifier.

The weights are Google's, trained on ImageNet, converted to PyTorch by the package that ships them; timm has the
architecture under other names but in the same order.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from refloom.inference.checkpoints.tensors import check_values, read_pickled
from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.embedders import (
    Floats,
    Pixels,
    check_crops,
    fixed_batches,
    unit_vectors,
)
from refloom.inference.models.entry import Entry
from refloom.inference.models.remembered import Remembered
from refloom.inference.models.threads import check_device, repeatable
from refloom.schemas.errors import Refused
from refloom.schemas.wording import shown, some

_ARCHITECTURE = "tf_efficientnet_lite0"
_NORMALISATIONS = 49
_CLASSES = 1000
_MEAN, _DEVIATION = 127.0, 128.0
"""Of all three channels, RGB 0..255: `efficientnet_lite_builder.py` of the TensorFlow release."""
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

State = Mapping[str, torch.Tensor]


def load(entry: Entry, device: str, precision: str) -> "EfficientNetLite0":
    """The model of the registry's entry.

    Raises:
        Refused: the weights do not fit the architecture, or there is no such device.
    """
    check_device(entry.name, device)
    (file,) = entry.files()
    net = timm.create_model(_ARCHITECTURE, pretrained=False)
    try:
        weights = read_pickled(file)
        renamed = rename(weights, net.state_dict())
        check_values({name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}, file.name)
    except (ValueError, Refused) as error:  # both are our own
        raise Refused(f"{file.name} does not fit timm's {_ARCHITECTURE}: {error}; reinstall: {entry.get}") from error
    net.load_state_dict(renamed)
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return EfficientNetLite0(net, device=device, precision=precision, batch_size=batch_size)


def rename(weights: State, wanted: State) -> dict[str, torch.Tensor]:
    """The tensors of one state dict under the names of another that has them in the same order.

    Raises:
        ValueError: another number of tensors, or one that differs in kind (the last part of its name), shape or type.
    """
    if odd := [name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor)]:
        raise ValueError(f"{some(map(str, odd))} is no tensor")
    if len(weights) != len(wanted):
        raise ValueError(f"{len(weights)} tensors instead of {len(wanted)}")
    renamed = {}
    for (name, tensor), (target, like) in zip(weights.items(), wanted.items(), strict=True):
        kinds = name.rpartition(".")[2], target.rpartition(".")[2]
        if kinds[0] != kinds[1] or tensor.shape != like.shape or tensor.dtype != like.dtype:
            theirs, ours = f"{tuple(tensor.shape)} {tensor.dtype}", f"{tuple(like.shape)} {like.dtype}"
            raise ValueError(f"{shown(name)} is {theirs} where {target} is {ours}")
        renamed[target] = tensor
    return renamed


def fold_normalisations(net: nn.Module) -> int:
    """Fold every batch normalisation into the convolution before it, in place; returns how many were folded."""
    folded = 0
    for parent in list(net.modules()):
        before = ""
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                before = name
            elif isinstance(child, BatchNormAct2d) and before:
                setattr(parent, before, fuse_conv_bn_eval(getattr(parent, before), child))
                setattr(parent, name, child.act)
                before, folded = "", folded + 1
    return folded


class EfficientNetLite0:
    """An `embedders.ImageClassifier`.

    Crops go through in batches of one fixed size, the last one filled up with black, because sums depend on it. A crop
    that was seen lately does not go through again: as embedder and as classifier the model is asked about the same.

    Args:
        net: timm's `tf_efficientnet_lite0` with its weights; it is changed in place.
        device: cpu, cuda or cuda:<n>.
        precision: fp32, or bf16 or fp16 by autocast.
        batch_size: crops in a forward pass.
    """

    dim = 1280
    input_px = 224

    def __init__(self, net: nn.Module, *, device: str, precision: str, batch_size: int) -> None:
        folded = fold_normalisations(net.eval())
        if folded != _NORMALISATIONS:
            raise Refused(f"timm {timm.__version__} builds {_ARCHITECTURE} in another way; install timm 1.0")
        # convolutions take half the time with channels last, and folded normalisations a quarter of the rest
        self._net = net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device, self._batches = torch.device(device), MicroBatches(batch_size)
        self.batch_size = batch_size
        self._dtype = _DTYPES.get(precision)
        self._seen = Remembered(partial(fixed_batches, width=self.dim + _CLASSES, batches=self._batches, run=self._run))

    def embed(self, batch: Pixels) -> Floats:
        """See `embedders.ImageEmbedder.embed`."""
        check_crops(batch, self.input_px)
        return unit_vectors(self._seen.rows(batch)[:, : self.dim])

    def classify(self, batch: Pixels) -> Floats:
        """Probabilities (N, 1000) of the classes of ImageNet, in their usual order; arguments as for `embed`."""
        return self.describe(batch)[1]

    def describe(self, batch: Pixels) -> tuple[Floats, Floats]:
        """See `embedders.ImageClassifier.describe`; the classes are the 1000 of ImageNet in their usual order."""
        check_crops(batch, self.input_px)
        both = self._seen.rows(batch)
        logits = both[:, self.dim :].astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return unit_vectors(both[:, : self.dim]), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    @repeatable()
    def _run(self, batch: Pixels) -> Floats:
        """Features (N, dim) and the logits (N, classes) beside them, which cost next to nothing once they are there."""
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None):
            pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2)  # so it is channels last already
            maps = self._net.forward_features((pixels.float() - _MEAN) / _DEVIATION)
            values = self._net.global_pool(maps.float())
            values = torch.cat([values, self._net.classifier(values).float()], dim=1)
        return np.asarray(values.float().cpu().numpy(), np.float32)
