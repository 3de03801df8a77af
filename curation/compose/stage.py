"""The stage that makes samples."""

from refloom.curation.compose.samples import VERSION
from refloom.curation.stage import Stage, section

COMPOSE = Stage(
    "compose",
    VERSION,
    (
        "images",
        "objects",
        "source_groups",
        "masks",
        "selection",
        "object_scores",
        "embeddings",
        "faces",
        "groups",
        "splits",
        "choices",
        "phrases",
        "captions",
        "duplicates",
    ),
    section("compose"),
    needs=("select", "group", "split", "balance"),
)
