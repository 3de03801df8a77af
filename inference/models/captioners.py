"""What a captioner gives, and what a sentence of a caption looks like."""

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_INVENTED = re.compile(r"\baraf\w*\s*", re.IGNORECASE)
"""`arafed`, `araffe`: BLIP large begins many captions with a word that is none."""
_REPEATED = re.compile(r"\b(\w+(?:[ ,]+\w+){0,7})(?:[ ,]+\1\b)+", re.IGNORECASE)
_END = re.compile(r"(?<=\w{3}[.!?])\s+(?=\S)")


class Captioner(Protocol):
    """Says in one sentence what a picture shows.

    The same picture gives the same caption, whatever its neighbours: nothing is drawn at random.
    """

    @property
    def batch_size(self) -> int:
        """Pictures in a pass while memory lasts; other numbers of pictures are filled up to a multiple of it."""
        ...

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """Caption pictures.

        Args:
            pictures: each (H, W, 3) uint8, upright sRGB, of any size from 1x1, N from 0.

        Returns:
            N sentences as `sentence` makes them; empty where the model had nothing to say.

        Raises:
            ValueError: other pixels than these.
        """
        ...


def check_pictures(pictures: Sequence[Pixels]) -> None:
    """Raise ValueError unless every picture is (H, W, 3) uint8 and not empty."""
    for pixels in pictures:
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise ValueError(f"a picture is (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")


def sentence(text: str) -> str:
    """A model's text as one clean sentence: one line, the first sentence, nothing said twice in a row.

    Args:
        text: what the model's tokenizer decoded.

    Returns:
        Without line breaks, quotes around it, invented words and repeats of up to eight words; may be empty.
    """
    words = " ".join(_INVENTED.sub("", text).split()).strip("\"'` ")
    words = _END.split(re.sub(r"\s+([,.!?])", r"\1", words), maxsplit=1)[0]
    before = ""
    while before != words:
        before, words = words, _REPEATED.sub(r"\1", words)
    return words
