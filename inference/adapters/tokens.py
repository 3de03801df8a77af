"""Adapters whose references become tokens: extra keys and values in every cross-attention, once a generation."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.attention import (
    Acting,
    Slot,
    check_stock,
    cross_attentions,
    forget,
    keep_in,
    put_in,
    split_heads,
    take_out,
)
from refloom.inference.adapters.calls import Call, Half
from refloom.schemas.errors import Refused

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConditioning:
    """What the references of one or more prompts became. Q is 1 if all prompts share them, else the number of prompts.

    Attributes:
        tokens: (Q, K, N, context width), N tokens of each of K references.
        negative_tokens: the same for the negative half; None if the adapter does not act there.
        strengths: (Q, K), factor of each reference; 0 for padding.
        present: (Q, K) boolean, False for padding.
    """

    tokens: Tensor
    negative_tokens: Tensor | None
    strengths: Tensor
    present: Tensor

    def __post_init__(self) -> None:
        prompts, references = self.tokens.shape[:2]
        shapes = {tuple(self.strengths.shape), tuple(self.present.shape)}
        if self.tokens.ndim != 4 or shapes != {(prompts, references)} or not references:
            raise Refused(
                f"tokens of shape {tuple(self.tokens.shape)} with strengths {tuple(self.strengths.shape)} and present "
                f"{tuple(self.present.shape)}: (Q, K, N, width) with (Q, K) twice and at least one reference"
            )
        if not bool(self.present.any(dim=1).all()):
            raise Refused("each prompt needs at least one reference; use the pipeline without an adapter otherwise")


Conditions = TypeVar("Conditions", bound="DataclassInstance")


def stack(conditionings: Sequence[Conditions]) -> Conditions:
    """Conditions of several prompts, one each, as those of a batch; references and phrases are padded to the longest.

    Raises:
        Refused: there are none, or they do not belong together.
    """
    if not conditionings:
        raise Refused("there are no conditions to stack: encode the references of at least one prompt")
    first = conditionings[0]
    stacked: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        values = [getattr(conditioning, field.name) for conditioning in conditionings]
        if all(isinstance(value, Tensor) for value in values):
            stacked[field.name] = _joined(values)
        elif all(isinstance(value, Mapping) for value in values):
            stacked[field.name] = {key: _joined([value[key] for value in values]) for key in values[0]}
        elif all(value == values[0] for value in values):
            stacked[field.name] = values[0]
        else:
            raise Refused(f"conditions with {field.name} {values} cannot be in one batch")
    return dataclasses.replace(first, **stacked)


def _joined(values: Sequence[Tensor]) -> Tensor:
    longest = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
    return torch.cat([_padded(value, longest) for value in values])


def _padded(value: Tensor, sizes: list[int]) -> Tensor:
    """With zeros at the end of every dimension but the first."""
    room = [(0, size - have) for size, have in zip(sizes[1:], value.shape[1:], strict=True)]
    return torch.nn.functional.pad(value, [side for pair in reversed(room) for side in pair])


@dataclass(frozen=True, slots=True)
class Rows:
    """Which conditions each row of the batch has, in the rows that the adapter acts in.

    Attributes:
        start: the first such row.
        halves: part of the batch of each of the R rows.
        prompt: (R,) index of the prompt, 0 where all share.
    """

    start: int
    halves: tuple[Half, ...]
    prompt: Tensor

    @property
    def negative(self) -> Tensor:
        """Whether a row is of the negative half, (R,) boolean."""
        return torch.tensor([half == "negative" for half in self.halves])

    def pick(self, values: Tensor) -> Tensor:
        """What each row has of values per prompt: (Q, ...) gives (R, ...)."""
        return values[self.prompt.to(values.device)]


def rows_of(call: Call, prompts: int, *, positive_only: bool) -> Rows:
    """The rows of a call that an adapter acts in.

    Args:
        call: the UNet's call.
        prompts: number of prompts that have conditions of their own, or 1.
        positive_only: leave the negative half alone; it must come first.
    """
    index, of_prompt = call.row_index(prompts)
    halves = tuple(call.halves[half] for half in index)
    start = halves.count("negative") if positive_only else 0
    if positive_only and "negative" in halves[start:]:
        raise Refused(f"the negative half must come first in a batch, not {', '.join(call.halves)}")
    return Rows(start, halves[start:], torch.tensor(of_prompt[start:]))


class ImageKeyValue(nn.Module):
    """Keys and values of reference tokens in one layer; named as in published checkpoints."""

    def __init__(self, context_width: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context_width, width, bias=False)
        self.to_v_ip = nn.Linear(context_width, width, bias=False)


class TokenSlot(Slot):
    """A slot with the keys and values of references.

    Attributes:
        layer: the adapter's own weights in this cross-attention.
        heads: of the cross-attention.
        key, value: (R, K, H, N, D) each, once bound; a reference's strength is a factor of its values.
        present: (R, K) boolean; None if all references are.
    """

    def __init__(self, acting: Acting, layer: Any, heads: int) -> None:
        super().__init__(acting)
        self.layer, self.heads = layer, heads
        self.key: Tensor | None = None
        self.value: Tensor | None = None
        self.present: Tensor | None = None

    def bind(self, tokens: Tensor, strengths: Tensor, present: Tensor, index: Tensor, call: Call) -> None:
        """Compute keys and values once, for distinct conditions, then lay them out for the rows of the batch.

        Args:
            tokens: (U, K, N, width), the distinct ones.
            strengths: (U, K), with the adapter's scale in, 0 where nothing is present.
            present: (U, K) boolean.
            index: (R,) into these, for every row.
            call: where the keys and values are needed.
        """
        weight = self.layer.to_k_ip.weight
        tokens = tokens.to(weight.device, weight.dtype)
        key, value = self.layer.to_k_ip(tokens), self.layer.to_v_ip(tokens)
        value = value * strengths.to(value.device, value.dtype)[..., None, None]
        index = index.to(key.device)
        self.key, self.value = (
            # heads outermost in memory, so that what takes all references for one long one makes a view in every step
            split_heads(states, self.heads)[index]
            .to(call.device, call.dtype)
            .transpose(1, 2)
            .contiguous()
            .transpose(1, 2)
            for states in (key, value)
        )
        self.present = None if bool(present.all()) else present.to(key.device)[index].to(call.device)

    def clear(self) -> None:
        """Forget a generation."""
        self.key = self.value = self.present = None

    def bound(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values in the query's precision, which autocast may have lowered."""
        if self.key is None or self.value is None:
            raise RuntimeError("a slot acts before it was bound")
        return self.key.to(query.dtype), self.value.to(query.dtype)


