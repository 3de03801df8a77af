"""What benchmarks of adapters share: UNets, one cross-attention as if it were a UNet, adapters and their conditions.

Weights and references are random; heads and image encoders run once a generation and are left out.
"""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from refloom.inference.adapters.ip_adapter.adapter import IPAdapter, IPAdapterConfig
from refloom.inference.adapters.ip_adapter.heads import HeadConfig, config_values
from refloom.inference.adapters.mip.adapter import MIPAdapter, MIPConditioning
from refloom.inference.adapters.ms_diffusion import adapter as ms_diffusion
from refloom.inference.adapters.ms_diffusion.adapter import MSDiffusion, MSDiffusionConfig
from refloom.inference.adapters.ms_diffusion.conditioning import MSDiffusionConditioning
from refloom.inference.adapters.tokens import TokenAdapter, TokenConditioning

TEXT, CONTEXT, HEAD = 77, 2048, 64
"""Tokens of a prompt, width of SDXL's text states, width of an attention head."""

_PHRASE = 2
"""Tokens of a phrase."""


def sdxl(widths: tuple[int, int, int] = (320, 640, 1280), depths: tuple[int, int, int] = (1, 2, 10)) -> Any:
    """SDXL's UNet, in its true size by default; heads are 64 wide whatever the width."""
    return UNet2DConditionModel(
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=depths,
        attention_head_dim=tuple(width // HEAD for width in widths),
        cross_attention_dim=CONTEXT,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        sample_size=128,
    )


def step_inputs(side: int, **kind: Any) -> dict[str, Any]:
    """What a UNet is called with in one guided step: two rows of latents side x side."""
    return {
        "sample": torch.randn(2, 4, side, side, **kind),
        "timestep": torch.tensor(500, device=kind["device"]),
        "encoder_hidden_states": torch.randn(2, TEXT, CONTEXT, **kind),
        "added_cond_kwargs": {"text_embeds": torch.randn(2, 1280, **kind), "time_ids": torch.ones(2, 6, **kind)},
    }


class OneLayer(nn.Module):
    """A single cross-attention that adapters take for a UNet.

    Args:
        width: of the layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn2 = Attention(width, CONTEXT, heads=width // HEAD, dim_head=HEAD)
        self.config = SimpleNamespace(cross_attention_dim=CONTEXT)

    @property
    def attn_processors(self) -> dict[str, Any]:
        """As of a UNet."""
        return {"attn2.processor": self.attn2.processor}

    def set_attn_processor(self, processors: dict[str, Any]) -> None:
        """As of a UNet."""
        self.attn2.set_processor(processors["attn2.processor"])

    def forward(
        self, sample: Tensor, hidden: Tensor, encoder_hidden_states: Tensor, cross_attention_kwargs: Any = None
    ) -> Tensor:
        """The layer; of the sample the shape alone matters, to adapters."""
        return self.attn2(hidden, encoder_hidden_states, **(cross_attention_kwargs or {}))


def layer_inputs(width: int, side: int, **kind: Any) -> dict[str, Any]:
    """What `OneLayer` is called with: two rows on a grid side x side."""
    return {
        "sample": torch.empty(2, 4, side, side, device=kind["device"], dtype=kind["dtype"]),
        "hidden": torch.randn(2, side * side, width, **kind),
        "encoder_hidden_states": torch.randn(2, TEXT, CONTEXT, **kind),
    }


def _ip_adapter(unet: Any, tokens: int) -> IPAdapter:
    return IPAdapter(IPAdapterConfig(**config_values(unet, head="plain", image_width=8, tokens=tokens)))


def _mip(unet: Any) -> MIPAdapter:
    return MIPAdapter(HeadConfig(**config_values(unet, head="plain", image_width=8, tokens=16)))


def _ms_diffusion(unet: Any, threshold: float | None = None) -> MSDiffusion:
    small = {"image_width": 8, "phrase_width": 8, "width": 8, "depth": 1, "heads": 1, "head_width": 8}
    adapter = MSDiffusion(MSDiffusionConfig(**ms_diffusion.config_values(unet), **small))
    adapter.mask_threshold, adapter.start_step = threshold, 1
    return adapter


KINDS: dict[str, Callable[[Any], TokenAdapter]] = {
    "ip_adapter": lambda unet: _ip_adapter(unet, 4),
    "ip_adapter plus": lambda unet: _ip_adapter(unet, 16),
    "mip plus": _mip,
    "ms_diffusion": _ms_diffusion,
    "ms_diffusion, auto layout": lambda unet: _ms_diffusion(unet, threshold=0.5),
    "64 tokens": lambda unet: _ip_adapter(unet, 64),
}
"""By name. EasyRef with fused LoRA is the last: 64 tokens for any number of references."""


def cases(references: tuple[int, ...]) -> list[tuple[str, int]]:
    """Kinds with numbers of references."""
    return [(kind, number) for kind in KINDS for number in (references if kind != "64 tokens" else (1,))]


def conditions(adapter: TokenAdapter, references: int) -> TokenConditioning:
    """Random conditions of one prompt, as `encode` would make them."""
    tokens = torch.randn(1, references, adapter.config.tokens, CONTEXT)
    ones = torch.ones(1, references)
    common = {"tokens": tokens, "strengths": ones, "present": ones.bool()}
    if isinstance(adapter, MSDiffusion):
        edges = torch.linspace(0, 1, references + 1)
        boxes = torch.stack([torch.tensor([left, 0.2, right, 0.9]) for left, right in pairwise(edges)])
        spans = torch.zeros(1, references, TEXT)
        for at in range(references):
            spans[0, at, 2 + 3 * at] = 1
        masks = torch.zeros(1, references, 256, 256, dtype=torch.bool)
        return MSDiffusionConditioning(
            **common, negative_tokens=None, boxes=boxes[None, :, None], masks=masks, spans=spans
        )
    if isinstance(adapter, MIPAdapter):
        states = torch.randn(1, references, _PHRASE, CONTEXT)
        rows = torch.full((1, references, _PHRASE), 1 / _PHRASE)
        return MIPConditioning(
            **common,
            negative_tokens=torch.zeros_like(tokens),
            phrase_states=states,
            phrase_rows=rows,
            negative_phrase_states=states[:, :1],
        )
    return TokenConditioning(**common, negative_tokens=torch.zeros_like(tokens))
