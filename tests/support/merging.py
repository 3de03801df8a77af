"""Token merging as tomesd does it: blocks are made another class, whose attentions see tokens merged by pairs.

Its patch remembers the size of the latents in a hook, merges for self-attention, and for cross-attention where it is
told to. Merging neighbours stands for its matching, which is of no matter here.
"""

from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock


class Merging(BasicTransformerBlock):
    """A block that merges."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        timestep: Any = None,
        cross_attention_kwargs: Any = None,
        class_labels: Any = None,
        added_cond_kwargs: Any = None,
    ) -> torch.Tensor:
        """As tomesd's block for diffusers, which knows no fuser."""
        options = cross_attention_kwargs or {}
        across = self.merges_across  # type: ignore[attr-defined]
        pairs = self.merged_pairs  # type: ignore[attr-defined]
        normed = _merged(self.norm1(hidden_states), pairs)
        hidden_states = _unmerged(self.attn1(normed, attention_mask=attention_mask, **options), pairs) + hidden_states
        normed = self.norm2(hidden_states)
        made = self.attn2(
            _merged(normed, pairs) if across else normed,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=encoder_attention_mask,
            **options,
        )
        hidden_states = (_unmerged(made, pairs) if across else made) + hidden_states
        return self.ff(self.norm3(hidden_states)) + hidden_states


def apply_patch(pipe: Any, *, merge_crossattn: bool = False, pairs: int = 1) -> None:
    """Merge from now on; a pair of pairs where `pairs` is 2."""
    unet = pipe.unet
    remove_patch(pipe)
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.__class__ = Merging
            module.merges_across, module.merged_pairs = merge_crossattn, pairs
    unet._tome_hook = unet.register_forward_pre_hook(lambda unet, args: setattr(unet, "_tome_size", args[0].shape[2:]))


def remove_patch(pipe: Any) -> None:
    """Merge no more."""
    for module in pipe.unet.modules():
        if isinstance(module, Merging):
            module.__class__ = BasicTransformerBlock
    if hasattr(pipe.unet, "_tome_hook"):
        pipe.unet._tome_hook.remove()
        del pipe.unet._tome_hook


def _merged(tokens: torch.Tensor, pairs: int) -> torch.Tensor:
    rows, count, width = tokens.shape
    return tokens.reshape(rows, count >> pairs, 1 << pairs, width).mean(dim=2)


def _unmerged(tokens: torch.Tensor, pairs: int) -> torch.Tensor:
    return tokens.repeat_interleave(1 << pairs, dim=1)
