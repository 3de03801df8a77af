"""BLIP (Li et al. 2022, arXiv 2201.12086) as a captioner, by `transformers`, from local files.

Another architecture is another module with a `load` of its own; what a captioner gives is in `captioners`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BlipForConditionalGeneration, BlipImageProcessor

from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.captioners import Pixels, check_pictures, sentence
from refloom.inference.models.entry import Entry
from refloom.inference.models.threads import check_device, repeatable
from refloom.inference.models.transformersfiles import check_kind, load_net, load_processor, read_tokenizer

_BUFFER = "position_ids"
"""Older files hold this buffer among their weights; the architecture makes it anew."""


def load(entry: Entry, device: str, precision: str) -> "Blip":
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, _, tokenizer, weights = entry.files()
    folder = weights.parent
    check_kind(entry, config, "blip")
    words = read_tokenizer(entry, tokenizer)
    processor = load_processor(entry, BlipImageProcessor, folder)
    net = load_net(entry, BlipForConditionalGeneration, weights, precision, rf".*{_BUFFER}")
    return Blip(net, processor, words, options=entry.options, device=device)


class Blip:
    """A `captioners.Captioner`.

    Args:
        net: transformers' `BlipForConditionalGeneration` with its weights, in the precision to compute in.
        processor: its `BlipImageProcessor`: resizes, whatever the aspect, and normalises.
        tokenizer: of the `tokenizers` package; only used to decode.
        options: `num_beams`, `min_new_tokens` and `max_new_tokens` of the beam search; `cpu_batch_size` and
            `cuda_batch_size`, pictures in a pass.
        device: cpu, cuda or cuda:<n>.
    """

    def __init__(
        self, net: Any, processor: Any, tokenizer: Tokenizer, *, options: Mapping[str, float], device: str
    ) -> None:
        self._net, self._device = net.eval().requires_grad_(False).to(device), torch.device(device)
        self._processor, self._tokenizer = processor, tokenizer
        self._search = {
            "do_sample": False,
            "num_beams": int(options["num_beams"]),
            "min_new_tokens": int(options["min_new_tokens"]),
            "max_new_tokens": int(options["max_new_tokens"]),
            "no_repeat_ngram_size": 3,
        }
        self.batch_size = int(options["cpu_batch_size" if device == "cpu" else "cuda_batch_size"])
        self._batches = MicroBatches(self.batch_size)

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `captioners.Captioner.caption`."""
        check_pictures(pictures)
        return self._batches.run(self._run, list(pictures))

    @repeatable()
    def _run(self, pictures: list[Pixels]) -> list[str]:
        # filled up with copies, which end when their model does: the shape is fixed, the search takes no step more
        full = pictures + [pictures[0]] * (self._batches.size - len(pictures))
        pixels = torch.stack([self._prepared(picture) for picture in full])
        tokens = self._net.generate(pixel_values=pixels.to(self._device, self._net.dtype), **self._search)
        texts = self._tokenizer.decode_batch(tokens.cpu().tolist(), skip_special_tokens=True)
        return [sentence(text) for text in texts[: len(pictures)]]

    def _prepared(self, picture: Pixels) -> torch.Tensor:
        made = self._processor(np.ascontiguousarray(picture), return_tensors="pt", input_data_format="channels_last")
        values: torch.Tensor = made["pixel_values"][0]
        return values
