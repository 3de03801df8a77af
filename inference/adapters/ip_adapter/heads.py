"""Token adapters that read references with CLIP and one of IP-Adapter's heads: IP-Adapter and MIP-Adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from refloom.inference.adapters.ip_adapter.resampler import ImageProjection, Resampler
from refloom.inference.adapters.reference import Pixels, Reference
from refloom.inference.adapters.tokens import TokenAdapter, layers_of
from refloom.inference.adapters.vision import ClipVision, clip_pixels
from refloom.schemas.errors import Refused

Head = Literal["plain", "plus"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What decides the shapes of an adapter with one of IP-Adapter's heads.

    Attributes:
        head: `plain`, a projection of the pooled image embedding; `plus`, a resampler over its patches.
        image_width: of the embedding, or of the patches.
        context_width: of the UNet's text states.
        layers: width by path of every cross-attention, in the UNet's order.
        tokens: of a reference: 4 and 16 in the published files.
        resampler_width, resampler_depth, resampler_heads, resampler_head_width, resampler_expansion: of `plus`.
    """

    head: str
    image_width: int
    context_width: int
    layers: dict[str, int]
    tokens: int = 4
    resampler_width: int = 1280
    resampler_depth: int = 4
    resampler_heads: int = 20
    resampler_head_width: int = 64
    resampler_expansion: int = 4

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            raise ValueError(f"head is one of {', '.join(get_args(Head))}, not {self.head!r}")


class HeadAdapter(TokenAdapter):
    """An adapter with an image head.

    Attributes:
        image_proj: the head.
        image_encoder: what reads the references; None takes the pipeline's own.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.image_proj = _head(config)
        self.image_encoder: ClipVision | None = None

    @property
    def pooled(self) -> bool:
        """Whether the head reads the pooled embedding, not the patches."""
        return bool(self.config.head == "plain")

    def vision(self) -> ClipVision:
        """The image encoder, checked against the head.

        Raises:
            Refused: there is none, or it is another one than the head was trained with.
        """
        vision = self.image_encoder
        if vision is None:
            model = getattr(self.pipe, "image_encoder", None)
            if model is None:
                raise Refused(
                    f"the {self.kind} adapter reads references with CLIP: set adapter.image_encoder = ClipVision(model)"
                )
            vision = ClipVision(model)
        vision.check(f"the {self.kind} adapter", self.config.image_width, pooled=self.pooled)
        return vision

    def image_tokens(self, references: Sequence[Reference], features: Sequence[Tensor] | None = None) -> Tensor:
        """Tokens of each subject, the mean over its pictures: (1, K, N, context width).

        Args:
            references: the K subjects.
            features: of the pictures of each, as of `image_features`, where they are known; else they are computed.

        Raises:
            Refused: there are no references.
        """
        if not references:
            raise Refused("there are no references: give at least one, or use the pipeline without an adapter")
        if features is None:
            images = [image for reference in references for image in reference.images]
            together = image_features(self.vision(), images, pooled=self.pooled)
            counts = [len(reference.images) for reference in references]
        else:
            together, counts = torch.cat(list(features)), [len(one) for one in features]
        tokens = torch.split(self.project(together), counts)
        return torch.stack([subject.mean(dim=0) for subject in tokens])[None]

    def null_tokens(self, features: Tensor | None = None) -> Tensor:
        """Tokens of no reference, (1, 1, N, context width): of a zero embedding, or of zero pixels (spec B1.5).

        Args:
            features: of zero pixels, (1, T, width), where they are known; else they are computed.
        """
        if self.pooled:
            return self.project(torch.zeros(1, self.config.image_width))[None]
        return self.project(self.vision().blank_patches() if features is None else features)[None]

    def project(self, features: Tensor) -> Tensor:
        """Image features (B, width) or (B, T, width) to tokens (B, N, context width)."""
        weight = next(self.image_proj.parameters())
        return self.image_proj(features.to(weight.device, weight.dtype))  # type: ignore[no-any-return]


def image_features(vision: ClipVision, images: Sequence[Pixels], *, pooled: bool) -> Tensor:
    """What a head reads of pictures: (B, width) pooled, else (B, T, width) of patches."""
    pixels = clip_pixels(images, vision.side)
    return vision.pooled(pixels) if pooled else vision.patches(pixels)


def strengths(references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
    """Factor of each reference and whether it is there, (1, K) each."""
    scales = torch.tensor([[reference.scale for reference in references]])
    return scales, torch.ones_like(scales, dtype=torch.bool)


def config_values(unet: Any, *, head: Head, image_width: int, tokens: int | None = None) -> dict[str, Any]:
    """What every config takes from the UNet that an adapter is made for."""
    return {
        "head": head,
        "image_width": image_width,
        "context_width": int(unet.config.cross_attention_dim),
        "layers": layers_of(unet),
        "tokens": tokens or {"plain": 4, "plus": 16}[head],
    }


def _head(config: Any) -> torch.nn.Module:
    if config.head == "plain":
        return ImageProjection(image_width=config.image_width, context_width=config.context_width, tokens=config.tokens)
    return Resampler(
        image_width=config.image_width,
        context_width=config.context_width,
        width=config.resampler_width,
        depth=config.resampler_depth,
        heads=config.resampler_heads,
        head_width=config.resampler_head_width,
        tokens=config.tokens,
        expansion=config.resampler_expansion,
    )
