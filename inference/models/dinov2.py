"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) as an image embedder, by `transformers`, from local files.

The vector is the class token after the last normalisation: it tells instances of one kind apart better than CLIP's.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import Dinov2Model
from transformers.utils import logging as transformers_logging

from inference.models.batching import MicroBatches
from inference.models.embedders import Floats, Pixels, check_crops, in_fixed_batches
from inference.models.entry import Entry
from inference.models.threads import check_device, repeatable
from schemas.errors import Refused

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(entry: Entry, device: str, precision: str) -> "Dinov2":
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, preprocessing, weights = entry.files()
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
        if kind != "dinov2":
            raise ValueError(f"{config.name} is of a {kind}, not of a dinov2")
        side, mean, deviation = pixels_of(preprocessing)
        with quiet():
            loaded: Any = Dinov2Model.from_pretrained(
                weights.parent,
                local_files_only=True,
                use_safetensors=True,
                dtype=DTYPES[precision],
                output_loading_info=True,
            )
        net, loading = loaded
        lost = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"], *loading["unexpected_keys"]]))
        if lost:
            raise ValueError(f"{weights.name} and {config.name} disagree about {', '.join(lost[:3])}")
        if side % net.config.patch_size:
            raise ValueError(f"crops of {side} px are not made of patches of {net.config.patch_size} px")
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise Refused(f"{entry.name} is damaged: {str(error)[:300]}; get it again: {entry.get}") from error
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return Dinov2(net, input_px=side, mean=mean, deviation=deviation, device=device, batch_size=batch_size)


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers write no progress and no report of what it loads; what was set before is set again after."""
    logging: Any = transformers_logging  # half of it has no types
    progress, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


def pixels_of(file: Path) -> tuple[int, list[float], list[float]]:
    """Side of the crops, mean and standard deviation of RGB in 0..1, from `preprocessor_config.json`.

    Raises:
        ValueError, KeyError, TypeError: it does not say.
    """
    said = json.loads(file.read_text(encoding="utf-8"))
    height, width = int(said["crop_size"]["height"]), int(said["crop_size"]["width"])
    mean, deviation = [float(v) for v in said["image_mean"]], [float(v) for v in said["image_std"]]
    if height != width or len(mean) != 3 or len(deviation) != 3:
        raise ValueError(f"{file.name} is not of square pictures with three channels")
    return height, mean, deviation


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
