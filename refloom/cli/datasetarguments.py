"""The arguments of the commands that make datasets of datasets, and keep states. Imports nothing that takes time."""

from typing import Any

from refloom.cli.command import add_command, add_pool, add_ranged


def add_commands(commands: Any) -> None:
    """Add subset, merge, tag and diff.

    Args:
        commands: where subcommands go.
    """
    _add_subset(commands)
    _add_merge(commands)
    _add_tag(commands)
    _add_diff(commands)


def _add_subset(commands: Any) -> None:
    subset = add_command(
        commands,
        "subset",
        "refloom.cli.datasets:subset",
        "Make a dataset of a part of another: by ids, conditions on rows, a split or a share. Resumes.",
        "  refloom subset DATASET DEST --share 0.1 --split train\n"
        "  refloom subset DATASET DEST --ids ids.txt --tag v1\n"
        "  refloom subset DATASET DEST --where 'object_scores: quality > 0.6' --where 'images: license == \"CC0\"'",
    )
    subset.add_argument("dataset", metavar="DATASET", help="folder or fsspec URL")
    subset.add_argument("dest", metavar="DEST", help="new or empty folder or URL, or one where the same was begun")
    subset.add_argument("--ids", metavar="FILE", help="ids of pictures or samples, one a line")
    subset.add_argument(
        "--id", action="append", default=[], metavar="ID", dest="named", help="one such id; may be repeated"
    )
    subset.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="`TABLE: CONDITION` on the rows of any table, such as `faces: det_score > 0.9`; may be repeated, all must "
        "hold; docs/datasets.md has what can be said",
    )
    subset.add_argument("--split", choices=("train", "validation"), help="only this split (default: both)")
    add_ranged(
        subset,
        "--share",
        "refloom.schemas.ranges:SHARE",
        metavar="S",
        help="of the samples, or of the pictures before there are samples, drawn by hash of the id: 0.1 is a tenth "
        "(default: all)",
    )
    add_ranged(
        subset,
        "--seed",
        "refloom.schemas.ranges:SEED",
        default=0,
        metavar="N",
        help="of that draw; a smaller share of the same seed is a part of a larger one",
    )
    subset.add_argument("--tag", metavar="NAME", help="the state of DATASET that has this name (default: as it is now)")
    subset.add_argument("--dry-run", action="store_true", help="say how many pictures and samples would stay")
    add_pool(subset)


def _add_merge(commands: Any) -> None:
    merge = add_command(
        commands,
        "merge",
        "refloom.cli.datasets:merge",
        "Make one dataset of several that were made with the same settings and models. Resumes; then `refloom curate` "
        "looks for copies and groups across them.",
        "  refloom merge COCO VIDEOS DEST\n  refloom merge A B s3://bucket/c DEST --dry-run",
    )
    merge.add_argument(
        "datasets", nargs="+", metavar="DATASET", help="two or more folders, fsspec URLs or tags' folders"
    )
    merge.add_argument("dest", metavar="DEST", help="new or empty folder or URL, or one where the same was begun")
    merge.add_argument("--dry-run", action="store_true", help="say what would become of units, ids and splits")
    add_pool(merge)


def _add_tag(commands: Any) -> None:
    tag = add_command(
        commands,
        "tag",
        "refloom.cli.datasets:tag",
        "Keep a dataset as it is now under a name, below DATASET/tags; list such states, or remove one.",
        "  refloom tag DATASET v1\n  refloom tag DATASET --list\n  refloom tag DATASET --delete v1",
    )
    tag.add_argument("dataset", metavar="DATASET")
    tag.add_argument("name", nargs="?", metavar="NAME", help="letters, digits and . _ -, at most 80")
    tag.add_argument("--list", action="store_true", help="say which tags there are")
    tag.add_argument("--delete", metavar="NAME", help="remove a tag")
    tag.add_argument("--json", action="store_true", help="print json")


def _add_diff(commands: Any) -> None:
    diff = add_command(
        commands,
        "diff",
        "refloom.cli.datasets:diff",
        "What came, went and changed between two states of a dataset, and which settings, models and inputs differ.",
        "  refloom diff DATASET v1 now\n  refloom diff DATASET v1 v2 --json",
    )
    diff.add_argument("dataset", metavar="DATASET")
    diff.add_argument("before", metavar="A", help="a tag, or `now`")
    diff.add_argument("after", metavar="B", help="a tag, or `now`")
    diff.add_argument("--json", action="store_true", help="print json")
