"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) as an image embedder, by `transformers`, from local files.

The vector is the class token after the last normalisation: it tells instances of one kind apart better than CLIP's.
"""

from typing import Any

import numpy as np
import torch
from transformers import Dinov2Model

from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.embedders import Floats, Pixels, check_crops, in_fixed_batches
from refloom.inference.models.entry import Entry
from refloom.inference.models.threads import check_device, repeatable
from refloom.inference.models.transformersfiles import check_kind, load_net, pixels_of


def load(entry: Entry, device: str, precision: str) -> "Dinov2":
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, preprocessing, weights = entry.files()
    check_kind(entry, config, "dinov2")
    side, mean, deviation = pixels_of(entry, preprocessing)
    net = load_net(entry, Dinov2Model, weights, precision)
    if side % net.config.patch_size:
        raise entry.damaged(f"crops of {side} px are not made of patches of {net.config.patch_size} px")
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return Dinov2(net, input_px=side, mean=mean, deviation=deviation, device=device, batch_size=batch_size)


class Dinov2:
    """An `embedders.ImageEmbedder`.

    Args:
        net: transformers' `Dinov2Model` with its weights, in the precision to compute in.
        input_px: side of the crops, a multiple of the patch; position embeddings are interpolated to it.
        mean, deviation: of RGB in 0..1.
        device: cpu, cuda or cuda:<n>.
        batch_size: crops in a forward pass.
    """

    def __init__(
        self, net: Any, *, input_px: int, mean: list[float], deviation: list[float], device: str, batch_size: int
    ) -> None:
        self.input_px, self.dim, self.batch_size = input_px, int(net.config.hidden_size), batch_size
        self._net = net.eval().requires_grad_(False).to(device)
        self._device, self._batches = torch.device(device), MicroBatches(batch_size)
        self._mean = torch.tensor(mean, device=device).reshape(1, 3, 1, 1)
        self._deviation = torch.tensor(deviation, device=device).reshape(1, 3, 1, 1)

    def embed(self, batch: Pixels) -> Floats:
        """See `embedders.ImageEmbedder.embed`."""
        check_crops(batch, self.input_px)
        return in_fixed_batches(batch, self.dim, self._batches, self._run)

    @repeatable()
    def _run(self, batch: Pixels) -> Floats:
        pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float() / 255
        tokens = self._net(((pixels - self._mean) / self._deviation).to(self._net.dtype)).last_hidden_state
        return np.asarray(tokens[:, 0].float().cpu().numpy(), np.float32)
