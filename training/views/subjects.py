"""Reading a sample's subjects: where they are seen, how large, how alike. Pure functions of rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Annotated

import numpy as np
import numpy.typing as npt

from refloom.schemas.ranges import Number, check_fields
from refloom.training.data.sample import Row

ALL_KINDS = ("object", "whole", "face")
_SAME = (("track", "track_id"), ("identity", "identity"), ("look", "look"))
"""Columns of a subject whose value says that it is one and the same in other samples."""


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
        min_pose_change: 1 - IoU of the masks of such two; a pair without one passes. It keeps near copies apart.
    """

    min_quality: Annotated[float | None, Number(0, 1, none=True)] = None
    min_confidence: Annotated[float | None, Number(0, 1, none=True)] = None
    min_box_share: Annotated[float, Number(0, 1)] = 0.0
    max_box_share: Annotated[float, Number(0, 1)] = 1.0
    max_aspect: Annotated[float | None, Number(1, none=True)] = None
    min_similarity: Annotated[float | None, Number(-1, 1, none=True)] = None
    max_similarity: Annotated[float | None, Number(-1, 1, none=True)] = None
    min_pose_change: Annotated[float | None, Number(0, 1, none=True)] = None

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
        subject, places = row["subjects"][one.subject], (one.appearance, other.appearance)
        cosine = similarity(subject, *places)
        change = of_pair(subject.get("pair_pose_change"), *places)
        return _within(cosine, self.min_similarity, self.max_similarity) and _within(change, self.min_pose_change, None)


def _within(value: float | None, low: float | None, high: float | None) -> bool:
    """Whether a value is within bounds; one that is not known is."""
    return value is None or ((low is None or low <= value) and (high is None or value <= high))


Pair = tuple[Seen, Seen]
"""A subject on the target, and where it may be taken from."""


def may_be_target(row: Row) -> list[int]:
    """Numbers of the pictures that a sample allows as its target: the one that it says, else all. Never a reference."""
    said, listed = row.get("target"), row["pictures"]
    return [
        number for number, picture in enumerate(listed) if said in (None, number) and picture.get("role") != "reference"
    ]


def says_target(row: Row) -> bool:
    """Whether a sample says which picture is its target, as cross samples and directed records do."""
    return row.get("target") is not None


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
    """Cosine of two appearances of a subject; None where it was not measured."""
    return of_pair(subject["similarity"], one, other)


def of_pair(values: Sequence[float | None] | None, one: int, other: int) -> float | None:
    """What a column says of two appearances of a subject; None where it says nothing.

    Args:
        values: of the pairs (0,1), (0,2), ..., (1,2), ...
        one, other: numbers of the appearances.
    """
    if not values or one == other:
        return None
    count = round((1 + sqrt(1 + 8 * len(values))) / 2)
    low, high = sorted((one, other))
    value = values[low * (2 * count - low - 1) // 2 + high - low - 1]
    return None if value is None else float(value)


def elsewhere(row: Row, one: Seen, usable: Iterable[Seen], bounds: Bounds) -> list[Seen]:
    """Appearances of a subject on other pictures than one of its own, within the bounds of the pair.

    Args:
        row: of the sample.
        one: the subject on the target.
        usable: appearances to choose from.
        bounds: of pairs.
    """
    return [
        there
        for there in usable
        if there.subject == one.subject and there.picture != one.picture and bounds.allow_pair(row, one, there)
    ]


def origins_of(pairs: Iterable[Pair]) -> tuple[tuple[int | None], ...]:
    """Of each cut-out the number of its picture, None for the target itself; see `Example.origins`."""
    return tuple((None if there.picture == one.picture else there.picture,) for one, there in pairs)


def other_pictures(row: Row, target: int, bounds: Bounds) -> list[int]:
    """Pictures besides the target that show a subject of the target, within bounds of both; any kind of subject."""
    usable = [seen for seen in seen_on(row, None, ALL_KINDS) if bounds.allow(row, seen)]
    here = [seen for seen in usable if seen.picture == target]
    return sorted({there.picture for one in here for there in elsewhere(row, one, usable, bounds)})


def shown_in(row: Row) -> frozenset[tuple[str, str]]:
    """What a sample shows, as (what, id): its images and videos, tracks, identities and looks of its subjects."""
    pictures, subjects = row["pictures"], row["subjects"]
    found = {("image", picture["image_id"]) for picture in pictures}
    found |= {("video", picture["video_id"]) for picture in pictures}
    found |= {(what, subject.get(name)) for what, name in _SAME for subject in subjects}
    return frozenset((what, same) for what, same in found if same is not None)
