"""What an image embedder gives."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class ImageEmbedder(Protocol):
    """Turns square crops into unit vectors.

    On one kind of machine the vector of a crop has the same bytes whatever its neighbours, its place in the batch and
    the size of the batch.
    """

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def input_px(self) -> int:
        """Side of the crops."""
        ...

    def embed(self, batch: Pixels) -> Floats:
        """Embed crops.

        Args:
            batch: (N, input_px, input_px, 3) uint8 sRGB, N from 0.

        Returns:
            (N, dim) unit length.

        Raises:
            ValueError: another shape or type.
        """
        ...
