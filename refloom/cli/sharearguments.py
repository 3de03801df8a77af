"""The arguments of the commands that hand a dataset to others. Imports nothing that takes time."""

from typing import Any

from refloom.cli.command import add_command, add_pool, add_ranged


def add_export(commands: Any) -> None:
    """Add export.

    Args:
        commands: where subcommands go.
    """
    export = add_command(
        commands,
        "export",
        "refloom.cli.export:export",
        "Write the dataset in another format: EasyRef's, MIP-Adapter's, COCO's, WebDataset's, SimpleTuner's boxes, or "
        "references, text and target in the layouts of today's trainers.",
        "  refloom export DATASET OUT --format coco\n"
        "  refloom export DATASET OUT --format webdataset --split train --per-shard 500\n"
        "  refloom export DATASET OUT --format edit --layout omnigen2 --prefix /data/OUT\n"
        "  refloom export DATASET OUT --format edit --layout bagel --reference face --per-subject 2 --seed 1\n"
        "  refloom export DATASET OUT --format bbox --kept",
    )
    export.add_argument("dataset", metavar="DATASET")
    export.add_argument("out", metavar="OUT", help="new or empty folder, or an unfinished export of the same")
    export.add_argument(
        "--format",
        required=True,
        metavar="{easyref,subject10k,coco,webdataset,edit,bbox}",
        help="or one that a plugin adds",
    )
    export.add_argument("--split", choices=("train", "validation"), help="only this split (default: all)")
    export.add_argument(
        "--limit", type=int, metavar="N", help="only the first N samples, or pictures for coco and bbox"
    )
    export.add_argument("--kept", action="store_true", help="coco, bbox: only objects that the selection kept")
    export.add_argument(
        "--keep-metadata",
        action="store_true",
        help="pictures keep places, names and thumbnails (Exif, XMP, IPTC), which are stripped otherwise",
    )
    export.add_argument("--per-shard", type=int, default=1000, metavar="N", help="webdataset: samples in a tar")
    _add_edit(export.add_argument_group("edit"))
    add_pool(export)


def _add_edit(edit: Any) -> None:
    edit.add_argument(
        "--layout", choices=("omnigen2", "diffsynth", "musubi", "bagel", "uno", "ai-toolkit"), help="of which trainer"
    )
    edit.add_argument(
        "--reference",
        choices=("cutout", "box", "image", "face"),
        default="cutout",
        help="what of a subject is given: cut out on white, its box, its whole image, its face",
    )
    add_ranged(
        edit,
        "--per-subject",
        "refloom.schemas.ranges:COUNT",
        default=1,
        metavar="N",
        help="most references of one subject",
    )
    add_ranged(
        edit,
        "--seed",
        "refloom.sharing.export.edit.settings:SEED",
        default=0,
        metavar="N",
        help="draws targets, references, captions and words",
    )
    edit.add_argument(
        "--same-image",
        action="store_true",
        help="samples of one image give its subjects' own crops, which teach copying",
    )
    edit.add_argument(
        "--instructions",
        choices=("own", "template"),
        default="own",
        help="own: a sample's own texts with whole images, templates where it has none; template: templates everywhere",
    )
    edit.add_argument(
        "--prefix", metavar="PATH", help="written in front of the names of files (default: relative to OUT)"
    )
    edit.add_argument(
        "--redistributable",
        action="store_true",
        help="leave samples out that show an image whose license is not known to let it be given away",
    )


def add_commands(commands: Any) -> None:
    """Add publish, takedown and rehydrate.

    Args:
        commands: where subcommands go.
    """
    _add_publish(commands)
    _add_takedown(commands)
    _add_rehydrate(commands)


