"""What a user gives of one subject: pictures, and, where the method uses them, a phrase and a place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refloom.inference.adapters.reading import Mask, Pixels, Source, read_mask, read_picture, several
from refloom.inference.ranges import SCALE
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import check

__all__ = ["FULL_PICTURE", "Box", "Crop", "Pixels", "Reference"]

Box = tuple[float, float, float, float]
Crop = Literal["face"]
FULL_PICTURE: Box = (0.0, 0.0, 1.0, 1.0)
_MASK_SIDE = 2048


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Reference:
    """One subject.

    Attributes:
        images: one or more pictures of the same subject, (H, W, 3) uint8 upright sRGB, any sizes.
        phrase: what the subject is called, such as `dog`, best in the words of the prompt.
        boxes: where it may be in the generated picture, xyxy in 0–1; several are one place. None for anywhere.
        masks: the same as masks (H, W) of the generated picture, any sizes; True is where.
        scale: strength of this reference relative to the adapter's scale.
        crop: `face` for the best face of each picture, None for the whole picture. `ReferencePipeline.set_references`
            does it; adapters do not look at it.
    """

    images: tuple[Pixels, ...]
    phrase: str | None
    boxes: tuple[Box, ...] | None
    masks: tuple[Mask, ...] | None
    scale: float
    crop: Crop | None

    def __init__(
        self,
        images: Source | Sequence[Source],
        phrase: str | None = None,
        boxes: Sequence[float] | Sequence[Sequence[float]] | None = None,
        masks: Source | Sequence[Source] | None = None,
        scale: float = 1.0,
        crop: Crop | None = None,
    ) -> None:
        """Read and check a reference.

        Args:
            images: one or more files, folders of files, bytes, Pillow pictures or arrays; see `reading.read_picture`.
            phrase: its name.
            boxes: one box or several.
            masks: one mask or several; see `reading.read_mask`.
            scale: its strength.
            crop: what to cut out of the pictures.

        Raises:
            Refused: something of it cannot be used; the message names the reference.
        """
        name = f"the reference {phrase!r}" if phrase else "a reference"
        try:
            pictures = tuple(read_picture(image) for image in several(images))
            places = None if masks is None else tuple(read_mask(mask) for mask in several(masks))
        except Refused as error:
            raise Refused(f"{name}: {error}") from error
        if not pictures:
            raise Refused(f"{name} has no image: give one or more")
        if places is not None and not (places and all(mask.any() for mask in places)):
            raise Refused(f"{name} has a mask with nothing set: (H, W), True where it may be")
        if not isinstance(phrase, str | None):
            raise Refused(f"{name} has the phrase {phrase!r:.60}: it is a text, or None")
        check(f"the scale of {name}", scale, SCALE)
        if crop not in (None, "face"):
            raise Refused(f"{name} has the crop {crop!r}: it is 'face', or None for the whole picture")
        for field, value in (
            ("images", pictures),
            ("phrase", phrase),
            ("boxes", None if boxes is None else _boxes(boxes, name)),
            ("masks", places),
            ("scale", float(scale)),
            ("crop", crop),
        ):
            object.__setattr__(self, field, value)

    @classmethod
    def described(cls, phrase: str | None, boxes: Sequence[Sequence[float]] | None, scale: float) -> "Reference":
        """A reference whose pictures were read before, by what keeps their features: `images` is empty.

        Args:
            phrase, boxes, scale: as for `Reference`.

        Raises:
            Refused: a box is none, or the scale is out of range.
        """
        check(f"the scale of the reference {phrase!r}", scale, SCALE)
        made = cls.__new__(cls)
        for field, value in (
            ("images", ()),
            ("phrase", phrase),
            ("boxes", None if boxes is None else _boxes(boxes, f"the reference {phrase!r}")),
            ("masks", None),
            ("scale", scale),
            ("crop", None),
        ):
            object.__setattr__(made, field, value)
        return made

    @property
    def mask(self) -> Mask | None:
        """All masks as one, as large as the largest but at most 2,048 pixels a side; None without."""
        if self.masks is None:
            return None
        if len(self.masks) == 1:
            return self.masks[0]
        # of a tall mask and a wide one, all would be as large as both are long
        height, width = (
            min(max(sides), _MASK_SIDE) for sides in zip(*(mask.shape for mask in self.masks), strict=True)
        )
        whole = np.zeros((height, width), np.bool_)
        for mask in self.masks:
            whole |= _stretched(_stretched(mask, height, 0), width, 1)
        return whole

    @property
    def hull(self) -> Box | None:
        """The smallest box around its place; None for anywhere."""
        if self.boxes is not None:
            x1, y1, x2, y2 = zip(*self.boxes, strict=True)
            return min(x1), min(y1), max(x2), max(y2)
        mask = self.mask
        if mask is None:
            return None
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        height, width = mask.shape
        return (
            float(columns[0] / width),
            float(rows[0] / height),
            float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height),
        )


def _stretched(mask: Mask, size: int, axis: int) -> Mask:
    """A mask of another size along an axis; a smaller one is set where anything of the larger one is."""
    have = mask.shape[axis]
    if have > size:
        return np.asarray(np.logical_or.reduceat(mask, np.arange(size) * have // size, axis=axis))
    return np.asarray(mask.take(np.arange(size) * have // size, axis=axis))


def _boxes(boxes: Sequence[float] | Sequence[Sequence[float]], name: str) -> tuple[Box, ...]:
    given = boxes.tolist() if hasattr(boxes, "tolist") else boxes
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise Refused(f"{name} has the boxes {boxes!r:.60}: give one box x1, y1, x2, y2 in 0-1, or a list of them")
    if not given:
        raise Refused(f"{name} has an empty list of boxes: give one, or None for anywhere")
    return tuple(_box(box, name) for box in (given if isinstance(given[0], Sequence | np.ndarray) else [given]))


def _edge(edge: object) -> float:
    if isinstance(edge, bool | str | bytes):
        raise TypeError("no number")
    return float(edge)  # type: ignore[arg-type]


def _box(box: object, name: str) -> Box:
    try:
        x1, y1, x2, y2 = (_edge(edge) for edge in box)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise Refused(f"{name} has the box {box}: boxes are four numbers, x1, y1, x2, y2") from error
    if 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1:
        return x1, y1, x2, y2
    pixels = max(x1, y1, x2, y2) > 2
    raise Refused(
        f"{name} has the box {(x1, y1, x2, y2)}: boxes are x1, y1, x2, y2 with 0 <= x1 < x2 <= 1, likewise y"
        + (": divide pixels by the width and height of the generated picture" if pixels else "")
    )
