"""Phrases of objects and captions of pictures: the annotators of the phrase stage."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from refloom.curation.annotate.settings import Phrasing

from refloom.curation.annotate.annotators import Row
from refloom.curation.annotate.cutouts import CutOut, CutOuts, together
from refloom.curation.annotate.decoded import shrink
from refloom.curation.annotate.isolate import in_parts, unforeseen
from refloom.curation.annotate.scene import Scene
from refloom.curation.compose.mentions import readable
from refloom.curation.objects import Objects
from refloom.inference.models.captioners import Captioner
from refloom.inference.models.phrases import PhraseFinder
from refloom.ingest.admission import settle
from refloom.ingest.engine.watch import Watch
from refloom.schemas.errors import Failed
from refloom.schemas.unit import UnitWriter

VERSION = 1

Pixels = npt.NDArray[np.uint8]

_CAPTIONED_TOGETHER = 8
_CAPTIONED_SIDE_PX = 768
"""Pictures that wait for the captioner are shrunk to this; captioners see at most 384 to 448 px."""


class Phrases(CutOuts):
    """Phrases of objects, and how well phrase and cut-out fit; objects that the filter spares are rejected."""

    stage, table = "phrase", "phrases"

    def __init__(self, config: Phrasing, finder: PhraseFinder, watch: Watch) -> None:
        super().__init__(finder.input_px, finder.batch_size, watch)
        self._config, self._finder = config, finder
        self.cosines: dict[str, float] = {}
        """Of the objects settled so far, for the quality stage of the same pass."""

    def look(self, image: Row, scene: Scene) -> list[CutOut]:
        """Cut-outs of the objects that pass the filter and have words, or may get some."""
        objects, found = scene.objects, []
        for index, item in enumerate(super().look(image, scene)):
            category = objects.categories[index]
            words = objects.phrases[index] or (readable(category) if category else None)
            if item.reason is None and not words and not self._config.find:
                found.append(replace(item, reason="no_words", crop=None))
            else:
                found.append(replace(item, words=words))
        return found

    def rows(self, shown: list[CutOut]) -> list[Row]:
        """One row per object; those without words of their own get some from the vocabulary."""
        vectors = self._finder.embed(np.stack([item.crop for item in shown if item.crop is not None]))
        nameless = [index for index, item in enumerate(shown) if item.words is None]
        found = dict(zip(nameless, self._finder.find(vectors[nameless]), strict=True))
        phrases = [item.words or found[index].phrase for index, item in enumerate(shown)]
        cosines = self._finder.cosines(vectors, phrases)
        rows: list[Row] = []
        for index, item in enumerate(shown):
            guess = found.get(index)
            rows.append(
                {
                    "object_id": item.object_id,
                    "phrase": phrases[index],
                    "origin": "source" if guess is None else "vocabulary",
                    "probability": None if guess is None else guess.probability,
                    "margin": None if guess is None else guess.margin,
                    "cosine": float(cosines[index]),
                    "embedding": vectors[index],
                }
            )
        return rows

    def kept(self, row: Row) -> None:
        """Remember the cosine."""
        self.cosines[row["object_id"]] = row["cosine"]


class Captions:
    """Captions of pictures that have none."""

    stage, kind = "phrase", "image"

    def __init__(self, captioner: Captioner, watch: Watch) -> None:
        self._captioner, self._watch = captioner, watch
        self._together = together(captioner.batch_size, watch, _CAPTIONED_TOGETHER)
        self._waiting: list[tuple[str, Pixels]] = []

    def count(self, image: Row, objects: Objects) -> int:
        """Pictures without a caption are items."""
        return 0 if image["captions"] else 1

    def look(self, image: Row, scene: Scene) -> Pixels:
        """The picture at the size at which it waits."""
        return shrink(scene.picture.rgb, _CAPTIONED_SIDE_PX)

    def write(self, image: Row, objects: Objects, looked: Pixels, out: UnitWriter) -> None:
        """Caption whenever enough pictures wait."""
        self._waiting.append((image["image_id"], looked))
        if len(self._waiting) == self._together:
            self.finish(out)

    def finish(self, out: UnitWriter) -> None:
        """Caption what waits, and settle it."""
        waiting, self._waiting = self._waiting, []
        found = in_parts(lambda part: self._captioner.caption([pixels for _, pixels in part]), waiting, self._give_up)
        for (image_id, _), sentence in zip(waiting, found, strict=True):
            if isinstance(sentence, Failed):
                settle(out, "image", image_id, sentence)
            elif sentence:
                out.add("captions", {"image_id": image_id, "caption": sentence})
                out.keep("image")
            else:
                out.reject("image", image_id, "no_caption")

    def _give_up(self, item: tuple[str, Pixels], error: Exception) -> Failed:
        return unforeseen(self._watch, item[0], error)
