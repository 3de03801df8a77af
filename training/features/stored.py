"""What an example has of the features: tensors by key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # those who plan batches never import torch
    from torch import Tensor

BLANK = "blank"
"""Key of the image features of zero pixels."""


def latents_key(digest: str) -> str:
    """Of the VAE's posterior of a picture: (2, C, h, w), mean and log variance, scaled."""
    return f"latents/{digest}"


def picture_key(digest: str) -> str:
    """Of what the method reads of a reference's picture."""
    return f"picture/{digest}"


def states_key(text: str) -> str:
    """Of the text states of a text: (S, context width)."""
    return f"states/{text}"


def pooled_key(text: str) -> str:
    """Of the pooled state of a text that SDXL's UNet is told: (width,)."""
    return f"pooled/{text}"


def phrase_key(text: str) -> str:
    """Of the first text encoder's pooled state of a phrase: (phrase width,)."""
    return f"phrase/{text}"


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """The features of one example.

    Attributes:
        tensors: by key.
        target: key of the target's latents.
        references: keys of the pictures of each reference.
    """

    tensors: "Mapping[str, Tensor]"
    target: str
    references: tuple[tuple[str, ...], ...] = ()

    @property
    def nbytes(self) -> int:
        """Of all tensors; those that examples share count for each."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
