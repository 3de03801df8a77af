"""EfficientNet-Lite0 as an image embedder: the pooled features before the classifier.

The weights are Google's, trained on ImageNet, converted to PyTorch by the package that ships them; timm has the
architecture under other names but in the same order.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from inference.models.embedders import Floats, Pixels
from inference.models.entry import Entry
from schemas.errors import Refused

_ARCHITECTURE = "tf_efficientnet_lite0"
_NORMALISATIONS = 49
_MEAN, _DEVIATION = 127.0, 128.0
"""Of all three channels, RGB 0..255: `efficientnet_lite_builder.py` of the TensorFlow release."""
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

State = Mapping[str, torch.Tensor]


def load(entry: Entry, device: str, precision: str) -> "EfficientNetLite0":
    """The model of the registry's entry.

    Raises:
        Refused: the weights do not fit the architecture, or there is no such device.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Refused(f"{entry.name} was asked to run on {device}, but torch sees no CUDA device; use device=cpu")
    (file,) = entry.files()
    net = timm.create_model(_ARCHITECTURE, pretrained=False)
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)
        net.load_state_dict(rename(weights, net.state_dict()))
    except (ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        raise Refused(f"{file.name} does not fit timm's {_ARCHITECTURE}: {error}; reinstall: {entry.get}") from error
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return EfficientNetLite0(net, device=device, precision=precision, batch_size=batch_size)


def rename(weights: State, wanted: State) -> dict[str, torch.Tensor]:
    """The tensors of one state dict under the names of another that has them in the same order.

    Raises:
        ValueError: another number of tensors, or one that differs in kind (the last part of its name), shape or type.
    """
    if len(weights) != len(wanted):
        raise ValueError(f"{len(weights)} tensors instead of {len(wanted)}")
    renamed = {}
    for (name, tensor), (target, like) in zip(weights.items(), wanted.items(), strict=True):
        kinds = name.rpartition(".")[2], target.rpartition(".")[2]
        if kinds[0] != kinds[1] or tensor.shape != like.shape or tensor.dtype != like.dtype:
            theirs, ours = f"{tuple(tensor.shape)} {tensor.dtype}", f"{tuple(like.shape)} {like.dtype}"
            raise ValueError(f"{name} is {theirs} where {target} is {ours}")
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: with more, sums come out in another order. What was set before is set again after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EfficientNetLite0:
    """An `embedders.ImageEmbedder`.

    Crops go through in batches of one fixed size, the last one filled up with black, because sums depend on it.

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
        self._device, self._batch_size = torch.device(device), batch_size
        self._dtype = _DTYPES.get(precision)

    def embed(self, batch: Pixels) -> Floats:
        """See `embedders.ImageEmbedder.embed`."""
        features = self._forward(batch, classify=False).astype(np.float64)
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        unit: Floats = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit

    def classify(self, batch: Pixels) -> Floats:
        """Probabilities (N, 1000) of the classes of ImageNet, in their usual order; arguments as for `embed`."""
        logits = self._forward(batch, classify=True).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        share: Floats = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return share

    def _forward(self, batch: Pixels, *, classify: bool) -> Floats:
        side = self.input_px
        if batch.shape[1:] != (side, side, 3) or batch.dtype != np.uint8:
            raise ValueError(f"a batch is (N, {side}, {side}, 3) uint8, not {batch.shape} {batch.dtype}")
        out = np.empty((len(batch), 1000 if classify else self.dim), np.float32)
        padded = np.empty((self._batch_size, side, side, 3), np.uint8)
        for start in range(0, len(batch), self._batch_size):
            rows = batch[start : start + self._batch_size]
            padded[: len(rows)], padded[len(rows) :] = rows, 0
            out[start : start + len(rows)] = self._run(padded, classify=classify)[: len(rows)]
        return out

    @one_thread()
    @torch.inference_mode()
    def _run(self, padded: Pixels, *, classify: bool) -> npt.NDArray[np.float32]:
        # TF32 would make fp32 on a GPU differ from the CPU in the third digit
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        mixed = torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None)
        with exact, mixed:
            pixels = torch.from_numpy(padded).to(self._device).permute(0, 3, 1, 2)  # so it is channels last already
            maps = self._net.forward_features((pixels.float() - _MEAN) / _DEVIATION)
            values = self._net.global_pool(maps.float())
            values = self._net.classifier(values) if classify else values
        return np.asarray(values.float().cpu().numpy(), np.float32)
