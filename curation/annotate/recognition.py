"""What a classifier makes of objects: two components of quality that no look at single pixels gives.

An object that is all there looks alone as it looks in its box, and is taken for something.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refloom.curation.annotate.isolate import in_parts, unforeseen
from refloom.curation.annotate.scene import Scene
from refloom.inference.models.crops import cut_out
from refloom.inference.models.embedders import ImageClassifier
from refloom.ingest.engine.watch import Watch
from refloom.schemas import boxes
from refloom.schemas.errors import Failed

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_TOGETHER = 32
"""Objects that wait for the model at least, each with two crops; 10 MB at 224 px."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An object that waits.

    Attributes:
        object_id: whose.
        alone: (S, S, 3), cut out on white.
        boxed: (S, S, 3), all that its box shows; None for an object without a mask, which is its box.
        components: (N,) of all objects of its picture, to be filled in.
        index: of the object among them.
    """

    object_id: str
    alone: Pixels
    boxed: Pixels | None
    components: dict[str, Floats]
    index: int


class Recognition:
    """Fills in `alone_cosine` and `class_entropy`, of many objects at once."""

    def __init__(self, model: ImageClassifier, watch: Watch) -> None:
        """Nothing waits.

        Args:
            model: of the role `classifier`.
            watch: where the tracebacks of lost objects go.
        """
        self._model, self._watch = model, watch
        self._together = 1 if watch.again else -(-_TOGETHER // model.batch_size) * model.batch_size
        self._waiting: list[Shown] = []
        self.lost: dict[str, Failed] = {}

    def show(self, scene: Scene, components: dict[str, Floats]) -> list[Shown]:
        """The objects of a picture that the filter has passed, with their crops; their components are null till then.

        Args:
            scene: the picture.
            components: of its objects.
        """
        side, (height, width) = self._model.input_px, scene.picture.size
        shown = []
        for index, alone in scene.crops(side).items():
            objects = scene.objects
            if objects.kinds[index] == "object":
                box = boxes.pad(objects.boxes[index], width, height)
                boxed = None if objects.masks[index] is None else cut_out(scene.picture.rgb, None, box, side)
                shown.append(Shown(objects.ids[index], alone, boxed, components, index))
        return shown

    def add(self, shown: list[Shown]) -> None:
        """Let objects wait; ask the model when enough do."""
        for one in shown:
            self._waiting.append(one)
            if len(self._waiting) >= self._together:
                self.finish()

    def finish(self) -> None:
        """Ask the model about what waits; objects that it cannot be asked about are in `lost`."""
        waiting, self._waiting = self._waiting, []
        for one, found in zip(waiting, in_parts(self._ask, waiting, self._give_up), strict=True):
            if isinstance(found, Failed):
                self.lost[one.object_id] = found
            else:
                one.components["alone_cosine"][one.index], one.components["class_entropy"][one.index] = found

    def _ask(self, shown: list[Shown]) -> list[tuple[float, float]]:
        alone, odds = self._model.describe(np.stack([one.alone for one in shown]))
        masked = [place for place, one in enumerate(shown) if one.boxed is not None]
        cosines = np.full(len(shown), np.nan)
        if masked:
            boxed = self._model.embed(np.stack([crop for one in shown if (crop := one.boxed) is not None]))
            cosines[masked] = np.sum(alone[masked].astype(np.float64) * boxed, axis=1)
        return list(zip(cosines.tolist(), entropy(odds).tolist(), strict=True))

    def _give_up(self, one: Shown, error: Exception) -> Failed:
        return unforeseen(self._watch, one.object_id, error)


def entropy(odds: npt.NDArray[np.float32]) -> Floats:
    """Entropy of probabilities (N, C) in nats, (N,): 0 where one class is certain, log C where all are alike."""
    sure = odds.astype(np.float64)
    found: Floats = -np.sum(sure * np.log(np.maximum(sure, 1e-12)), axis=1)
    return np.maximum(found, 0.0)
