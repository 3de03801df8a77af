"""The processor of a cross-attention that adapters share, and how it gets into a UNet and out again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
    PAGCFGIdentitySelfAttnProcessor2_0,
    PAGIdentitySelfAttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from torch import Tensor

from refloom.inference.adapters import merge
from refloom.schemas.errors import Refused

# what all of these compute is what `CrossAttention` computes for the text, by the layer's own projections
_STOCK = (AttnProcessor2_0, AttnProcessor, SlicedAttnProcessor, XFormersAttnProcessor)

# a pipeline of perturbed attention guidance puts these in while it runs; they use the layer's own projections, too
_PERTURBED = (PAGCFGIdentitySelfAttnProcessor2_0, PAGIdentitySelfAttnProcessor2_0)

_PLAIN = "pipe.unet.set_attn_processor(AttnProcessor2_0()), of diffusers.models.attention_processor"


class Acting:
    """Whether an adapter acts in the current step, and in which rows; one object for all of its slots.

    Attributes:
        acts: whether it acts.
        start: first row of the batch that it acts in, the rows before being the negative half; 0 for all.
    """

    def __init__(self) -> None:
        self.acts = False
        self.start = 0


class Slot(ABC):
    """One adapter's place in one cross-attention. A plain object: what it holds stays out of the UNet's state dict."""

    def __init__(self, acting: Acting) -> None:
        self.acting = acting
        # all slots of the cross-attention, this one among them: whatever processor runs them has this very list
        self.beside: list[Slot] = []

    @abstractmethod
    def add(self, attn: Any, query: Tensor, text_key: Tensor, text: Tensor) -> Tensor:
        """What the references add to the text attention, before the output projection.

        Args:
            attn: diffusers' `Attention`.
            query: (B, H, P, D), of the rows that the adapter acts in.
            text_key: (B, H, S, D), the same rows.
            text: (B, P, C), text attention of the same rows.

        Returns:
            (B, P, C).
        """


class CrossAttention:
    """A cross-attention processor: the stock one where no adapter acts, else text attention plus what slots add.

    Args:
        stock: the processor that was there; it is kept, called and put back. None for diffusers' own, because
            `unload_ip_adapter` makes processors of the classes that it finds, without arguments.
    """

    def __init__(self, stock: Any = None) -> None:
        self.stock: Any = AttnProcessor2_0() if stock is None else stock  # type: ignore[no-untyped-call]
        self.slots: list[Slot] = []

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """See diffusers' attention processors.

        Args:
            attn: diffusers' `Attention`.
            hidden_states: (B, P, C), or (B, C, height, width).
            encoder_hidden_states: (B, S, text width).
            attention_mask: of the text.
            temb: for layers with a spatial norm.

        Returns:
            Of the shape of `hidden_states`.
        """
        if encoder_hidden_states is None or not any(slot.acting.acts for slot in self.slots):
            # the sliced processor knows no temb, which transformer blocks do not give either
            options = {} if temb is None else {"temb": temb}
            return self.stock(  # type: ignore[no-any-return]
                attn,
                hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                attention_mask=attention_mask,
                **options,
            )
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        picture = hidden_states.shape if hidden_states.ndim == 4 else None
        if picture is not None:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        rows, length, _ = encoder_hidden_states.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, length, rows)
            attention_mask = attention_mask.view(rows, attn.heads, -1, attention_mask.shape[-1])
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        fused = type(self.stock) is FusedAttnProcessor2_0
        query, key, value = queries(attn, hidden_states), *text_keys_values(attn, encoder_hidden_states, fused=fused)
        text = merge.attend(query, key, value, attention_mask).to(query.dtype)
        out = text
        for slot in self.slots:
            if slot.acting.acts:
                start = slot.acting.start
                added = slot.add(attn, query[start:], key[start:], text[start:])
                out = torch.cat([out[:start], out[start:] + added]) if start else out + added
        out = attn.to_out[1](attn.to_out[0](out))
        if picture is not None:
            out = out.transpose(-1, -2).reshape(picture)
        if attn.residual_connection:
            out = out + residual
        # a division by 1 is one more pass over the largest tensor here
        return out if attn.rescale_output_factor == 1 else out / attn.rescale_output_factor  # type: ignore[no-any-return]


def queries(attn: Any, hidden_states: Tensor) -> Tensor:
    """(B, P, C) to (B, H, P, D)."""
    query = split_heads(attn.to_q(hidden_states), attn.heads)
    return query if attn.norm_q is None else attn.norm_q(query)


def text_keys_values(attn: Any, states: Tensor, *, fused: bool = False) -> tuple[Tensor, Tensor]:
    """Keys and values of text states (B, S, text width) by the layer's own projections, (B, H, S, D) each.

    Args:
        attn: diffusers' `Attention`.
        states: of the text.
        fused: by the one projection that `fuse_qkv_projections` has made of both.
    """
    if attn.norm_cross:
        states = attn.norm_encoder_hidden_states(states)
    both = attn.to_kv(states).chunk(2, dim=-1) if fused else (attn.to_k(states), attn.to_v(states))
    key, value = (split_heads(one, attn.heads) for one in both)
    return (key if attn.norm_k is None else attn.norm_k(key)), value


def text_keys(attn: Any, states: Tensor) -> Tensor:
    """Keys alone, (..., S, text width) to (..., H, S, D)."""
    flat = states.reshape(-1, *states.shape[-2:])
    if attn.norm_cross:
        flat = attn.norm_encoder_hidden_states(flat)
    key = split_heads(attn.to_k(flat), attn.heads)
    return (key if attn.norm_k is None else attn.norm_k(key)).reshape(*states.shape[:-2], *key.shape[1:])


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(..., S, C) to (..., H, S, D)."""
    return states.reshape(*states.shape[:-1], heads, -1).transpose(-3, -2)


