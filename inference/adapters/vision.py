"""The CLIP image encoder that most adapters read references with, and the pixels it wants."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from refloom.inference.adapters.ezigen.referenceunet import resized
from refloom.inference.adapters.reference import Pixels
from refloom.inference.centrecrops import centre_crop
from refloom.schemas.errors import Refused

# of RGB in 0–1, OpenAI CLIP and all of OpenCLIP's that adapters use
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: Sequence[Pixels], side: int, *, squash: int | None = None, rounded: bool = False) -> Tensor:
    """Pictures as CLIP sees them: short side to `side` (bicubic, 8 bits), centre crop, normalised.

    Args:
        images: (H, W, 3) uint8 each.
        side: of the crop.
        squash: first resize to a square of this side, whatever the aspect, as MS-Diffusion does.
        rounded: see `centre_crop`; what was published with OpenAI's own code needs it.

    Returns:
        (B, 3, side, side) fp32.
    """
    if squash is not None:
        images = [resized(image, (squash, squash), Image.Resampling.BICUBIC) for image in images]
    crops = [centre_crop(image, side, side, rounded=rounded) for image in images]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(DEVIATION).reshape(3, 1, 1)


class ClipVision:
    """A frozen CLIP image encoder.

    Args:
        model: transformers' `CLIPVisionModelWithProjection`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.side = int(model.config.image_size)

    @property
    def pooled_width(self) -> int:
        """Of `pooled`."""
        return int(self.model.config.projection_dim)

    @property
    def patch_width(self) -> int:
        """Of `patches`."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def pooled(self, pixels: Tensor) -> Tensor:
        """Projected embedding of the whole picture: (B, 3, side, side) gives (B, pooled width)."""
        return self.model(pixels.to(self.model.device, self.model.dtype)).image_embeds  # type: ignore[no-any-return]

    @torch.no_grad()
    def patches(self, pixels: Tensor) -> Tensor:
        """Hidden states before the last layer: (B, 3, side, side) gives (B, 1 + patches, patch width)."""
        output = self.model(pixels.to(self.model.device, self.model.dtype), output_hidden_states=True)
        return output.hidden_states[-2]  # type: ignore[no-any-return]

    def blank_patches(self) -> Tensor:
        """`patches` of zero pixels: (1, 1 + patches, patch width)."""
        return self.patches(torch.zeros(1, 3, self.side, self.side))

    def check(self, name: str, wanted: int, *, pooled: bool) -> None:
        """Refuse to read references for weights that were trained with another encoder.

        Raises:
            Refused: with the encoders that have the wanted width.
        """
        width = self.pooled_width if pooled else self.patch_width
        if width != wanted:
            raise Refused(
                f"{name} wants image features of width {wanted}, this image encoder gives {width}: it is the wrong "
                "one. Known: ViT-H/14 (hidden 1280, projected 1024), ViT-bigG/14 (hidden 1664, projected 1280)"
            )
