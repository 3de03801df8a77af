"""IP-Adapter (Ye et al. 2023, arXiv 2308.06721), plain and plus: the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from refloom.inference.adapters import merge
from refloom.inference.adapters.ip_adapter.heads import HeadAdapter, HeadConfig, strengths
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.tokens import TokenConditioning, TokenSlot

Combine = Literal["joint", "sum", "average"]


@dataclass(frozen=True, kw_only=True)
class IPAdapterConfig(HeadConfig):
    """As `HeadConfig`.

    Attributes:
        combine: several references under one `joint` softmax, as diffusers does; as the `sum` of their own attentions;
            or as the `average` of their tokens, weighted by their scales.
    """

    combine: str = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.combine not in get_args(Combine):
            raise ValueError(f"combine is one of {', '.join(get_args(Combine))}, not {self.combine!r}")


class JointSlot(TokenSlot):
    """All references under one softmax."""

    def add(self, attn: Any, query: Tensor, text_key: Tensor, text: Tensor) -> Tensor:
        """See `Slot.add`."""
        key, value = self.bound(query)
        return merge.joint(query, key, value, self.present)


class SummedSlot(TokenSlot):
    """Every reference under a softmax of its own."""

    def add(self, attn: Any, query: Tensor, text_key: Tensor, text: Tensor) -> Tensor:
        """See `Slot.add`."""
        key, value = self.bound(query)
        return merge.summed(query, key, value)


class IPAdapter(HeadAdapter):
    """IP-Adapter on a stock pipeline."""

    kind = "ip_adapter"
    Config = IPAdapterConfig
    reads = frozenset()

    def make_slot(self, attn: Any, layer: Any) -> TokenSlot:
        """See `TokenAdapter.make_slot`."""
        return (SummedSlot if self.config.combine == "sum" else JointSlot)(self._acting, layer, attn.heads)

    def encode(self, references: Sequence[Reference], *, prompt: str | None = None) -> TokenConditioning:
        """See `Adapter.encode`; `tokens.stack` makes a batch. Phrases, places and the prompt are not read."""
        tokens, (scales, present) = self.image_tokens(references), strengths(references)
        if self.config.combine == "average":
            total = scales.sum()
            weight = (scales / total if total else torch.full_like(scales, 1 / len(references))).to(tokens)
            tokens = (tokens * weight[..., None, None]).sum(dim=1, keepdim=True)
            scales, present = scales.mean(dim=1, keepdim=True), present[:, :1]
        return TokenConditioning(
            tokens=tokens, negative_tokens=self.null_tokens().expand_as(tokens), strengths=scales, present=present
        )
