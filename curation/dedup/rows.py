"""The rows of `duplicates`: pictures and objects that are copies, and what goes with a picture that is on it.

Pure functions, and the writing of one unit.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refloom.curation.dedup.columns import Things
from refloom.curation.dedup.settings import Copy
from refloom.schemas import boxes
from refloom.schemas.boxes import Boxes
from refloom.schemas.ids import image_of
from refloom.schemas.unit import UnitWriter

_SAME_OBJECT_IOU = 0.5

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The N objects on one picture.

    Attributes:
        ids: object ids.
        kinds: object, whole or face.
        boxes: (N, 4) xyxy, as shares of the picture's sides.
    """

    ids: list[str]
    kinds: list[str]
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class Gone:
    """What was found to be a copy, and what follows.

    Attributes:
        images: id to what it is a copy of.
        objects: the same for objects that are copies themselves, not with their picture.
        on: the objects on the pictures in question: those that go, and those that they are copies of.
    """

    images: Mapping[str, Copy]
    objects: Mapping[str, Copy]
    on: Mapping[str, Seen]

    def rows(self, images: Iterable[str], objects: Iterable[str]) -> Iterator[Row]:
        """Rows for those of some pictures, then of some objects, that go.

        `of` is what stays: what was copied from something that went later is a copy of what that is a copy of.
        """
        for name in images:
            if name in self.images:
                yield self._row("image", name, self.images[name])
        for name in objects:
            copy = self._copy(name)
            if copy is not None:
                yield self._row("object", name, copy)

    def _row(self, kind: str, name: str, copy: Copy) -> Row:
        following: Copy | None = copy
        while following is not None:
            last = following
            # an evaluation picture may have the id of one of the dataset
            following = None if last.by == "leak" else self.images.get(last.of) or self._copy(last.of)
        return {"id": name, "kind": kind, "of": last.of, "by": copy.by, "similarity": copy.similarity}

    def _copy(self, thing: str) -> Copy | None:
        """What an object is a copy of: found so, or with its picture; None if it stays."""
        if thing in self.objects:
            return self.objects[thing]
        copy = self.images.get(image_of(thing))
        if copy is None or copy.by == "leak":
            return copy
        return Copy(self._counterpart(thing, copy.of), copy.by, copy.similarity)

    def _counterpart(self, thing: str, image: str) -> str:
        """The same object on a copy of its picture, else that picture."""
        own, there = self.on[image_of(thing)], self.on.get(image)
        if there is None:
            return image
        place = own.ids.index(thing)
        others = [other for other, kind in enumerate(there.kinds) if kind == own.kinds[place]]
        if others:
            overlap = boxes.iou(own.boxes[place : place + 1], there.boxes[others])[0]
            best = min(range(len(others)), key=lambda row: (-overlap[row], there.ids[others[row]]))
            if overlap[best] >= _SAME_OBJECT_IOU:
                return there.ids[others[best]]
        return image


def seen(things: Things, images: Iterable[int]) -> dict[int, Seen]:
    """The objects on some pictures, by the pictures' places; a picture without objects is left out."""
    order = np.argsort(things.images, kind="stable")
    found = {}
    for image in images:
        rows = order[slice(*np.searchsorted(things.images, (image, image + 1), sorter=order))]
        if len(rows):
            found[image] = Seen(
                [things.ids[row] for row in rows], [things.kinds[row] for row in rows], things.boxes[rows]
            )
    return found


def write_duplicates(images: list[str], objects: list[str], gone: Gone, out: UnitWriter) -> None:
    """The rows of one unit; every item is settled as kept: `select` rejects what has a row, this stage only says so.

    Args:
        images, objects: ids of its items.
        gone: what is a copy, as far as it concerns them.
        out: the unit's writer.
    """
    for row in gone.rows(images, objects):
        out.add("duplicates", row)
    for kind, names in (("image", images), ("object", objects)):
        if names:
            out.expect(kind, len(names))
            out.keep(kind, len(names))
