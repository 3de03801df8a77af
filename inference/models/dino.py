"""DINO (Caron et al. 2021, arXiv 2104.14294) as an image embedder, by `transformers`, from local files.

The vector is the class token after the last normalisation, which is what DINO scores of subjects are published by.
"""

import json
from typing import Any

from safetensors import SafetensorError
from transformers import ViTModel

from inference.models.dinov2 import DTYPES, Dinov2, quiet
from inference.models.entry import Entry
from inference.models.threads import check_device
from schemas.errors import Refused


def load(entry: Entry, device: str, precision: str) -> Dinov2:
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, preprocessing, weights = entry.files()
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
        if kind != "vit":
            raise ValueError(f"{config.name} is of a {kind}, not of a vit")
        said = json.loads(preprocessing.read_text(encoding="utf-8"))
        mean, deviation = [float(v) for v in said["image_mean"]], [float(v) for v in said["image_std"]]
        if len(mean) != 3 or len(deviation) != 3:
            raise ValueError(f"{preprocessing.name} is not of pictures with three channels")
        with quiet():
            loaded: Any = ViTModel.from_pretrained(
                weights.parent,
                local_files_only=True,
                use_safetensors=True,
                add_pooling_layer=False,
                dtype=DTYPES[precision],
                output_loading_info=True,
            )
        net, loading = loaded
        # files with a pooler, which DINO has not, are of the same network
        unknown = {key for key in loading["unexpected_keys"] if not str(key).startswith("pooler.")}
        lost = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"], *unknown]))
        if lost:
            raise ValueError(f"{weights.name} and {config.name} disagree about {', '.join(lost[:3])}")
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise Refused(f"{entry.name} is damaged: {str(error)[:300]}; get it again: {entry.get}") from error
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    side = int(net.config.image_size)
    return Dinov2(net, input_px=side, mean=mean, deviation=deviation, device=device, batch_size=batch_size)
