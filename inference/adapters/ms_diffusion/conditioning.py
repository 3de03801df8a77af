"""The conditions of MS-Diffusion: tokens of references, and the place of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from refloom.inference.adapters import layout
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.tokens import TokenConditioning

_MASK_SIDE = 256
"""Side of the masks that conditions hold; finer than any grid of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MSDiffusionConditioning(TokenConditioning):
    """As `TokenConditioning`.

    Attributes:
        boxes: (Q, K, M, 4), the place of each reference; boxes of zeros are padding.
        masks: (Q, K, 256, 256) boolean, more of its place.
        spans: (Q, K, 77), weights of each phrase's tokens in the prompt; None without auto layout.
    """

    boxes: Tensor
    masks: Tensor
    spans: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What frozen models make of K references, computed before.

    Attributes:
        features: of the pictures of each reference, (pictures, 1 + patches, image width).
        blank: of zero pixels, (1, 1 + patches, image width).
        pooled: of the phrases, as of `pooled_texts`, (K, phrase width).
    """

    features: Sequence[Tensor]
    blank: Tensor
    pooled: Tensor


def fine_masks(references: Sequence[Reference]) -> Tensor:
    """(K, 256, 256) boolean; empty where a reference has no mask."""
    masks = torch.zeros(len(references), _MASK_SIDE, _MASK_SIDE, dtype=torch.bool)
    for row, reference in zip(masks, references, strict=True):
        if reference.mask is not None:
            row[:] = layout.picture_masks(torch.from_numpy(reference.mask), (_MASK_SIDE, _MASK_SIDE)).reshape(row.shape)
    return masks
