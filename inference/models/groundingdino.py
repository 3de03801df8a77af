"""Grounding DINO (Liu et al. 2023, arXiv 2303.05499) as a detector, by `transformers`, from local files."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import GroundingDinoForObjectDetection, GroundingDinoImageProcessor

from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.crops import middle
from refloom.inference.models.detectors import Detection, Pixels, apart
from refloom.inference.models.entry import Entry
from refloom.inference.models.segmenters import check_pixels
from refloom.inference.models.threads import check_device, repeatable
from refloom.inference.models.transformersfiles import check_kind, load_net, load_processor, read_tokenizer

_THIN = 64
"""Longer over shorter side from which only the middle is looked at: the network's feature maps would have no pixel."""


def load(entry: Entry, device: str, precision: str) -> "GroundingDino":
    """The model of the registry's entry.

    Raises:
        Refused: the files are damaged or do not fit each other, or there is no such device.
    """
    check_device(entry.name, device)
    config, _, tokenizer, weights = entry.files()
    check_kind(entry, config, "grounding-dino")
    words = read_tokenizer(entry, tokenizer)
    processor = load_processor(entry, GroundingDinoImageProcessor, weights.parent)
    net = load_net(entry, GroundingDinoForObjectDetection, weights, precision, r".*position_ids")
    if words.get_vocab_size() > net.config.text_config.vocab_size:
        raise entry.damaged(f"{tokenizer.name} has more words than {config.name}")
    return GroundingDino(
        net,
        processor,
        words,
        min_score=entry.thresholds["min_score"],
        max_overlap=entry.options["max_overlap"],
        device=device,
    )


class GroundingDino:
    """A `detectors.Detector`.

    Args:
        net: transformers' `GroundingDinoForObjectDetection` with its weights, in the precision to compute in.
        processor: its `GroundingDinoImageProcessor`: shrinks or grows to a shorter side, and normalises.
        tokenizer: of the `tokenizers` package, BERT's.
        min_score: of a detection: the largest probability over the phrase's tokens, 0 to 1.
        max_overlap: largest IoU of two detections, 0 to 1.
        device: cpu, cuda or cuda:<n>.
    """

    def __init__(
        self,
        net: Any,
        processor: Any,
        tokenizer: Tokenizer,
        *,
        min_score: float,
        max_overlap: float,
        device: str,
    ) -> None:
        self._net, self._device = net.eval().requires_grad_(False).to(device), torch.device(device)
        self._processor, self._tokenizer = processor, tokenizer
        self._tokenizer.enable_truncation(int(net.config.max_text_len))
        self._min_score, self._max_overlap = min_score, max_overlap
        self._one = MicroBatches(1)  # phrases change the features of the picture: nothing is shared by a batch

    def detect(self, pixels: Pixels, phrase: str, max_count: int | None = None) -> list[Detection]:
        """See `detectors.Detector.detect`. What is said after a full stop would be another phrase: there is one."""
        check_pixels(pixels)
        words = " ".join(phrase.lower().replace(".", " ").split())
        if not words:
            raise ValueError("a blank phrase names nothing to look for")
        part = middle(pixels, _THIN)
        ((found, scores),) = self._one.run(lambda one: [self._run(one[0], f"{words}.")], [part])
        sure = scores > self._min_score
        offset = np.array([pixels.shape[1] - part.shape[1], pixels.shape[0] - part.shape[0]] * 2) // 2
        places = found[sure] + offset.astype(np.float32)
        width, height = pixels.shape[1], pixels.shape[0]
        return apart(places, scores[sure].tolist(), width, height, self._max_overlap, max_count)

    @repeatable()
    def _run(self, pixels: Pixels, text: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Boxes (N, 4) in pixels and scores (N,) of all queries."""
        seen = self._processor(np.array(pixels), return_tensors="pt", input_data_format="channels_last")
        encoded = self._tokenizer.encode(text)
        tokens = torch.tensor([encoded.ids, encoded.attention_mask, encoded.type_ids], device=self._device)
        said = self._net(
            pixel_values=seen["pixel_values"].to(self._device, self._net.dtype),
            pixel_mask=seen["pixel_mask"].to(self._device),
            input_ids=tokens[:1],
            attention_mask=tokens[1:2],
            token_type_ids=tokens[2:],
        )
        scores = said.logits[0].float().sigmoid().amax(dim=-1)
        centre, size = said.pred_boxes[0].float().split(2, dim=-1)
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
        side = torch.tensor([pixels.shape[1], pixels.shape[0]] * 2, device=self._device)
        return np.asarray((corners * side).cpu().numpy(), np.float32), np.asarray(scores.cpu().numpy(), np.float64)
