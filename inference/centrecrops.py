"""The square in the middle of a picture that image encoders see. Pure functions."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from refloom.inference.models.crops import middle

Pixels = npt.NDArray[np.uint8]

_THIN = 64
"""Pictures that are longer are cut before they are resized: whole, a strip of 20,000 x 1 would take gigabytes. Up to
here the pixels are torchvision's, which decide when EZIGen stops."""


def centre_crop(picture: Pixels, short: int, side: int, *, rounded: bool = False) -> Pixels:
    """The middle of a picture whose short side is resized first, bicubic on 8 bits with antialiasing.

    Args:
        picture: (H, W, 3) uint8.
        short: what the short side becomes, pixels; the long one is rounded down, as torchvision and transformers do.
        side: of the square, at most `short`.
        rounded: where the middle lies between two pixels, round to even, as torchvision does (OpenAI's CLIP, DINO);
            otherwise down, as transformers does.

    Returns:
        (side, side, 3) uint8.
    """
    picture = middle(picture, _THIN)
    height, width = picture.shape[:2]
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = Image.fromarray(np.ascontiguousarray(picture))
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = ((round(gap / 2) if rounded else gap // 2) for gap in (scaled[0] - side, scaled[1] - side))
    return np.asarray(image.crop((left, top, left + side, top + side)))
