"""What a view makes of a sample and a trainer learns from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.inference.adapters.reference import Reference
from refloom.training.data.buckets import Size
from refloom.training.data.sample import Pixels
from refloom.training.features.stored import Stored

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drops:
    """Which conditions of an example are dropped; the trainer puts the method's null condition in their place.

    Attributes:
        text: the caption.
        image: the references.
        grounding: phrases and boxes, where the method reads them.
    """

    text: bool = False
    image: bool = False
    grounding: bool = False


@dataclass(frozen=True, slots=True)
class SizeCondition:
    """SDXL's micro-conditioning (arXiv 2307.01952, section 2.2).

    Attributes:
        original_size: (height, width) of the picture before it was resized.
        crop_top_left: (top, left) of the crop in the resized picture.
        target_size: (height, width) that is trained at.
    """

    original_size: Size
    crop_top_left: tuple[int, int]
    target_size: Size

    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """In the order that SDXL's UNet reads them."""
        return (*self.original_size, *self.crop_top_left, *self.target_size)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sample as one training step sees it.

    Attributes:
        sample_id: of the sample.
        target: (H, W, 3) uint8 sRGB; (0, 0, 3) where features stand for it.
        caption: of the target; empty if it has none. Kept when text is dropped: phrases are looked for in it.
        references: each with the pictures that the encoder reads, and, where the method uses them, phrase and boxes
            in 0-1 of the target. Kept when images are dropped: phrases stay real.
        masks: of each reference the (H, W) mask of its subject in the target; None where there is none.
        drops: which conditions are dropped.
        sizes: SDXL's micro-conditioning.
        position: in the stream: what noise and timestep are drawn from.
        stored: what frozen models make of it, where that was computed before.
        dataset: that the sample is of: several may use the same ids.
        instructed: whether the caption is an instruction, whose numbers count the references.
        origins: of each reference the pictures of the sample that its images are of; None is the target itself.
        shows: what the sample shows, see `subjects.shown_in`.
    """

    sample_id: str
    target: Pixels
    caption: str
    references: tuple[Reference, ...]
    masks: tuple[Mask | None, ...]
    drops: Drops
    sizes: SizeCondition
    position: int = -1
    stored: Stored | None = None
    dataset: str = ""
    instructed: bool = False
    origins: tuple[tuple[int | None, ...], ...] = ()
    shows: frozenset[tuple[str, str]] = frozenset()

    @property
    def nbytes(self) -> int:
        """Of all pixels, masks and features."""
        references = sum(image.nbytes for reference in self.references for image in reference.images)
        masks = sum(mask.nbytes for mask in self.masks if mask is not None)
        return self.target.nbytes + references + masks + (self.stored.nbytes if self.stored else 0)


def targets(examples: tuple[Example, ...]) -> Pixels:
    """Targets of B examples of one bucket, (B, H, W, 3) uint8; normalise where the model is."""
    return np.stack([example.target for example in examples])
