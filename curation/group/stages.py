"""The stages that group: over the whole dataset by faces and looks, then in each unit with tracks and folders."""

from refloom.curation.group import groups, matches
from refloom.curation.stage import Stage, section

MATCH = Stage(
    "match",
    matches.VERSION,
    (
        "images/*",
        "objects/*",
        "source_groups/*",
        "masks/*",
        "faces/*",
        "embeddings/*",
        "object_scores/*",
        "duplicates/*",
        "selection/*",
    ),
    section("identities", "looks"),
    roles=("face", "image_embedding"),
    runs_without=True,
    over="dataset",
    needs=("select",),
)
GROUP = Stage(
    "group",
    groups.VERSION,
    (
        "images",
        "objects",
        "masks",
        "source_groups",
        "selection",
        "object_scores",
        "faces",
        "embeddings",
        "matches",
    ),
    section("group"),
    across=True,
    needs=("select",),
)
