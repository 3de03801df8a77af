"""Pictures and masks of EZIGen's editing: the size to work in, masks on the latents' grid, what is outside a mask."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from refloom.inference.adapters.ezigen.referenceunet import resized
from refloom.inference.adapters.reference import Pixels
from refloom.schemas.errors import Refused
from refloom.schemas.headers import MAX_PIXELS

Mask = npt.NDArray[np.float32]

_LARGEST_ASPECT = 4
"""Of pictures to edit: at 1 : 4 a step costs some ten times what it costs in a square, and beyond that ever more."""


def working_size(
    size: Sequence[int], height: int | None, width: int | None, short: int, multiple: int
) -> tuple[int, int]:
    """Height and width in which a picture is worked on.

    Args:
        size: its own.
        height, width: wanted, or None.
        short: of the short side where nothing is wanted; the aspect is kept.
        multiple: of which both are; 1 rounds down as the published code does.

    Raises:
        Refused: one of the two is given alone, or the picture is too thin to be worked on in its own aspect.
    """
    if height is not None and width is not None:
        return height, width
    if height is not None or width is not None:
        raise Refused("give both height and width to work in, or neither")
    shortest = min(size)
    if max(size) > _LARGEST_ASPECT * shortest:
        raise Refused(
            f"the picture is {size[1]}x{size[0]}, thinner than 1 : {_LARGEST_ASPECT}, which takes too long to edit: "
            "cut out the part around the mask, edit that, and put it back"
        )

    def scaled(side: int) -> int:
        if multiple == 1:
            return short if side == shortest else int(side / shortest * short)
        return max(1, round(side * short / shortest / multiple)) * multiple

    working = scaled(size[0]), scaled(size[1])
    if working[0] * working[1] > MAX_PIXELS:
        raise Refused(
            f"the picture is {size[1]}x{size[0]}, so thin that with a short side of {short} it would be "
            f"{working[1]}x{working[0]}: crop it first, or give height and width to work in"
        )
    return working


def checked_mask(source: Pixels, mask: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The mask as fp32 in 0..1.

    Raises:
        Refused: it is of another size or type, out of range, or empty.
    """
    if mask.shape != source.shape[:2] or mask.dtype.kind not in "bf":
        raise Refused(
            f"the mask is {mask.shape} {mask.dtype}, not {source.shape[:2]} boolean or float in 0..1: resize it to the "
            "picture, and divide 8-bit values by 255"
        )
    wanted = mask.astype(np.float32)
    if not (wanted.min() >= 0 and wanted.max() <= 1 and wanted.any()):
        raise Refused("the mask must be in 0..1 and set where the picture may change")
    return wanted


def latent_mask(
    mask: npt.NDArray[np.float32], size: Sequence[int], *, hard: tuple[tuple[int, int], int] | None = None
) -> Tensor:
    """A mask on the grid of the latents, (1, 1, h, w) in 0..1 with soft edges.

    Args:
        mask: (H, W) fp32 in 0..1.
        size: h, w.
        hard: working size of the picture and side of the square that the published code takes the mask through, where
            only what is 1 counts; None for neither.
    """
    if hard is None:
        grid = torch.from_numpy(mask)[None, None]
        return functional.interpolate(grid, tuple(size), mode="bilinear", antialias=True).clamp(0, 1)
    working, side = hard
    grey = np.repeat(np.rint(mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    full = resized(grey, working, Image.Resampling.BICUBIC)[..., 0] // 255
    square = torch.from_numpy(cv2.resize(full, (side, side)).astype(np.float32))
    return functional.interpolate(square[None, None], tuple(size), mode="bilinear")


def pasted(source: Pixels, edited: Pixels, mask: npt.NDArray[np.float32]) -> Pixels:
    """The edited picture inside the mask, (H, W) in 0..1, and the source outside it to the last bit."""
    share = mask[..., None]
    mixed = edited * share + source * (1 - share)
    return np.rint(mixed).astype(np.uint8)
