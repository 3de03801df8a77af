"""MIP-Adapter (Huang et al. 2024, arXiv 2409.17920): several references, merged at every position by their phrases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from refloom.inference.adapters import merge
from refloom.inference.adapters.attention import Acting, text_keys
from refloom.inference.adapters.calls import Call
from refloom.inference.adapters.ip_adapter.heads import HeadAdapter, HeadConfig, strengths
from refloom.inference.adapters.phrases import check_names_something, phrase_length
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.tokens import ImageKeyValue, TokenConditioning, TokenSlot, rows_of
from refloom.schemas.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class MIPConditioning(TokenConditioning):
    """As `TokenConditioning`.

    Attributes:
        phrase_states: (Q, K, L, context width), text states of each phrase alone, without the start token.
        phrase_rows: (Q, K, L), 1 / L_k for the L_k tokens of phrase k, 0 behind them.
        negative_phrase_states: (Q, 1, L, context width), the same rows of an empty phrase, which the published code
            uses in the negative half.
    """

    phrase_states: Tensor
    phrase_rows: Tensor
    negative_phrase_states: Tensor


class GatedImageKeyValue(ImageKeyValue):
    """With the gate that decides where references are wanted."""

    def __init__(self, context_width: int, width: int) -> None:
        super().__init__(context_width, width)
        self.text_to_weight = nn.Linear(width, 1, bias=False)


class WeightedSlot(TokenSlot):
    """References weighted by the relevance of their phrases and by the gate."""

    def __init__(self, acting: Acting, layer: Any, attn: Any) -> None:
        super().__init__(acting, layer, attn.heads)
        self._attn = attn
        self._states: Tensor | None = None
        self._rows: Tensor | None = None
        self._index: Tensor | None = None
        self._phrase_key: Tensor | None = None

    def bind_phrases(self, states: Tensor, rows: Tensor, index: Tensor) -> None:
        """What the relevance needs. Where weights are offloaded its keys wait for the first step, which brings them.

        Args:
            states: (U, K, L, context width), distinct phrases.
            rows: (R, K, L), of `merge.relevance`, for every row of the batch.
            index: (R,) into `states`.
        """
        self._states, self._rows, self._index, self._phrase_key = states, rows, index, None
        if self._attn.to_k.weight.device == states.device:
            self._phrase_key = self._keys(states, index)

    def clear(self) -> None:
        """See `TokenSlot.clear`."""
        super().clear()
        self._states = self._rows = self._index = self._phrase_key = None

    def add(self, attn: Any, query: Tensor, text_key: Tensor, text: Tensor) -> Tensor:
        """See `Slot.add`."""
        key, value = self.bound(query)
        weights = merge.gate(text, self.layer.text_to_weight.weight.to(text.device, text.dtype)).transpose(1, 2)
        if key.shape[1] == 1:  # the only reference is all there is to weigh
            return merge.weighted(query, key, value, weights)
        if self._states is None or self._rows is None or self._index is None:
            raise RuntimeError("a slot acts before its phrases were bound")
        if self._phrase_key is None:
            self._phrase_key = self._keys(self._states, self._index)
        return merge.weighted(query, key, value, weights * merge.relevance(query, self._phrase_key, self._rows))

    @torch.no_grad()
    def _keys(self, states: Tensor, index: Tensor) -> Tensor:
        return text_keys(self._attn, states)[index]


class MIPAdapter(HeadAdapter):
    """MIP-Adapter on a stock pipeline, `plain` for the published sdxl and `plus` for sdxl_plus; spec B1.

    With `faithful`, phrases are empty in the negative half, as in the published inference but not in its training; by
    default both halves have the real ones. The two differ only where references differ in `scale`: in the negative half
    all have the same null tokens, so with one strength s for all the sum over references of weight x s x attention is
    s x attention, whatever the weights are, because these sum to 1. The published code has one strength for all.
    """

    kind = "mip"
    Config = HeadConfig
    reads = frozenset({"phrase"})

    def make_layer(self, width: int) -> nn.Module:
        """See `TokenAdapter.make_layer`."""
        return GatedImageKeyValue(self.config.context_width, width)

    def make_slot(self, attn: Any, layer: Any) -> TokenSlot:
        """See `TokenAdapter.make_slot`."""
        return WeightedSlot(self._acting, layer, attn)

    @classmethod
    def judge(cls, references: Sequence[Reference], prompts: Sequence[str], settings: Mapping[str, Any]) -> None:
        """See `Adapter.judge`."""
        _check_phrases([reference.phrase for reference in references])

    def encode(self, references: Sequence[Reference], *, prompt: str | None = None) -> MIPConditioning:
        """See `Adapter.encode`. References need phrases if there are several; places and the prompt are not read."""
        tokens, (scales, present) = self.image_tokens(references), strengths(references)
        states, rows, empty = self.phrases([reference.phrase for reference in references])
        return MIPConditioning(
            tokens=tokens,
            negative_tokens=self.null_tokens().expand_as(tokens),
            strengths=scales,
            present=present,
            phrase_states=states[None],
            phrase_rows=rows[None],
            negative_phrase_states=empty[None],
        )

    @torch.no_grad()
    def phrases(self, phrases: Sequence[str | None], encoded: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of K phrases what `MIPConditioning` has of them: (K, L, width), (K, L), (1, L, width).

        Args:
            phrases: of the references.
            encoded: (K + 1, S, width), text states of the phrases and of the empty text, where they are known.

        Raises:
            Refused: one of several references has no phrase.
        """
        _check_phrases(phrases)
        named = [phrase or "" for phrase in phrases]
        lengths = [phrase_length(self.pipe.tokenizer, phrase) if phrase else 1 for phrase in named]
        longest = max(lengths)
        if encoded is None:
            device = getattr(self.pipe, "_execution_device", self.pipe.device)
            encoded = self.pipe.encode_prompt(
                prompt=[*named, ""], device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )[0]
        states = encoded[:, 1 : 1 + longest]
        rows = torch.zeros(len(named), longest, device=states.device)
        for row, length in zip(rows, lengths, strict=True):
            row[:length] = 1 / length
        return states[:-1], rows, states[-1:]

    def bind(self, call: Call, conditioning: TokenConditioning) -> None:
        """See `TokenAdapter.bind`."""
        if not isinstance(conditioning, MIPConditioning):
            raise Refused("MIP-Adapter needs conditions with phrases: use what its own encode returns")
        super().bind(call, conditioning)
        rows = rows_of(call, len(conditioning.tokens), positive_only=False)
        states, index = conditioning.phrase_states, rows.prompt
        if self.faithful and bool(rows.negative.any()):
            states = torch.cat([states, conditioning.negative_phrase_states.expand_as(states)])
            index = rows.prompt + rows.negative * len(conditioning.phrase_states)
        present = conditioning.present.to(conditioning.phrase_rows)
        weights = rows.pick(conditioning.phrase_rows * present[..., None])
        for slot in self._slots.values():
            slot.bind_phrases(states.to(call.device, call.dtype), weights.to(call.device), index.to(call.device))


def _check_phrases(phrases: Sequence[str | None]) -> None:
    """Refuse several references of which one has no phrase, and phrases that name nothing."""
    if len(phrases) > 1 and not all(phrases):
        raise Refused("MIP-Adapter tells references apart by their phrases: give each one, such as 'dog'")
    for phrase in phrases:
        if phrase:
            check_names_something(phrase)
