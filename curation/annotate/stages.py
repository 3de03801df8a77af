"""The stages that look at images, one after another in the same pass over the pixels."""

from functools import cache
from pathlib import Path
from typing import Any

from refloom.curation.annotate import masks, measure, phrases, quality
from refloom.curation.config import Curation
from refloom.curation.stage import Stage, section, with_added
from refloom.inference.models.phrases import Vocabulary
from refloom.schemas.settings import to_dict

FACE_VERSION = 2
EMBED_VERSION = 2
_PIXELS = ("images", "objects", "masks")


def _phrasing(config: Curation) -> dict[str, Any]:
    names = vocabulary(config.phrase.vocabulary).fingerprint
    return {"phrase": to_dict(config.phrase) | {"vocabulary": names}, "filter": to_dict(config.filter)}


@cache
def vocabulary(file: str | None) -> Vocabulary:
    """The names of a file, or those that ship; read once per process."""
    return Vocabulary.read(Path(file)) if file else Vocabulary.read()


MEASURE = Stage("measure", measure.VERSION, ("images",), with_added("image_scores", section()))
MASK = Stage("mask", masks.VERSION, ("images", "objects"), section("mask"), roles=("segmenter",))
FACE = Stage("face", FACE_VERSION, _PIXELS, section("face"), roles=("face",))
EMBED = Stage("embed", EMBED_VERSION, _PIXELS, section("filter"), roles=("image_embedding",))
PHRASE = Stage("phrase", phrases.VERSION, _PIXELS, _phrasing, roles=("text_embedding", "captioner"))
QUALITY = Stage(
    "quality",
    quality.VERSION,
    (*_PIXELS, "phrases"),
    with_added("object_scores", section("quality", "filter")),
    roles=("classifier",),
    runs_without=True,
)