def attentions(unet: Any) -> dict[str, Any]:
    """The UNet's attention modules by path, in the order of `unet.attn_processors`: down, up, mid.

    Raises:
        Refused: this is no UNet with attention processors.
    """
    processors = getattr(unet, "attn_processors", None)
    if not processors:
        raise Refused(f"a {type(unet).__name__} has no attention processors: adapters need a UNet2DConditionModel")
    paths = [name.removesuffix(".processor") for name in processors]
    return {path: unet.get_submodule(path) for path in paths}


def cross_attentions(unet: Any) -> dict[str, Any]:
    """Those of `attentions` that look at the text."""
    return {path: attn for path, attn in attentions(unet).items() if getattr(attn, "is_cross_attention", False)}


def check_stock(modules: Mapping[str, Any], *, kind: str = "adapter") -> None:
    """Refuse attentions that compute something else than the stock ones.

    Args:
        modules: of `attentions` or `cross_attentions`.
        kind: of the adapter, for the message.

    Raises:
        Refused: another kind of processor is installed, and the remedy.
    """
    for path, attn in modules.items():
        if not _computes_stock(attn, attn.processor):
            raise Refused(f"{path} has a {_name(attn.processor)}, which {kind} would displace: {_remedy(attn)}")


def check_projections(modules: Mapping[str, Any], *, kind: str) -> None:
    """Refuse attentions that do not compute by their own `to_q`, `to_k`, `to_v` and `to_out`, to which a LoRA adds.

    Args:
        modules: of `attentions`.
        kind: of the adapter, for the message.

    Raises:
        Refused: another kind of processor is installed, and the remedy.
    """
    for path, attn in modules.items():
        processor = attn.processor
        processor = processor.stock if isinstance(processor, CrossAttention) else processor
        if type(processor) not in _STOCK and type(processor) not in _PERTURBED:
            raise Refused(
                f"{path} has a {_name(processor)}, which the LoRA of {kind} has no effect beside: {_remedy(attn)}"
            )


def put_in(attn: Any, slot: Slot) -> None:
    """Add a slot to a cross-attention, and the shared processor if it is the first."""
    if not isinstance(attn.processor, CrossAttention):
        attn.set_processor(CrossAttention(attn.processor))
    slot.beside = attn.processor.slots
    slot.beside.append(slot)


def keep_in(path: str, attn: Any, slot: Slot, *, kind: str) -> None:
    """See that a slot is still where `put_in` put it; put it back where a stock processor has displaced it.

    Attention slicing, xformers, fused projections and what turns them off put in stock processors, which compute what
    the shared one computes for the text, so that it can take them for its own.

    Args:
        path: of the cross-attention, for the message.
        attn: diffusers' `Attention`.
        slot: that was put in.
        kind: of the adapter, for the message.

    Raises:
        Refused: another kind of processor has displaced it, and the remedy.
    """
    processor = attn.processor
    if type(processor) is CrossAttention and processor.slots is slot.beside:
        return
    if not _computes_stock(attn, processor):
        raise Refused(
            f"{path} has a {_name(processor)} in place of the {kind} adapter's processor, so that references would "
            f"have no effect: {_remedy(attn)}, or take the adapter off with detach()"
        )
    if not isinstance(processor, CrossAttention):
        processor = CrossAttention(processor)
        attn.set_processor(processor)
    # adapters that were attached meanwhile have slots there already
    slot.beside += [other for other in processor.slots if other not in slot.beside]
    for other in slot.beside:
        other.beside = slot.beside
    processor.slots = slot.beside


def take_out(attn: Any, slot: Slot) -> None:
    """Remove a slot; with the last one the stock processor is put back. Others' processors stay where they are."""
    if slot in slot.beside:
        slot.beside.remove(slot)
    if isinstance(attn.processor, CrossAttention) and not attn.processor.slots:
        attn.set_processor(attn.processor.stock)


def forget(unet: Any) -> None:
    """Take processors without slots out of what `unfuse_qkv_projections` would put back."""
    kept: dict[str, Any] = getattr(unet, "original_attn_processors", None) or {}
    for name, processor in kept.items():
        if isinstance(processor, CrossAttention) and not processor.slots:
            kept[name] = processor.stock


def _computes_stock(attn: Any, processor: Any) -> bool:
    if isinstance(processor, CrossAttention):
        return True
    return type(processor) in _STOCK or (type(processor) is FusedAttnProcessor2_0 and hasattr(attn, "to_kv"))


def _name(processor: Any) -> str:
    return type(processor).__name__


def _remedy(attn: Any) -> str:
    processor = attn.processor
    processor = processor.stock if isinstance(processor, CrossAttention) else processor
    if _name(processor).startswith("IPAdapter"):
        return "call pipe.unload_ip_adapter()"
    if type(processor) is FusedAttnProcessor2_0 and hasattr(attn, "to_kv" if attn.is_cross_attention else "to_qkv"):
        return "call pipe.unet.unfuse_qkv_projections()"
    return f"call {_PLAIN}"
