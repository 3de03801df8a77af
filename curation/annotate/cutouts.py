"""Cut-outs of objects on their way to a model: what the stages share that show a model one object at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.annotate.isolate import in_parts, unforeseen
from refloom.curation.annotate.scene import Scene
from refloom.curation.objects import Objects
from refloom.ingest.admission import settle
from refloom.ingest.engine.watch import Watch
from refloom.schemas.errors import Failed
from refloom.schemas.unit import UnitWriter

Pixels = npt.NDArray[np.uint8]
Row = dict[str, Any]

_TOGETHER = 64
"""Crops that wait for a model at least, so that it is not asked for every picture; 10 MB at 224 px."""


@dataclass(frozen=True, slots=True)
class CutOut:
    """An object whose row is still to come.

    Attributes:
        object_id, image_id: whose.
        words: its own phrase, for stages that need one.
        reason: why it is rejected, or None.
        crop: (S, S, 3), or None where it is rejected.
    """

    object_id: str
    image_id: str
    words: str | None
    reason: str | None
    crop: Pixels | None


def together(batch_size: int, watch: Watch, least: int = _TOGETHER) -> int:
    """How many items to hand to a model at once: whole batches, or one where the note must name what it dies of."""
    return 1 if watch.again else -(-least // batch_size) * batch_size


class CutOuts(ABC):
    """An `annotators.Annotator` of objects that hands cut-outs to a model, many at once."""

    stage: str
    kind = "object"
    table: str
    middles = False
    """Whether the model sees of whole pictures only their middle."""

    def __init__(self, side_px: int, batch_size: int, watch: Watch) -> None:
        """Nothing waits.

        Args:
            side_px: of the cut-outs.
            batch_size: of the model.
            watch: where the tracebacks of lost objects go.
        """
        self._side_px, self._together, self._watch = side_px, together(batch_size, watch), watch
        self._waiting: list[CutOut] = []
        self._crops = 0

    @abstractmethod
    def rows(self, shown: list[CutOut]) -> Iterable[Row]:
        """Rows of objects that have a crop, in order; an object's row does not depend on the others."""

    def kept(self, row: Row) -> None:  # noqa: B027
        """Called with every row that is written."""

    def count(self, image: Row, objects: Objects) -> int:
        """Every object is an item."""
        return len(objects)

    def look(self, image: Row, scene: Scene) -> list[CutOut]:
        """Cut-outs of the objects that pass the decode-free filter; the others are rejected for its reason."""
        crops, image_id = scene.crops(self._side_px, middles=self.middles), image["image_id"]
        return [
            CutOut(object_id, image_id, None, scene.filtered[index], crops.get(index))
            for index, object_id in enumerate(scene.objects.ids)
        ]

    def write(self, image: Row, objects: Objects, looked: list[CutOut], out: UnitWriter) -> None:
        """Ask the model whenever enough crops wait."""
        for item in looked:
            self._waiting.append(item)
            self._crops += item.crop is not None
            if self._crops == self._together:
                self.finish(out)

    def finish(self, out: UnitWriter) -> None:
        """Ask the model about what waits, and settle it."""
        waiting, self._waiting, self._crops = self._waiting, [], 0
        shown = [item for item in waiting if item.crop is not None]
        found = iter(in_parts(lambda part: list(self.rows(part)), shown, self._give_up))
        for item in waiting:
            if item.crop is None:
                out.reject("object", item.object_id, str(item.reason))
                continue
            row = next(found)
            if isinstance(row, Failed):
                settle(out, "object", item.object_id, row)
            else:
                out.add(self.table, row)
                out.keep("object")
                self.kept(row)

    def _give_up(self, item: CutOut, error: Exception) -> Failed:
        return unforeseen(self._watch, item.object_id, error)
