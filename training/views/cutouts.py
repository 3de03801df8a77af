"""Reference pictures: subjects on plain grounds, faces, whole pictures. Cutting is the models' own (`inference`)."""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt

from refloom.inference.models.crops import cut_out
from refloom.schemas import boxes, masks
from refloom.schemas.masks import Mask as Encoded
from refloom.schemas.ranges import Number, Whole, check_fields
from refloom.training.data.sample import Pixels, Row, Sample
from refloom.training.views.frame import shrunk
from refloom.training.views.subjects import Seen, appearance_of, sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """How a subject is cut out for the image encoder: a square, its aspect kept.

    Attributes:
        side_px: of the square.
        ground: grey value around the subject: 255 white, 0 black.
        masked: only the subject's pixels; False keeps the whole box.
        hull: fill the mask between its outermost pixels of every row and column, as MIP-Adapter's loader does (spec
            B3.3). It swallows what lies in front of the subject.
        flip: share that is mirrored.
    """

    side_px: Annotated[int, Whole(8, 8192)] = 224
    ground: Annotated[int, Whole(0, 255)] = 255
    masked: bool = True
    hull: bool = False
    flip: Annotated[float, Number(0, 1)] = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def of(
        self,
        sample: Sample,
        seen: Seen,
        rng: np.random.Generator,
        *,
        margin: float = 1.0,
        flip: float | None = None,
    ) -> Pixels:
        """A subject: (side_px, side_px, 3).

        Args:
            sample: that holds it.
            seen: which subject on which picture.
            rng: draws the flip.
            margin: side of the square over the longer side of the subject.
            flip: share that is mirrored, in place of its own.

        Raises:
            Rejected: the picture or the mask is damaged.
        """
        appearance = appearance_of(sample.row, seen)
        pixels = sample.pixels(seen.picture)
        box = boxes.pad(appearance["box"], pixels.shape[1], pixels.shape[0])
        inside = None
        if self.masked and appearance["mask"] is not None:
            inside = masks.decode_box(appearance["mask"], box)
            inside = filled(inside) if self.hull else inside
        square = cut_out(pixels, inside, box, max(1, round(self.side_px / margin)), self.ground)
        if square.shape[0] < self.side_px:
            square = _centred(square, self.side_px, self.ground)
        return mirrored(square) if rng.random() < (self.flip if flip is None else flip) else square


def filled(inside: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A mask with everything set that lies between set pixels in its row and in its column.

    A pixel counts if the mask is set at or before it and after it, in both directions, so the last set pixel of each
    row and column is lost.
    """
    before = [np.maximum.accumulate(inside, axis=axis) for axis in (0, 1)]
    after = []
    for axis in (0, 1):
        reached = np.flip(np.maximum.accumulate(np.flip(inside, axis), axis=axis), axis)
        ahead = np.zeros_like(reached)
        if axis == 0:
            ahead[:-1] = reached[1:]
        else:
            ahead[:, :-1] = reached[:, 1:]
        after.append(ahead)
    out: npt.NDArray[np.uint8] = np.bitwise_and.reduce([*before, *after])
    return out


def largest_part(mask: Encoded, box: npt.ArrayLike) -> float:
    """Largest connected part over the whole mask, 0..1; below 10 pixels 0 (spec A.3.1-3).

    Raises:
        Rejected: `bad_mask`.
    """
    height, width = mask["size"]
    inside = masks.decode_box(mask, boxes.pad(box, width, height))
    areas = cv2.connectedComponentsWithStats(inside, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    total = int(areas.sum()) if len(areas) else 0
    return float(areas.max() / total) if total >= 10 else 0.0


def mask_share(row: Row, seen: Seen) -> float:
    """Mask (else box) over picture, 0..1."""
    appearance, picture = appearance_of(row, seen), row["pictures"][seen.picture]
    whole = float(picture["width"] * picture["height"])
    if appearance["mask"] is not None:
        return float(masks.areas([appearance["mask"]])[0]) / whole
    width, height = sides(appearance["box"])
    return width * height / whole


def face_rect(
    box: npt.ArrayLike, width: int, height: int, rng: np.random.Generator, max_margin: float = 0.49
) -> tuple[int, int, int, int]:
    """EasyRef's square around a face, with a drawn margin, inside the picture where it can be (spec A3.2).

    Args:
        box: (4,) xyxy, pixels.
        width, height: of the picture, pixels.
        rng: draws the margin.
        max_margin: largest margin on every side, as a share of the face's longer side.

    Returns:
        x0, y0, x1, y1, whole pixels inside the picture.
    """
    x0, y0, x1, y1 = (float(edge) for edge in np.asarray(box, np.float64))
    side = max(2 * ((int(x1 - x0) + 1) // 2), 2 * ((int(y1 - y0) + 1) // 2), 2)
    left, top = int(x0 + x1) // 2 - side // 2, int(y0 + y1) // 2 - side // 2
    drawn = int(rng.integers(0, round(max_margin * 100) + 1)) / 100
    grow = int(min(drawn, (width / side - 1) / 2, (height / side - 1) / 2) * side)  # toward zero; less than 0 shrinks
    left, top, side = left - grow, top - grow, min(side + 2 * grow, width, height)
    left = min(max(left, 0), width - side)
    top = min(max(top, 0), height - side)
    return left, top, left + side, top + side


def face(
    sample: Sample, seen: Seen, rng: np.random.Generator, *, max_margin: float, flip: float, max_area_px: int
) -> Pixels:
    """The face of a subject on a picture as a square; arguments as of `face_rect` and `whole`."""
    pixels = sample.pixels(seen.picture)
    box = appearance_of(sample.row, seen)["face"]["box"]
    x0, y0, x1, y1 = face_rect(box, pixels.shape[1], pixels.shape[0], rng, max_margin)
    square = shrunk(pixels[y0:y1, x0:x1], max_area_px)
    return mirrored(square) if rng.random() < flip else square


def whole(sample: Sample, picture: int, max_area_px: int) -> Pixels:
    """A picture as it is, shrunk to at most `max_area_px` pixels."""
    return shrunk(sample.pixels(picture), max_area_px)


def mirrored(pixels: Pixels) -> Pixels:
    """Left to right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _centred(square: Pixels, side: int, ground: int) -> Pixels:
    out = np.full((side, side, 3), ground, np.uint8)
    start = (side - square.shape[0]) // 2
    out[start : start + square.shape[0], start : start + square.shape[1]] = square
    return out
