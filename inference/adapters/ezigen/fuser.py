"""Where EZIGen's attention lies in a transformer block: diffusers' place for GLIGEN, and what is put there."""

from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor
from torch.nn import functional

from refloom.inference.adapters import merge
from refloom.inference.adapters.attention import Acting, split_heads
from refloom.schemas.errors import Refused


class FeatureSlot:
    """One EZIGen adapter's place in one transformer block. A plain object: it stays out of the UNet's state dict.

    Attributes:
        layer: the adapter's weights in this block.
        heads: of the block's own self-attention.
        key, value: (R, H, S, D) each, of the subjects, once bound.
        bias: (R, 1, 1, S), logarithm of the strengths; None if all are 1.
        amount: (R, 1, 1), factor of all that is added; None if it is 1.
    """

    def __init__(self, acting: Acting, layer: Any, heads: int) -> None:
        self.acting, self.layer, self.heads = acting, layer, heads
        self.clear()

    def clear(self) -> None:
        """Forget a generation."""
        self.key: Tensor | None = None
        self.value: Tensor | None = None
        self.bias: Tensor | None = None
        self.amount: Tensor | None = None

    def add(self, hidden_states: Tensor) -> Tensor:
        """The residual stream after the adapter, spec A.1.4; the norm's output is a second residual there.

        Args:
            hidden_states: (M, T, C), after self-attention.
        """
        start, adapter = self.acting.start, self.layer.adapter
        if self.key is None or self.value is None:
            raise RuntimeError("a slot acts before it was bound")
        stream = hidden_states[start:]
        norm = self.layer.adapter_norm
        own = functional.layer_norm(
            stream, norm.normalized_shape, _like(norm.weight, stream), _like(norm.bias, stream), norm.eps
        )
        query = split_heads(project(adapter.to_q, own), self.heads)
        key = torch.cat([split_heads(project(adapter.to_k, own), self.heads), self.key.to(query.dtype)], dim=2)
        value = torch.cat([split_heads(project(adapter.to_v, own), self.heads), self.value.to(query.dtype)], dim=2)
        bias = None if self.bias is None else functional.pad(self.bias, (own.shape[1], 0)).to(query.dtype)
        added = project(adapter.to_out[0], merge.attend(query, key, value, bias)) + own
        if self.amount is not None:
            added = added * self.amount.to(added.dtype)
        return torch.cat([hidden_states[:start], stream + added]) if start else stream + added


class Fuser:
    """What a block calls between self- and cross-attention, which is diffusers' place for GLIGEN. A plain object."""

    def __init__(self) -> None:
        self.slots: list[FeatureSlot] = []

    def __call__(self, hidden_states: Tensor, objs: None) -> Tensor:
        """See diffusers' `BasicTransformerBlock`."""
        for slot in self.slots:
            if slot.acting.acts:
                hidden_states = slot.add(hidden_states)
        return hidden_states


def no_objects() -> None:
    """In place of GLIGEN's network of boxes."""


def check_block(path: str, block: Any) -> None:
    """Refuse a block that may not call its fuser.

    Raises:
        Refused: its class has another way of computing than diffusers' own.
    """
    if type(block).forward is not BasicTransformerBlock.forward:
        raise Refused(
            f"{path} was made a {type(block).__qualname__} of {type(block).__module__}, which does not call what "
            "EZIGen puts into blocks: take off what patched it, such as token merging"
        )


def lost(place: str, found: Any) -> str:
    """Why an adapter without this place is refused."""
    now = "is gone" if found is None else f"is a {type(found).__name__} of another's now"
    return (
        f"{place}, by which the ezigen adapter acts, {now}, so that references would have no effect: call "
        "detach(), and attach(pipe) again"
    )


def _like(parameter: Tensor, states: Tensor) -> Tensor:
    return parameter.to(states.dtype)


def project(linear: Any, states: Tensor) -> Tensor:
    """A linear layer in the precision of the states, which may be lower than the adapter's."""
    bias = None if linear.bias is None else _like(linear.bias, states)
    return functional.linear(states, _like(linear.weight, states), bias)
