"""Phrases of objects and captions of pictures: the annotators of the phrase stage."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curation import quality
from curation.annotators import HANDED_OVER, Row
from curation.config import Curation
from curation.decoded import Decoded, shrink
from curation.mentions import readable
from curation.objects import Objects
from inference.models.captioners import Captioner
from inference.models.crops import cut_out
from inference.models.phrases import PhraseFinder
from ingest.admission import settle
from schemas import boxes
from schemas.errors import Failed
from schemas.unit import UnitWriter

VERSION = 1

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_CAPTIONED_TOGETHER = 8
_CAPTIONED_SIDE_PX = 768
"""Pictures that wait for the captioner are shrunk to this; captioners see at most 384 to 448 px."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An object whose phrase is still to come: its crop and own words, or why it gets none."""

    object_id: str
    own: str | None
    reason: str | None
    crop: Pixels | None


class Phrases:
    """Phrases of objects, and how well phrase and cut-out fit; objects that the filter spares are rejected."""

    stage, kind = "phrase", "object"

    def __init__(self, config: Curation, finder: PhraseFinder) -> None:
        self._config, self._finder = config, finder
        self._waiting: list[_Waiting] = []
        self._crops = 0
        self.cosines: dict[str, float] = {}
        """Of the objects settled so far, for the quality stage of the same pass."""

    def count(self, image: Row, objects: Objects) -> int:
        """Every object is an item."""
        return len(objects)

    def look(self, image: Row, picture: Decoded, objects: Objects) -> list[_Waiting]:
        """Cut-outs of the objects that pass the filter and have words, or may get some."""
        height, width = picture.size
        free = quality.decode_free(objects, width, height)
        reasons = quality.filter_reasons(objects, free, self._config.filter)
        own = [
            phrase or (readable(category) if category else None)
            for phrase, category in zip(objects.phrases, objects.categories, strict=True)
        ]
        if not self._config.phrase.find:
            reasons = [reason or (None if words else "no_words") for reason, words in zip(reasons, own, strict=True)]
        wanted = [index for index, reason in enumerate(reasons) if reason is None]
        inner = [boxes.pad(objects.boxes[index], width, height) for index in wanted]
        shapes = quality.shapes(objects, wanted, inner)
        crops = {
            index: cut_out(picture.rgb, shape, box, self._finder.input_px)
            for index, box, shape in zip(wanted, inner, shapes, strict=True)
        }
        return [
            _Waiting(object_id, own[index], reasons[index], crops.get(index))
            for index, object_id in enumerate(objects.ids)
        ]

    def write(self, image: Row, objects: Objects, looked: list[_Waiting], out: UnitWriter) -> None:
        """Embed whenever enough crops wait."""
        for item in looked:
            self._waiting.append(item)
            self._crops += item.crop is not None
            if self._crops == HANDED_OVER:
                self.finish(out)

    def finish(self, out: UnitWriter) -> None:
        """Find the phrases of what waits, and settle it."""
        waiting, self._waiting, self._crops = self._waiting, [], 0
        shown = [item for item in waiting if item.crop is not None]
        try:
            rows = self._rows(shown)
        except Failed as problem:
            for item in shown:
                settle(out, "object", item.object_id, problem)
        else:
            for row in rows:
                self.cosines[row["object_id"]] = row["cosine"]
                out.add("phrases", row)
            out.keep("object", len(rows))
        for item in waiting:
            if item.reason is not None:
                out.reject("object", item.object_id, item.reason)

    def _rows(self, shown: list[_Waiting]) -> list[Row]:
        if not shown:
            return []
        vectors = self._finder.embed(np.stack([item.crop for item in shown if item.crop is not None]))
        nameless = [index for index, item in enumerate(shown) if item.own is None]
        found = dict(zip(nameless, self._finder.find(vectors[nameless]), strict=True))
        phrases = [item.own or found[index].phrase for index, item in enumerate(shown)]
        cosines = self._finder.cosines(vectors, phrases)
        rows: list[dict[str, Any]] = []
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


class Captions:
    """Captions of pictures that have none."""

    stage, kind = "phrase", "image"

    def __init__(self, captioner: Captioner) -> None:
        self._captioner = captioner
        self._waiting: list[tuple[str, Pixels]] = []

    def count(self, image: Row, objects: Objects) -> int:
        """Pictures without a caption are items."""
        return 0 if image["captions"] else 1

    def look(self, image: Row, picture: Decoded, objects: Objects) -> Pixels:
        """The picture at the size at which it waits."""
        return shrink(picture.rgb, _CAPTIONED_SIDE_PX)

    def write(self, image: Row, objects: Objects, looked: Pixels, out: UnitWriter) -> None:
        """Caption whenever enough pictures wait."""
        self._waiting.append((image["image_id"], looked))
        if len(self._waiting) == _CAPTIONED_TOGETHER:
            self.finish(out)

    def finish(self, out: UnitWriter) -> None:
        """Caption what waits, and settle it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            sentences = self._captioner.caption([pixels for _, pixels in waiting])
        except Failed as problem:
            for image_id, _ in waiting:
                settle(out, "image", image_id, problem)
            return
        for (image_id, _), sentence in zip(waiting, sentences, strict=True):
            if sentence:
                out.add("captions", {"image_id": image_id, "caption": sentence})
                out.keep("image")
            else:
                out.reject("image", image_id, "no_caption")
