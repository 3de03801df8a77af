"""What a user gives of one subject: pictures, and, where the method uses them, a phrase and a place."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import Refused

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
FULL_PICTURE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """One subject.

    Attributes:
        images: one or more pictures of the same subject, (H, W, 3) uint8 upright sRGB, any sizes;
            `schemas.pictures.decode` makes them of a file.
        phrase: what the subject is called, such as `dog`, best in the words of the prompt.
        boxes: where it may be in the generated picture, xyxy in 0–1; several are one place. None for anywhere.
        mask: the same as a mask (H, W) of the generated picture, any size; True is where.
        scale: strength of this reference relative to the adapter's scale.
    """

    images: tuple[Pixels, ...]
    phrase: str | None = None
    boxes: tuple[Box, ...] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        name = f"the reference {self.phrase!r}" if self.phrase else "a reference"
        if not self.images:
            raise Refused(f"{name} has no image: give one or more")
        for image in self.images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise Refused(
                    f"{name} has an image of shape {image.shape} and type {image.dtype}, not (H, W, 3) uint8: decode "
                    "files with schemas.pictures.decode"
                )
        for box in self.boxes or ():
            x1, y1, x2, y2 = box
            if not (all(map(math.isfinite, box)) and 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
                raise Refused(f"{name} has the box {box}: boxes are x1, y1, x2, y2 with 0 <= x1 < x2 <= 1, likewise y")
        if self.boxes is not None and not self.boxes:
            raise Refused(f"{name} has an empty list of boxes: give one, or None for anywhere")
        if self.mask is not None and (self.mask.ndim != 2 or not self.mask.any()):
            raise Refused(
                f"{name} has a mask of shape {self.mask.shape} with nothing set: (H, W), True where it may be"
            )
        if not math.isfinite(self.scale):
            raise Refused(f"{name} has the scale {self.scale}")

    @property
    def hull(self) -> Box | None:
        """The smallest box around its place; None for anywhere."""
        if self.boxes is not None:
            x1, y1, x2, y2 = zip(*self.boxes, strict=True)
            return min(x1), min(y1), max(x2), max(y2)
        if self.mask is None:
            return None
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        height, width = self.mask.shape
        return (
            float(columns[0] / width),
            float(rows[0] / height),
            float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height),
        )
