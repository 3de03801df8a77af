"""DINO (Caron et al. 2021, arXiv 2104.14294) as an image embedder, by `transformers`, from local files.

The vector is the class token after the last normalisation, which is what DINO scores of subjects are published by.
"""

from transformers import ViTModel

from refloom.inference.models.dinov2 import Dinov2
from refloom.inference.models.entry import Entry
from refloom.inference.models.threads import check_device
from refloom.inference.models.transformersfiles import check_kind, colours_of, load_net


def load(entry: Entry, device: str, precision: str) -> Dinov2:
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, preprocessing, weights = entry.files()
    check_kind(entry, config, "vit")
    mean, deviation = colours_of(entry, preprocessing)
    # files with a pooler, which DINO has not, are of the same network
    net = load_net(entry, ViTModel, weights, precision, r"pooler\..*", add_pooling_layer=False)
    batch_size = int(entry.options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
    side = int(net.config.image_size)
    return Dinov2(net, input_px=side, mean=mean, deviation=deviation, device=device, batch_size=batch_size)
