"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) as an image embedder, by `transformers`, from local files.

The vector is the class token after the last normalisation: it tells instances of one kind apart better than CLIP's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Dinov2Model
from transformers.utils import logging as transformers_logging

from inference import modelfolder
from inference.modelfolder import LIBRARY_ERRORS
from inference.models.batching import MicroBatches
from inference.models.embedders import Floats, Pixels, check_crops, in_fixed_batches
from inference.models.entry import Entry
from inference.models.threads import check_device, repeatable
from schemas.wording import shown

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(entry: Entry, device: str, precision: str) -> "Dinov2":
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, preprocessing, weights = entry.files()
    check_kind(entry, config, "dinov2")
    side, mean, deviation = pixels_of(entry, preprocessing)
    try:
        with quiet():
            loaded: Any = Dinov2Model.from_pretrained(
                weights.parent,
                local_files_only=True,
                use_safetensors=True,
                dtype=DTYPES[precision],
                output_loading_info=True,
            )
    except LIBRARY_ERRORS as error:
        raise entry.damaged(modelfolder.trouble(weights.parent, "transformers")) from error
    net, loading = loaded
    check_keys(entry, loading, weights, config)
    check_numbers(entry, net, weights)
    if side % net.config.patch_size:
        raise entry.damaged(f"crops of {side} px are not made of patches of {net.config.patch_size} px")
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    return Dinov2(net, input_px=side, mean=mean, deviation=deviation, device=device, batch_size=batch_size)


def read_json(entry: Entry, file: Path) -> dict[str, Any]:
    """The mapping in a json file of a model.

    Raises:
        Refused: there is none.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise entry.damaged(f"{file.name} is no json, or cut off") from error
    if not isinstance(said, dict):
        raise entry.damaged(f"{file.name} holds a {type(said).__name__}, not a mapping")
    return said


def check_kind(entry: Entry, config: Path, kind: str) -> None:
    """Refuse a `config.json` of another architecture."""
    said = read_json(entry, config).get("model_type")
    if said != kind:
        raise entry.damaged(f"{config.name} is of a {shown(str(said))}, not of a {kind}")


def check_keys(entry: Entry, loading: Mapping[str, Any], weights: Path, config: Path, spare: str = "(?!)") -> None:
    """Refuse weights that do not fit their config.

    Args:
        entry: of the model.
        loading: what transformers says of loading them.
        weights, config: the files.
        spare: expression of keys that the file may have besides.
    """
    missing = {_key(one) for name in ("missing_keys", "mismatched_keys") for one in loading[name]}
    unknown = {_key(one) for one in loading["unexpected_keys"]}
    if lost := [*missing, *(key for key in unknown if not re.fullmatch(spare, key))]:
        raise entry.damaged(modelfolder.lost(lost, weights, config))


def check_numbers(entry: Entry, net: Any, weights: Path) -> None:
    """Refuse weights with values that are no numbers."""
    for name, tensor in net.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise entry.damaged(f"{name} in {weights.name} has values that are no numbers (NaN or infinity)")


def _key(one: Any) -> str:
    """Of a misshapen tensor transformers says its shapes, too."""
    return str(one[0] if isinstance(one, tuple) else one)


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


def pixels_of(entry: Entry, file: Path) -> tuple[int, list[float], list[float]]:
    """Side of the crops, mean and standard deviation of RGB in 0..1, from `preprocessor_config.json`.

    Raises:
        Refused: it does not say.
    """
    said = read_json(entry, file)
    try:
        height, width = int(said["crop_size"]["height"]), int(said["crop_size"]["width"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise entry.damaged(f"{file.name} has no crop_size with height and width") from error
    if height != width or height <= 0:
        raise entry.damaged(f"{file.name} is not of square pictures")
    return height, *colours_of(entry, file)


def colours_of(entry: Entry, file: Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of RGB in 0..1, from `preprocessor_config.json`.

    Raises:
        Refused: it does not say.
    """
    said = read_json(entry, file)
    try:
        mean, deviation = [float(v) for v in said["image_mean"]], [float(v) for v in said["image_std"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise entry.damaged(f"{file.name} has no image_mean and image_std of three numbers") from error
    if len(mean) != 3 or len(deviation) != 3:
        raise entry.damaged(f"{file.name} is not of pictures with three channels")
    return mean, deviation


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
