"""The arguments of every command. What they do is imported when needed, so that `refloom --help` answers at once."""

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from refloom import __version__
from refloom.cli.groups import GroupedParser
from refloom.cli.picturearguments import add_commands
from refloom.cli.trainarguments import add_commands as add_training
from refloom.cli.trainarguments import add_ranged
from refloom.ingest.sourcekinds import SOURCES, SourceKind
from refloom.schemas.plugins import VARIABLE


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written and names the defaults."""


def _command(commands: Any, name: str, handler: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """A subcommand; `handler` is `module:function`, called with the arguments, and returns the exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=f"examples:\n{examples}", formatter_class=_Help
    )
    parser.set_defaults(handler=handler)
    return parser


def _add_pool(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    add_ranged(
        group,
        "--workers",
        "refloom.schemas.ranges:WORKERS",
        metavar="N",
        help="processes; 0 does without Ray, in one process (default: all cores)",
    )
    group.add_argument(
        "--address", metavar="ADDR", help="of a Ray cluster, e.g. auto or ray://head:10001 (default: this machine)"
    )
    add_ranged(
        group,
        "--item-timeout",
        "refloom.schemas.ranges:ITEM_TIMEOUT",
        default=300.0,
        metavar="S",
        help="longest time for one item, seconds",
    )


def _add_ingest(commands: Any, names: Iterable[str]) -> None:
    parser = _command(
        commands,
        "ingest",
        "",
        "Take pictures and annotations from a source into a dataset. Resumes; several ingests may share one dataset.",
        "  refloom ingest coco --images val2017 --instances annotations/instances_val2017.json --out DATASET\n"
        "  refloom ingest sa1b /data/sa1b --link --out DATASET",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")

    for name in names:
        _add_source(sources, name, SOURCES[name])


def _add_source(sources: Any, name: str, kind: SourceKind) -> None:
    """The command of one kind of source, with its own options behind those that every source has."""
    one = _command(
        sources,
        name,
        "refloom.cli.ingest:ingest",
        kind.summary,
        f"  refloom ingest {name} {kind.example} --out DATASET",
    )
    one.add_argument("--out", required=True, metavar="DATASET", help="dataset folder or fsspec URL; made if absent")
    one.add_argument("--name", default=name, help="first part of the ingest key and of unit names")
    one.add_argument("--limit", type=int, metavar="N", help=f"only the first N {kind.counts}")
    if kind.has_units:
        one.add_argument(
            "--unit-size", type=int, metavar="N", help=f"{kind.counts} in a unit, the grain of work, resume and retry"
        )
    one.add_argument("--link", action="store_true", help="keep pointers to the source's bytes instead of the bytes")
    one.add_argument("--dry-run", action="store_true", help="say what would be done: units, bytes, disk needed")
    one.add_argument("--retry-failed", action="store_true", help="do units again that hold failed items")
    one.add_argument("--replace", action="store_true", help="do units again that were made with other settings")
    _add_pool(one)
    for option in kind.own_options:
        more: dict[str, Any] = {"help": option.help}
        if option.flag:
            more["action"] = "store_true"
        else:
            more |= {"metavar": option.metavar} if option.metavar else {}
            more |= {"choices": option.choices} if option.choices else {}
            more |= {"type": option.number} if option.number else {}
            more |= {"default": option.default} if option.default is not None else {}
            more |= {"nargs": "+"} if option.many else {}
        if option.positional:
            one.add_argument(option.name, **more)
        else:
            one.add_argument(f"--{option.name}", required=option.required, **more)


def _add_dataset_commands(commands: Any) -> None:
    curate = _command(
        commands,
        "curate",
        "refloom.cli.curate:curate",
        "Measure, find faces, embed, score, select, group, split, compose. Resumes; does only what is out of date.",
        "  refloom curate DATASET\n"
        "  refloom curate DATASET --until quality\n"
        "  refloom curate DATASET --set select.min_quality=0.5 --replace",
    )
    curate.add_argument("dataset", metavar="DATASET")
    curate.add_argument(
        "--config", metavar="FILE", help="YAML; `refloom curate DATASET --print-config` shows every key"
    )
    curate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting; may be repeated",
    )
    curate.add_argument("--only", metavar="STAGE", help="only this stage")
    curate.add_argument("--until", metavar="STAGE", help="up to and including this stage")
    curate.add_argument(
        "--replace", action="store_true", help="do stages again whose settings changed, and what follows from them"
    )
    curate.add_argument("--retry-failed", action="store_true", help="do units again that hold failed items")
    curate.add_argument("--dry-run", action="store_true", help="say which stages of how many units would be done")
    curate.add_argument("--print-config", action="store_true", help="print the settings in force and stop")
    _add_pool(curate)

    for name, summary in (
        (
            "status",
            "Rows, units and fingerprint of every table; items of every stage, with reasons for what was left out.",
        ),
        (
            "verify",
            "Re-open, re-hash and recount everything; decode a sample; check masks, boxes and ids across tables. Of a "
            "publication: its files.",
        ),
        ("report", "Write one HTML page: funnel, histograms with thresholds, contact sheets of kept and rejected."),
    ):
        module = {"status": "ingest", "verify": "ingest", "report": "curate"}[name]
        one = _command(
            commands,
            name,
            f"refloom.cli.{module}:{name}",
            summary,
            f"  refloom {name} DATASET\n  refloom {name} DATASET --json",
        )
        one.add_argument("dataset", metavar="DATASET")
        one.add_argument("--json", action="store_true", help="print json")
        if name == "verify":
            one.add_argument(
                "--sample", type=int, default=64, metavar="N", help="pictures to decode per unit; -1 for all"
            )
        if name == "report":
            one.add_argument("--out", metavar="HTML", help="where to write the page (default: DATASET/report.html)")

    mend = _command(
        commands,
        "mend",
        "refloom.cli.curate:mend",
        "Make again what is damaged, with the settings of then, to the same bytes; derive dataset.json and the card.",
        "  refloom mend DATASET",
    )
    mend.add_argument("dataset", metavar="DATASET")
    _add_pool(mend)
    relink = _command(
        commands,
        "relink",
        "refloom.cli.ingest:relink",
        "Say where linked pictures lie that have moved; some are compared with what was ingested.",
        "  refloom relink DATASET /new/val2017\n  refloom relink DATASET /new/sa1b --root sa1b.sa_000000",
    )
    relink.add_argument("dataset", metavar="DATASET")
    relink.add_argument("folder", metavar="FOLDER", help="folder or URL that takes the place of the old one")
    relink.add_argument("--root", metavar="NAME", help="which, as dataset.json names them (default: the only one)")

    export = _command(
        commands,
        "export",
        "refloom.cli.export:export",
        "Write the dataset in another format: EasyRef's, MIP-Adapter's, COCO's or WebDataset's.",
        "  refloom export DATASET OUT --format coco\n"
        "  refloom export DATASET OUT --format webdataset --split train --per-shard 500",
    )
    export.add_argument("dataset", metavar="DATASET")
    export.add_argument("out", metavar="OUT", help="new or empty folder, or an unfinished export of the same")
    export.add_argument(
        "--format", required=True, metavar="{easyref,subject10k,coco,webdataset}", help="or one that a plugin adds"
    )
    export.add_argument("--split", choices=("train", "validation"), help="only this split (default: all)")
    export.add_argument("--limit", type=int, metavar="N", help="only the first N samples, or pictures for coco")
    export.add_argument("--kept", action="store_true", help="coco: only objects that the selection kept")
    export.add_argument(
        "--keep-metadata",
        action="store_true",
        help="pictures keep places, names and thumbnails (Exif, XMP, IPTC), which are stripped otherwise",
    )
    export.add_argument("--per-shard", type=int, default=1000, metavar="N", help="webdataset: samples in a tar")

    inspect = _command(
        commands,
        "inspect",
        "refloom.cli.browse:inspect",
        "Sizes, rows and bytes of every table, and one row printed and drawn.",
        "  refloom inspect DATASET\n  refloom inspect DATASET --id coco/000000000139 --draw row.png",
    )
    inspect.add_argument("dataset", metavar="DATASET")
    inspect.add_argument("--id", metavar="ID", help="of the row (default: the first one)")
    inspect.add_argument("--table", metavar="TABLE", help="that holds it (default: the one of such ids)")
    inspect.add_argument("--draw", metavar="PNG", help="draw the row to this file")
    inspect.add_argument("--json", action="store_true", help="print json")

    browse = _command(
        commands,
        "browse",
        "refloom.cli.browse:browse",
        "Serve a local page to search and look at pictures, objects, faces, groups and samples; read only.",
        "  refloom browse DATASET\n  refloom browse DATASET --port 8080",
    )
    browse.add_argument("dataset", metavar="DATASET")
    browse.add_argument("--host", default="127.0.0.1", help="to listen on; anything else shows the dataset to others")
    add_ranged(browse, "--port", "refloom.schemas.ranges:PORT", default=0, help="0 takes a free one")

    _add_models(commands)


def _add_models(commands: Any) -> None:
    models = _command(
        commands,
        "models",
        "refloom.cli.models:models",
        "The models that refloom knows, a line each: role, name, whether it is there, size, license.",
        "  refloom models\n  refloom models --verbose\n  refloom models get dinov2-base",
    )
    models.add_argument("--json", action="store_true", help="print json")
    models.add_argument("--verbose", action="store_true", help="also what identifies each, or how to get it")
    get = _command(
        models.add_subparsers(metavar="get"),
        "get",
        "refloom.cli.models:get",
        "Fetch the files of models into the weights folder, checked by sha256. Resumes; nothing else ever fetches any. "
        "HF_ENDPOINT names another Hub, REFLOOM_WEIGHTS another folder.",
        "  refloom models get dinov2-base\n"
        "  refloom models get sam_vit_b --from https://mirror.example/sam\n"
        "  refloom models get buffalo_l --from Downloads/buffalo_l.zip",
    )
    get.add_argument("names", nargs="+", metavar="NAME", help="see `refloom models`")
    get.add_argument(
        "--from",
        dest="source",
        metavar="URL_OR_PATH",
        help="where the files lie instead: a folder, the file itself, or the address of either",
    )


def _add_share_commands(commands: Any) -> None:
    publish = _command(
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

    takedown = _command(
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

    rehydrate = _command(
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


def _add_demo_commands(commands: Any) -> None:
    sample = _command(
        commands,
        "sample-data",
        "refloom.cli.ingest:sample_data",
        "Write COCO, YouTube-VIS and SA-1B trees in the true formats, made from photographs inside installed packages.",
        "  refloom sample-data OUT --images 100 --videos 10 --seed 0",
    )
    sample.add_argument("out", metavar="OUT", help="new or empty folder")
    sample.add_argument(
        "--images", type=int, default=48, metavar="N", help="COCO pictures, and as many in the SA-1B tars"
    )
    sample.add_argument("--videos", type=int, default=6, metavar="N", help="videos")
    sample.add_argument("--seed", type=int, default=0)
    demo = _command(
        commands,
        "demo",
        "refloom.demo.dataset:demo refloom.demo.demo:demo",
        "Sample data, a dataset of it, a tiny base, an adapter, pictures: the whole road in minutes. Resumes.",
        "  refloom demo\n  refloom demo OUT --images 200 --videos 20\n  refloom demo OUT --method ezigen",
    )
    demo.add_argument("out", nargs="?", default="demo", metavar="OUT")
    demo.add_argument(
        "--images", type=int, default=48, metavar="N", help="COCO pictures, and as many in the SA-1B tars"
    )
    demo.add_argument("--videos", type=int, default=6, metavar="N", help="videos")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument(
        "--method",
        choices=("easyref", "ezigen", "ip_adapter", "mip", "ms_diffusion", "none"),
        default="mip",
        help="what is trained on the dataset; none ends with the dataset",
    )
    _add_pool(demo)


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line; of an ingest with the sources of installed plugins, which are looked up for it alone."""
    parser = GroupedParser(
        prog="refloom",
        description="Grouped reference data from public image and video sets, and reference adapters trained on it.",
        epilog="exit codes: 0 done, 1 done and some rows failed or nothing was kept, 2 usage or refused, "
        "3 the job could not finish (run it again to resume), 4 an error that was not foreseen",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"refloom {__version__}")
    parser.add_argument(
        "--plugin",
        action="append",
        metavar="MODULE",
        help="a module or .py file that adds sources, models, methods ...; anywhere in a command, may be repeated",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)
    _add_ingest(commands, SOURCES if "ingest" in words or VARIABLE in os.environ else SOURCES.own)
    _add_dataset_commands(commands)
    _add_share_commands(commands)
    add_commands(commands, _command, _add_pool)
    add_training(commands, _command, _add_pool)
    _add_demo_commands(commands)
    return parser


def _plugins(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command without `--plugin MODULE`, wherever it stands, and the modules."""
    words, named = [], []
    rest = iter(arguments)
    for word in rest:
        if word == "--plugin":
            named.append(next(rest, ""))
        elif word.startswith("--plugin="):
            named.append(word.partition("=")[2])
        else:
            words.append(word)
    return words, named


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files hold what a terminal may not
    try:
        words, named = _plugins(sys.argv[1:] if arguments is None else arguments)
        if named:
            from refloom.schemas.plugins import use

            use(named)
        options = build_parser(words).parse_args(words)
        options.arguments = list(sys.argv[1:] if arguments is None else arguments)
        from refloom.schemas.storage import store_errors_stop  # `--help` imports nothing of ours

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job manager's stop is a Ctrl-C
        with store_errors_stop():
            code = 0
            for handler in options.handler.split():
                module, _, function = handler.partition(":")
                if code := int(getattr(importlib.import_module(module), function)(options)):
                    break
        sys.stdout.flush()  # what cannot be written is noticed here and not after the exit code was given
    except KeyboardInterrupt:
        return _told("stopped; run the same command again to resume", 3, before="\n")
    except Exception as error:
        return _ended(error)
    return code


def _ended(error: Exception) -> int:
    """Say in one line what ended a command; returns its exit code."""
    from refloom.schemas.foreseen import CLOSED_PIPE, UNFORESEEN, foreseen, unforeseen

    if isinstance(error, BrokenPipeError):
        with contextlib.suppress(OSError, ValueError):  # else the interpreter complains of it once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    known = foreseen(error)
    if known is not None:
        return _told(str(known), known.exit_code)
    return _told(unforeseen(error), UNFORESEEN)


def _told(text: str, code: int, before: str = "") -> int:
    """Say why a command ended, on one line; returns its exit code."""
    line = " ".join(text.splitlines())
    with contextlib.suppress(OSError, ValueError):  # whoever would read it has gone
        print(f"{before}refloom: {line}", file=sys.stderr)
    return code
