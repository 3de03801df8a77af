"""The stage that finds copies."""

from functools import cache
from typing import Any

from refloom.curation.config import Curation
from refloom.curation.dedup.settings import VERSION
from refloom.curation.stage import Stage
from refloom.ingest import files
from refloom.schemas.dataset import Dataset
from refloom.schemas.settings import to_dict
from refloom.schemas.storage import Folder


def _deduplication(config: Curation) -> dict[str, Any]:
    """The settings, and what the evaluation sets hold."""
    return {
        "dedup": to_dict(config.dedup) | {"evaluation_content": [_content(place) for place in config.dedup.evaluation]}
    }


@cache
def _content(place: str) -> str:
    """What an evaluation set holds, without reading its pictures."""
    folder = Folder(place)
    if folder.exists("dataset.json"):
        return Dataset(place).fingerprint("images")
    return files.weigh(folder, files.picture_names(folder)[0])[1]


DEDUP = Stage(
    "dedup",
    VERSION,
    ("images/*", "objects/*", "source_groups/*", "image_scores/*", "object_scores/*", "embeddings/*"),
    _deduplication,
    roles=("image_embedding",),
    runs_without=True,
    over="dataset",
    needs=("measure", "quality"),
)