class TokenAdapter(Adapter):
    """An adapter with decoupled cross-attention.

    Subclasses give `make_slot`, and `make_layer` if they need more weights in a layer. Their config has `context_width`
    and `layers`, width by path of every cross-attention in the UNet's order.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.layers = tree({path: self.make_layer(width) for path, width in config.layers.items()})
        self._acting = Acting()
        self._slots: dict[str, Any] = {}  # of what `make_slot` makes
        # path, attention, slot: looking the attentions up again takes longer than all that is done with them
        self._seats: list[tuple[str, Any, TokenSlot]] = []
        self._bound: tuple[Any, ...] | None = None

    def make_layer(self, width: int) -> nn.Module:
        """The adapter's weights in a cross-attention of this width."""
        return ImageKeyValue(self.config.context_width, width)

    @abstractmethod
    def make_slot(self, attn: Any, layer: Any) -> TokenSlot:
        """The slot of one cross-attention."""

    def layer(self, path: str) -> Any:
        """The adapter's weights in the cross-attention at this path."""
        return self.layers.get_submodule(path)

    @property
    def slots(self) -> Mapping[str, TokenSlot]:
        """The slots by path, where the adapter is attached."""
        return self._slots

    def install(self, unet: Any) -> None:
        """See `Adapter.install`."""
        modules = cross_attentions(unet)
        check_stock(modules, kind=f"the {self.kind} adapter")
        check_layers(self.kind, self.config.layers, self.config.context_width, modules)
        self._slots = {path: self.make_slot(attn, self.layer(path)) for path, attn in modules.items()}
        for path, attn in modules.items():
            put_in(attn, self._slots[path])
        self._seats = [(path, attn, self._slots[path]) for path, attn in modules.items()]

    def check(self, unet: Any, *, first: bool) -> None:
        """See `Adapter.check`."""
        for path, attn, slot in self._seats:
            keep_in(path, attn, slot, kind=self.kind)

    def uninstall(self, unet: Any) -> None:
        """See `Adapter.uninstall`."""
        for _, attn, slot in self._seats:
            take_out(attn, slot)
        forget(unet)
        self._slots, self._seats = {}, []
        self.after()

    def before(self, call: Call, conditioning: TokenConditioning, *, acts: bool) -> None:
        """See `Adapter.before`. Keys and values are computed in the first step that acts, and when the call changes."""
        self._acting.acts = acts
        if not acts:
            return
        layout = (call.rows, call.size, call.halves, call.device, call.dtype, self.scale)
        # while training every step has weights of its own, and its own graph
        if layout != self._bound or torch.is_grad_enabled():
            self.bind(call, conditioning)
            self._bound = layout

    def variants(self, conditioning: TokenConditioning) -> dict[Half, Tensor]:
        """The tokens of each part of a batch, (Q, K, N, width) each; a part without its own has the positive ones."""
        tokens: dict[Half, Tensor] = {"positive": conditioning.tokens}
        if conditioning.negative_tokens is not None:
            tokens["negative"] = conditioning.negative_tokens
        return tokens

    def bind(self, call: Call, conditioning: TokenConditioning) -> None:
        """Lay keys and values into the slots."""
        prompts = len(conditioning.tokens)
        rows = rows_of(call, prompts, positive_only=conditioning.negative_tokens is None)
        self._acting.start = rows.start
        variants = self.variants(conditioning)
        used = [half for half in variants if half == "positive" or half in rows.halves]
        variant = torch.tensor([used.index(half) if half in used else 0 for half in rows.halves])
        tokens = torch.cat([variants[half].expand_as(conditioning.tokens).to(conditioning.tokens) for half in used])
        present = conditioning.present.repeat(len(used), 1)
        # a scale such as 0.7 is not rounded before it meets the weights' own precision
        strengths = (conditioning.strengths.double() * self.scale).repeat(len(used), 1) * present
        for slot in self._slots.values():
            slot.bind(tokens, strengths, present, rows.prompt + variant * prompts, call)

    def after(self) -> None:
        """See `Adapter.after`."""
        self._acting.acts, self._bound = False, None
        for slot in self._slots.values():
            slot.clear()

    @torch.no_grad()
    def start_from_text(self, unet: Any) -> None:
        """Set image keys and values to the UNet's own for text, which is how training starts (IP-Adapter)."""
        for path, attn in cross_attentions(unet).items():
            layer = self.layer(path)
            layer.to_k_ip.weight.copy_(attn.to_k.weight)
            layer.to_v_ip.weight.copy_(attn.to_v.weight)


