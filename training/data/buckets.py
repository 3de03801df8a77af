"""Aspect buckets: the sizes that targets are trained at. A bucket is chosen from width and height, without decoding."""

from bisect import bisect
from collections.abc import Sequence
from itertools import pairwise
from math import log

from refloom.schemas.errors import Refused

Size = tuple[int, int]
"""(height, width), pixels."""

_STEP = 8
"""Pixels of a latent."""


def square(side_px: int) -> tuple[Size, ...]:
    """The one bucket of recipes that train on squares."""
    return ((side_px, side_px),)


def around(side_px: int, *, step_px: int = 64, max_aspect: float = 2.0) -> tuple[Size, ...]:
    """Sizes of about side x side pixels, never more, from tall to wide; SDXL's own at 1024.

    Args:
        side_px: of the square among them.
        step_px: sides are multiples of it.
        max_aspect: longer over shorter side.

    Returns:
        (height, width) pairs with rising width over height.

    Raises:
        Refused: the square is no multiple of the step.
    """
    if side_px < step_px or side_px % step_px:
        raise Refused(f"side_px {side_px} is no multiple of step_px {step_px}: give one that is")
    found = set()
    for height in range(step_px, side_px + 1, step_px):
        width = side_px * side_px // height // step_px * step_px
        if width <= max_aspect * height:
            found |= {(height, width), (width, height)}
    return tuple(sorted(found, key=lambda size: size[1] / size[0]))


class Buckets:
    """Sizes to train at.

    Args:
        sizes: (height, width), pixels; of two with one aspect a picture takes the first.

    Raises:
        Refused: none, or one that latents of 8 x 8 pixels do not fill.
    """

    def __init__(self, sizes: Sequence[Size]) -> None:
        if not sizes:
            raise Refused("there is no bucket: give one or more sizes (height, width)")
        for size in sizes:
            if min(size) < _STEP or size[0] % _STEP or size[1] % _STEP:
                raise Refused(f"the bucket {size} is not in multiples of {_STEP} pixels: latents could not fill it")
        by_aspect: dict[float, Size] = {}
        for height, width in sizes:
            by_aspect.setdefault(log(width / height), (height, width))
        aspects = sorted(by_aspect)
        self.sizes: tuple[Size, ...] = tuple(by_aspect[aspect] for aspect in aspects)
        self._edges = [(one + other) / 2 for one, other in pairwise(aspects)]

    def __len__(self) -> int:
        return len(self.sizes)

    def of(self, width: int, height: int) -> int:
        """Number of the bucket whose aspect is nearest to a picture's, by ratio."""
        return bisect(self._edges, log(width / height))
