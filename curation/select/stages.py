"""The stages that choose: which objects are kept, which images are held out, which candidates are too many."""

from typing import Any

from refloom.curation.config import Curation
from refloom.curation.select import choices, objects, split
from refloom.curation.stage import Stage, section
from refloom.schemas.settings import to_dict


def _balancing(config: Curation) -> dict[str, Any]:
    """The settings, and where there is any limit those that say what a candidate is."""
    names = (
        "frames_per_sample",
        "samples_per_video",
        "images_per_video",
        "min_face_px",
        "references_per_subject",
        "references_per_target",
    )
    own = {"balance": to_dict(config.balance), "pairs": to_dict(config.pairs)}
    if not (config.balance.is_set or config.pairs.is_set):
        return own
    return own | {"compose": {name: getattr(config.compose, name) for name in names}}


SELECT = Stage(
    "select",
    objects.VERSION,
    ("images", "objects", "masks", "object_scores", "ledger/quality", "duplicates"),
    section("select"),
    needs=("quality",),
)
SPLIT = Stage(
    "split",
    split.VERSION,
    ("images/*", "source_groups/*", "groups/*", "duplicates/*"),
    section("split"),
    over="dataset",
    needs=("group",),
)
BALANCE = Stage(
    "balance",
    choices.VERSION,
    (
        "images/*",
        "objects/*",
        "masks/*",
        "selection/*",
        "object_scores/*",
        "embeddings/*",
        "faces/*",
        "groups/*",
        "duplicates/*",
        "splits/*",
    ),
    _balancing,
    over="dataset",
    needs=("select", "group", "split"),
)