def layers_of(unet: Any) -> dict[str, int]:
    """Width by path of every cross-attention: the `layers` of a config for this UNet."""
    return {path: attn.inner_dim for path, attn in cross_attentions(unet).items()}


def check_layers(kind: str, layers: Mapping[str, int], context_width: int, modules: Mapping[str, Any]) -> None:
    """Refuse a UNet that differs from the one an adapter is made for.

    Raises:
        Refused: with the first difference.
    """
    for path in sorted(set(layers) ^ set(modules)):
        owner = "the adapter" if path in layers else "this UNet"
        raise Refused(f"the {kind} adapter is made for another base: only {owner} has a cross-attention {path}")
    for path, attn in modules.items():
        if (attn.inner_dim, attn.cross_attention_dim) != (layers[path], context_width):
            raise Refused(
                f"the {kind} adapter is made for another base: {path} is {attn.inner_dim} wide with a context of "
                f"{attn.cross_attention_dim} in this UNet, and {layers[path]} with {context_width} in the adapter"
            )


def tree(modules: Mapping[str, nn.Module]) -> nn.Module:
    """A module that has each of these at its dotted path, so that the paths are the keys of the state dict."""
    root = nn.Module()
    for path, module in modules.items():
        *parents, name = path.split(".")
        at = root
        for parent in parents:
            if parent not in dict(at.named_children()):
                at.add_module(parent, nn.Module())
            at = at.get_submodule(parent)
        at.add_module(name, module)
    return root
