"""A sample as views read it: what Parquet says of it, and its pictures, decoded when they are asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.schemas import headers, pictures
from refloom.schemas.errors import Rejected

Row = dict[str, Any]
"""A row of `samples` without `images`."""

Pixels = npt.NDArray[np.uint8]


class Sample:
    """One sample.

    Attributes:
        row: of `samples`, without `images`.
    """

    def __init__(self, row: Row, images: Sequence[Any]) -> None:
        """Nothing is decoded yet.

        Args:
            row: of `samples`, without `images`.
            images: bytes of each picture, anything with the buffer protocol; None where there are none.
        """
        self.row = row
        self._images = images
        self._pixels: dict[int, Pixels] = {}

    def pixels(self, picture: int) -> Pixels:
        """A picture, (H, W, 3) uint8 upright sRGB; decoded once however often it is asked for.

        Raises:
            Rejected: it does not decode, or not to the size that the row says.
        """
        if picture not in self._pixels:
            data = self._images[picture]
            if data is None:
                raise Rejected("decode_error", "there are no bytes")
            data = bytes(data)
            found = pictures.decode(data, headers.read(data))
            said = self.row["pictures"][picture]
            if found.shape[:2] != (said["height"], said["width"]):
                raise Rejected(
                    "size_mismatch", f"{found.shape[1]}x{found.shape[0]}, not {said['width']}x{said['height']}"
                )
            self._pixels[picture] = found
        return self._pixels[picture]
