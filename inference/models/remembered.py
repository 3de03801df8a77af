"""What a model made of the inputs that it saw last, so that stages which ask about the same crop compute it once."""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

_MOST = 512
"""Rows that are kept: those of the objects of a few dozen pictures, with 2,280 numbers each 5 MB."""


class Remembered:
    """The rows of a model for crops, by the crops' bytes. Only for a model whose row depends on its own crop alone.

    Args:
        compute: (N, S, S, 3) -> (N, width), for N from 0.
        most: rows that are kept, those that were used last.
    """

    def __init__(self, compute: Callable[[Pixels], Floats], most: int = _MOST) -> None:
        self._compute, self._most = compute, most
        self._rows: OrderedDict[bytes, Floats] = OrderedDict()

    def rows(self, crops: Pixels) -> Floats:
        """(N, width) of crops (N, S, S, 3); those that were not seen lately, or stand there twice, go through once."""
        keys = [blake2b(crop.tobytes(), digest_size=16).digest() for crop in crops]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        known = {key: self._rows[key] for key in first if key in self._rows}
        new = sorted(first[key] for key in first if key not in known)
        made = self._compute(crops[new])
        known |= {keys[place]: row for place, row in zip(new, made, strict=True)}
        for key, row in known.items():
            self._rows[key] = row
            self._rows.move_to_end(key)
        while len(self._rows) > self._most:
            self._rows.popitem(last=False)
        return np.stack([known[key] for key in keys]) if keys else made
