"""The perceiver resampler that turns many image features into few tokens; keys as in published IP-Adapter files."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.adapters.attention import split_heads


class PerceiverAttention(nn.Module):
    """Latents attend to image features and to themselves. All projections without bias.

    Args:
        width: of features and latents.
        heads: number of heads.
        head_width: of one head.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """(B, T, width) and (B, N, width) give (B, N, width)."""
        latents = self.norm2(latents)
        key, value = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(2, dim=-1)
        out = functional.scaled_dot_product_attention(
            split_heads(self.to_q(latents), self.heads), split_heads(key, self.heads), split_heads(value, self.heads)
        )
        return self.to_out(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def perceiver_layers(width: int, depth: int, heads: int, head_width: int, expansion: int) -> nn.ModuleList:
    """`depth` pairs of attention and feed-forward, for `refine`."""
    return nn.ModuleList(
        nn.ModuleList(
            [
                PerceiverAttention(width, heads, head_width),
                nn.Sequential(
                    nn.LayerNorm(width),
                    nn.Linear(width, width * expansion, bias=False),
                    nn.GELU(),
                    nn.Linear(width * expansion, width, bias=False),
                ),
            ]
        )
        for _ in range(depth)
    )


def refine(layers: Any, features: Tensor, latents: Tensor) -> Tensor:
    """Run latents (B, N, width) over features (B, T, width) through `perceiver_layers`."""
    for attention, feed_forward in layers:
        latents = latents + attention(features, latents)
        latents = latents + feed_forward(latents)
    return latents


class Resampler(nn.Module):
    """IP-Adapter Plus: learned queries over the patches of an image.

    Args:
        image_width: of the image encoder's hidden states.
        context_width: of the UNet's context.
        width, depth, heads, head_width, expansion: of the perceiver.
        tokens: number of queries N.
    """

    def __init__(
        self,
        *,
        image_width: int,
        context_width: int,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        tokens: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)
        self.proj_in = nn.Linear(image_width, width)
        self.proj_out = nn.Linear(width, context_width)
        self.norm_out = nn.LayerNorm(context_width)
        self.layers = perceiver_layers(width, depth, heads, head_width, expansion)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, image width) gives (B, N, context width)."""
        latents = self.latents.expand(len(features), -1, -1)
        latents = refine(self.layers, self.proj_in(features), latents)
        return self.norm_out(self.proj_out(latents))  # type: ignore[no-any-return]


class ImageProjection(nn.Module):
    """IP-Adapter's plain head: one image embedding becomes a few tokens.

    Args:
        image_width: of the embedding.
        context_width: of the UNet's context.
        tokens: N.
    """

    def __init__(self, *, image_width: int, context_width: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(image_width, tokens * context_width)
        self.norm = nn.LayerNorm(context_width)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, image width) gives (B, N, context width)."""
        return self.norm(self.proj(embedding).unflatten(-1, (self.tokens, -1)))  # type: ignore[no-any-return]
