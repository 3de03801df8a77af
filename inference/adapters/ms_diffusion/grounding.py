"""MS-Diffusion's image head: a resampler whose queries come from a phrase and a box (spec B.1.2)."""

import torch
from torch import Tensor, nn

from refloom.inference.adapters.ip_adapter.resampler import perceiver_layers, refine

FREQUENCIES = 8
BOX_WIDTH = FREQUENCIES * 2 * 4


def box_embedding(boxes: Tensor) -> Tensor:
    """Fourier features of boxes: (..., 4) xyxy in 0–1 gives (..., 64).

    For each of 8 frequencies 100^(k/8), the sines of the four coordinates and then their cosines. In the precision of
    the boxes.
    """
    frequency = 100.0 ** (torch.arange(FREQUENCIES, device=boxes.device) / FREQUENCIES)
    angles = boxes[..., None, :] * frequency.to(boxes.dtype)[:, None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class GroundingResampler(nn.Module):
    """Keys as in the published file.

    Args:
        image_width: of the image encoder's hidden states.
        phrase_width: of the first text encoder's pooled state.
        context_width: of the UNet's context.
        width, depth, heads, head_width, expansion: of the perceiver.
        tokens: of a reference N.
    """

    def __init__(
        self,
        *,
        image_width: int,
        phrase_width: int,
        context_width: int,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        tokens: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        given = phrase_width + BOX_WIDTH
        self.latent_proj = nn.Sequential(nn.Linear(given, 2 * given), nn.GELU(), nn.Linear(2 * given, tokens * width))
        self.latent_norm = nn.LayerNorm(width)
        self.grounding_latents = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)
        self.proj_in = nn.Linear(image_width, width)
        self.layers = perceiver_layers(width, depth, heads, head_width, expansion)
        self.attention_norm = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, context_width)
        self.norm_out = nn.LayerNorm(context_width)

    def queries(self, phrases: Tensor, boxes: Tensor, grounded: Tensor) -> Tensor:
        """What asks the image: (B, N, width).

        Args:
            phrases: (B, phrase width), pooled.
            boxes: (B, 4), xyxy in 0–1 of the generated picture.
            grounded: (B,) boolean; where False, learned null latents take the place of phrase and box.
        """
        given = torch.cat([phrases, box_embedding(boxes).to(phrases)], dim=-1)
        latents = self.latent_norm(self.latent_proj(given).reshape(len(given), self.tokens, -1))
        return torch.where(grounded[:, None, None], latents, self.grounding_latents.to(latents))

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Image features (B, T, image width) and queries (B, N, width) give (B, N, context width)."""
        latents = refine(self.layers, self.proj_in(features), queries)
        return self.norm_out(self.proj_out(self.attention_norm(latents)))  # type: ignore[no-any-return]
