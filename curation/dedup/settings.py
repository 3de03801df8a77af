"""Near-duplicates of pictures and objects: which go, of whom they are copies, and by what that is known.

Pictures are copies by their bytes or their perceptual hash (`images`), objects by their embedding (`objects`) and then
by their pixels (`pixels`); what goes with a picture is on it (`rows`). The best copy stays: by quality, then size, then
id. Nothing is compared inside one video, source group or picture: those are meant to be alike. Copies of evaluation
pictures (`leaks`) go whatever their quality, and without a look at their pixels: one too many is better than one too
few. What is compared is read in `columns`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS

VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dedup:
    """Near-duplicates.

    Attributes:
        by: what is compared, of bytes, phash and embedding; nothing leaves every copy in.
        max_hamming: bits of 64 in which the perceptual hashes of copies, or of one and the mirror image of the other,
            differ at most; null compares no hashes. Of 123 photographs 98 % stay within 4 as JPEG of quality 40 and
            at a quarter of the size, 84 % mirrored, 45 % as the inner 95 % of the sides; of 7,373 pairs of different
            photographs the nearest differ in 12.
        max_whole_hamming: the same for whole pictures that are copies by embedding, where no pixels are asked; 10 holds
            all of the above and 95 % of the inner 95 %.
        min_agreement: of the blocks of two pictures laid over each other, for copies by embedding, see `pixels`; null
            trusts hash and embedding, which take two photographs of one sitting for copies. Where a picture cannot be
            read or has no texture, they are trusted too.
        min_proposed_cosine: of whole pictures that are laid over each other; pairs above `min_cosine` always are.
        min_contrast: pictures with less (standard deviation of grey) have hashes that mean nothing.
        max_aspect_change: relative difference of width / height of copies by hash; the inner 95 % keeps it.
        max_light_change: difference of brightness and of contrast of copies by hash, of 1.
        min_cosine: of copies by embedding; null takes the model's own `near_copy`.
        quality_step: qualities are compared in steps of this, so that among copies of about the same quality the
            larger one stays: shrinking makes a picture sharper.
        near_cells, exact_below: of the neighbour search; see `neighbours.plan`.
        evaluation: folders of pictures, or refloom datasets, whose copies must not be trained on.
    """

    by: tuple[str, ...] = ("bytes", "phash", "embedding")
    max_hamming: int | None = 4
    max_whole_hamming: int = 10
    min_agreement: float | None = 0.8
    min_proposed_cosine: float = 0.65
    min_contrast: float = 0.02
    max_aspect_change: float = 0.1
    max_light_change: float = 0.1
    min_cosine: float | None = None
    quality_step: float = 0.1
    near_cells: int = NEAR_CELLS
    exact_below: int = EXACT_BELOW
    evaluation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.by) - {"bytes", "phash", "embedding"}:
            raise ValueError(f"by names bytes, phash and embedding, not {sorted(unknown)[0]!r}")
        if self.max_hamming is not None and not 0 <= self.max_hamming <= 16:
            raise ValueError(f"max_hamming is 0 to 16 bits of 64, not {self.max_hamming}")
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise ValueError(f"min_agreement is a share above 0 and at most 1, not {self.min_agreement}")
        if self.quality_step <= 0:
            raise ValueError(f"quality_step is more than 0, not {self.quality_step}")


@dataclass(frozen=True, slots=True)
class Copy:
    """Why an item goes: of whom it is a copy, by what, and how alike they are."""

    of: str
    by: str
    similarity: float


def steps(quality: npt.NDArray[np.float64], config: Dedup) -> npt.NDArray[np.float64]:
    """Quality in whole steps; -1 where there is none."""
    return np.nan_to_num(np.floor(quality / config.quality_step + 1e-9), nan=-1.0)
