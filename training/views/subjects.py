"""Reading a sample's subjects: where they are seen, how large, how alike. Pure functions of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Annotated

import numpy as np
import numpy.typing as npt

from refloom.schemas.ranges import Number, check_fields
from refloom.training.data.sample import Row

ALL_KINDS = ("object", "whole", "face")


@dataclass(frozen=True, slots=True)
class Seen:
    """A subject on a picture.

    Attributes:
        subject: number of the subject in the sample.
        appearance: number of the appearance in the subject.
        picture: number of the picture.
    """

    subject: int
    appearance: int
    picture: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a recipe asks of a subject on a picture beyond what curation has asked; None asks nothing.

    Attributes:
        min_quality: of the object; one without a quality does not pass.
        min_confidence: of its mask or detector, where there is one.
        min_box_share, max_box_share: box over picture.
        max_aspect: longer over shorter side of the box.
        min_similarity, max_similarity: cosine of two appearances that are put together; a pair without one passes.
    """

    min_quality: Annotated[float | None, Number(0, 1, none=True)] = None
    min_confidence: Annotated[float | None, Number(0, 1, none=True)] = None
    min_box_share: Annotated[float, Number(0, 1)] = 0.0
    max_box_share: Annotated[float, Number(0, 1)] = 1.0
    max_aspect: Annotated[float | None, Number(1, none=True)] = None
    min_similarity: Annotated[float | None, Number(-1, 1, none=True)] = None
    max_similarity: Annotated[float | None, Number(-1, 1, none=True)] = None

    def __post_init__(self) -> None:
        check_fields(self)
        for low, high in (("min_box_share", "max_box_share"), ("min_similarity", "max_similarity")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low} {least} is above {high} {most}, so that nothing passes: swap them")

    def allow(self, row: Row, seen: Seen) -> bool:
        """Whether one appearance is within them."""
        appearance = appearance_of(row, seen)
        if self.min_quality is not None and (appearance["quality"] or 0.0) < self.min_quality:
            return False
        confidence = appearance["confidence"]
        if self.min_confidence is not None and confidence is not None and confidence < self.min_confidence:
            return False
        width, height = sides(appearance["box"])
        if self.max_aspect is not None and max(width, height) > self.max_aspect * min(width, height):
            return False
        return self.min_box_share <= box_share(row, seen) <= self.max_box_share

    def allow_pair(self, row: Row, one: Seen, other: Seen) -> bool:
        """Whether two appearances of one subject are neither too different nor too alike."""
        cosine = similarity(row["subjects"][one.subject], one.appearance, other.appearance)
        if cosine is None:
            return True
        low = -1.0 if self.min_similarity is None else self.min_similarity
        high = 2.0 if self.max_similarity is None else self.max_similarity
        return low <= cosine <= high


def seen_on(row: Row, picture: int | None = None, kinds: tuple[str, ...] = ("object",)) -> Iterator[Seen]:
    """Subjects of some kinds on a picture, or on all pictures, in the order of the sample."""
    for number, subject in enumerate(row["subjects"]):
        if subject["kind"] in kinds:
            for index, appearance in enumerate(subject["appearances"]):
                if picture is None or appearance["picture"] == picture:
                    yield Seen(number, index, appearance["picture"])


def appearance_of(row: Row, seen: Seen) -> Row:
    """The entry of `appearances`."""
    found: Row = row["subjects"][seen.subject]["appearances"][seen.appearance]
    return found


def name_of(row: Row, seen: Seen) -> str | None:
    """The subject's phrase; None if it has none."""
    phrase: str | None = row["subjects"][seen.subject]["phrase"]
    return phrase


def sides(box: npt.ArrayLike) -> tuple[float, float]:
    """Width and height of a box, pixels."""
    x0, y0, x1, y1 = (float(edge) for edge in np.asarray(box, np.float64))
    return x1 - x0, y1 - y0


def box_share(row: Row, seen: Seen) -> float:
    """Box over picture, 0..1."""
    width, height = sides(appearance_of(row, seen)["box"])
    picture = row["pictures"][seen.picture]
    return width * height / float(picture["width"] * picture["height"])


def hull(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The smallest box around (N, 4) boxes."""
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])


def shared(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Intersection of two boxes over the smaller one, 0..1."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    smaller = min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))
    return float(np.prod(inner) / max(smaller, 1e-9))


def similarity(subject: Row, one: int, other: int) -> float | None:
    """Cosine of two appearances of a subject; None where it was not measured.

    The column lists the pairs (0,1), (0,2), ..., (1,2), ...
    """
    values = subject["similarity"]
    if not values or one == other:
        return None
    count = round((1 + sqrt(1 + 8 * len(values))) / 2)
    low, high = sorted((one, other))
    return float(values[low * (2 * count - low - 1) // 2 + high - low - 1])


def other_pictures(row: Row, target: int, bounds: Bounds) -> list[int]:
    """Pictures besides the target that show a subject of the target, within bounds of both; any kind of subject."""
    here = [seen for seen in seen_on(row, target, ALL_KINDS) if bounds.allow(row, seen)]
    found = {
        there.picture
        for one in here
        for there in seen_on(row, None, ALL_KINDS)
        if there.subject == one.subject
        and there.picture != target
        and bounds.allow(row, there)
        and bounds.allow_pair(row, one, there)
    }
    return sorted(found)
