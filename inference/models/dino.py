"""DINO (Caron et al. 2021, arXiv 2104.14294) as an image embedder, by `transformers`, from local files.

The vector is the class token after the last normalisation, which is what DINO scores of subjects are published by.
"""

from typing import Any

from transformers import ViTModel

from refloom.inference.checkpoints import modelfolder
from refloom.inference.checkpoints.modelfolder import LIBRARY_ERRORS
from refloom.inference.models.dinov2 import Dinov2
from refloom.inference.models.entry import Entry
from refloom.inference.models.threads import check_device
from refloom.inference.models.transformersfiles import DTYPES, check_keys, check_kind, check_numbers, colours_of, quiet


def load(entry: Entry, device: str, precision: str) -> Dinov2:
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, preprocessing, weights = entry.files()
    check_kind(entry, config, "vit")
    mean, deviation = colours_of(entry, preprocessing)
    try:
        with quiet():
            loaded: Any = ViTModel.from_pretrained(
                weights.parent,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                add_pooling_layer=False,
                dtype=DTYPES[precision],
                output_loading_info=True,
            )
    except LIBRARY_ERRORS as error:
        raise entry.damaged(modelfolder.trouble(weights.parent, "transformers")) from error
    net, loading = loaded
    # files with a pooler, which DINO has not, are of the same network
    check_keys(entry, loading, weights, config, spare=r"pooler\..*")
    check_numbers(entry, net, weights)
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    side = int(net.config.image_size)
    return Dinov2(net, input_px=side, mean=mean, deviation=deviation, device=device, batch_size=batch_size)