def _add_publish(commands: Any) -> None:
    publish = add_command(
        commands,
        "publish",
        "refloom.cli.publish:publish",
        "Write a dataset as a publication: even shards, a card, checksums. Resumes; refuses what licenses forbid.",
        "  refloom publish DATASET DEST\n"
        "  refloom publish DATASET DEST --tables all --takedown ids.txt\n"
        "  refloom publish DATASET DEST --no-images --push me/reference-data",
    )
    publish.add_argument("dataset", metavar="DATASET")
    publish.add_argument("dest", metavar="DEST", help="new or empty local folder, or the one to resume")
    publish.add_argument("--tables", nargs="+", default=["samples"], metavar="TABLE", help="which, or `all`")
    publish.add_argument(
        "--no-images", action="store_true", help="ids, masks and scores only; `refloom rehydrate` joins the bytes again"
    )
    publish.add_argument("--include-face-embeddings", action="store_true", help="publish identity embeddings of faces")
    publish.add_argument("--shard-mb", type=float, default=400.0, metavar="MB", help="target size of a file")
    publish.add_argument(
        "--only-sources", nargs="+", default=[], metavar="SOURCE", help="leave out what holds pictures of others"
    )
    publish.add_argument(
        "--accept-license",
        action="append",
        default=[],
        metavar="TEXT",
        help="publish pictures of a license not known to allow it; `none` where none is stated; may be repeated",
    )
    publish.add_argument(
        "--takedown",
        metavar="FILE",
        help="what to leave out, an entry a line: ids of images, objects, faces, tracks, videos, groups or samples, "
        "source URLs, file names, sha256",
    )
    publish.add_argument(
        "--ignore-unknown", action="store_true", help="go on where an entry of the takedown list names nothing"
    )
    publish.add_argument(
        "--keep-metadata",
        action="store_true",
        help="pictures keep places, names and thumbnails (Exif, XMP, IPTC), which are stripped otherwise",
    )
    publish.add_argument("--replace", action="store_true", help="throw away another publication that lies in DEST")
    publish.add_argument("--dry-run", action="store_true", help="say files, bytes and disk, or what is refused")
    hub = publish.add_argument_group("hub")
    hub.add_argument("--push", metavar="OWNER/NAME", help="then send it to this dataset repository; resumes")
    hub.add_argument("--public", action="store_true", help="a repository that is made now is public, not private")
    hub.add_argument("--endpoint", metavar="URL", help="of another Hub")
    hub.add_argument(
        "--forget-history",
        action="store_true",
        help="squash the repository's history, where taken-down data still lies",
    )


def _add_takedown(commands: Any) -> None:
    takedown = add_command(
        commands,
        "takedown",
        "refloom.cli.publish:takedown",
        "Take pictures out of a dataset, with all that was made of them, and keep them out from then on. Resumes.",
        "  refloom takedown DATASET list.txt --dry-run\n"
        "  refloom takedown DATASET list.txt\n"
        "  refloom takedown DATASET",
    )
    takedown.add_argument("dataset", metavar="DATASET")
    takedown.add_argument(
        "list",
        nargs="?",
        metavar="LIST",
        help="an entry a line: ids of images, objects, faces, tracks, videos, groups or samples, source URLs, file "
        "names, sha256 (default: the list that the dataset has)",
    )
    takedown.add_argument(
        "--ignore-unknown",
        action="store_true",
        help="go on where an entry names nothing; it goes on the list for what comes in later",
    )
    takedown.add_argument("--dry-run", action="store_true", help="say what each entry names and which rows would go")
    takedown.add_argument("--json", action="store_true", help="print json")


def _add_rehydrate(commands: Any) -> None:
    rehydrate = add_command(
        commands,
        "rehydrate",
        "refloom.cli.publish:rehydrate",
        "Join a publication without pictures with your copy of the source, checked by sha256. Resumes.",
        "  refloom rehydrate PUBLISHED /data/sa1b DEST\n  refloom rehydrate PUBLISHED DATASET DEST",
    )
    rehydrate.add_argument("published", metavar="PUBLISHED", help="folder or fsspec URL of the publication")
    rehydrate.add_argument("source", metavar="SOURCE", help="folder of pictures or tars, or a refloom dataset")
    rehydrate.add_argument("dest", metavar="DEST", help="new or empty local folder, or the one to resume")
    rehydrate.add_argument("--replace", action="store_true", help="throw away another publication that lies in DEST")
    rehydrate.add_argument("--dry-run", action="store_true", help="say how many pictures are looked for")
