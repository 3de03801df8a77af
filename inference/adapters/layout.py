"""Where each reference may act: boxes and masks of the target picture as masks of latent tokens, at every resolution.

Boxes are xyxy in 0–1 of the target picture. A token belongs to a box or mask that touches its cell (spec B.1.3). Grids
are (height, width), tokens row by row.
"""

import torch
from torch import Tensor
from torch.nn import functional

Grid = tuple[int, int]


def grids(size: Grid) -> dict[int, Grid]:
    """The token grids that a UNet makes of latents of this size, by their number of tokens.

    Every downsampling halves the sides and rounds up, so a number of tokens names one grid.
    """
    found: dict[int, Grid] = {}
    height, width = size
    while True:
        found[height * width] = (height, width)
        if height == width == 1:
            return found
        height, width = (height + 1) // 2, (width + 1) // 2


def level_of(path: str, levels: int) -> int | None:
    """How often latents have been halved where an attention of a UNet is; None where its path does not say.

    Args:
        path: of the attention in the UNet.
        levels: number of the UNet's down blocks.
    """
    part, _, rest = path.partition(".")
    number = rest.partition(".")[0]
    if part == "mid_block":
        return levels - 1
    if part in ("down_blocks", "up_blocks") and number.isdigit():
        return int(number) if part == "down_blocks" else levels - 1 - int(number)
    return None


def box_masks(boxes: Tensor, grid: Grid) -> Tensor:
    """Boxes (..., 4) as token masks (..., h * w), boolean; a box of zeros covers nothing.

    Edges are found in the precision of the boxes, which the published code has in fp16.
    """
    height, width = grid
    x1, y1, x2, y2 = boxes[..., None].unbind(dim=-2)
    column = torch.arange(width, device=boxes.device)
    row = torch.arange(height, device=boxes.device)
    columns = (column >= (x1 * width).floor()) & (column < (x2 * width).ceil())
    rows = (row >= (y1 * height).floor()) & (row < (y2 * height).ceil())
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def picture_masks(masks: Tensor, grid: Grid) -> Tensor:
    """Masks of the target picture (..., H, W), of any size, as token masks (..., h * w), boolean."""
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    height, width = (max(have, want) for have, want in zip(masks.shape[-2:], grid, strict=True))
    if (height, width) != masks.shape[-2:]:
        flat = functional.interpolate(flat, size=(height, width), mode="nearest")
    pooled = functional.adaptive_max_pool2d(flat, grid)
    return (pooled > 0).reshape(*masks.shape[:-2], grid[0] * grid[1])


def pseudo_masks(maps: Tensor, threshold: float) -> Tensor:
    """Where a phrase draws attention above a threshold (MS-Diffusion, spec B.4.3).

    Args:
        maps: (..., K, P) fp32, mean attention of the phrases; a map of zeros is of a phrase that is not in the prompt.
        threshold: in 0..1 of each map's own range.

    Returns:
        (..., K, P) boolean.
    """
    low, high = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
    return (maps - low) / (high - low + 1e-5) > threshold
