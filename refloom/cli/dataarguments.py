"""The arguments of the commands that make, curate and look after a dataset. Imports nothing that takes time."""

import argparse
from collections.abc import Iterable
from typing import Any

from refloom.cli.command import add_command, add_pool
from refloom.ingest.sourcekinds import SOURCES, SourceKind


def add_ingest(commands: Any, names: Iterable[str]) -> None:
    """Add ingest.

    Args:
        commands: where subcommands go.
        names: of the kinds of sources.
    """
    parser = add_command(
        commands,
        "ingest",
        "",
        "Take pictures and annotations from a source into a dataset. Resumes; several ingests may share one dataset.",
        "  refloom ingest coco --images val2017 --instances annotations/instances_val2017.json --out DATASET\n"
        "  refloom ingest sa1b /data/sa1b --link --out DATASET",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")

    for name in names:
        _add_own(_add_source(sources, name, SOURCES[name]), SOURCES[name])


def _add_source(sources: Any, name: str, kind: SourceKind) -> argparse.ArgumentParser:
    """The command of one kind of source, with the options that every source has."""
    one = add_command(
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
    add_pool(one)
    return one


def _add_own(one: argparse.ArgumentParser, kind: SourceKind) -> None:
    """The options that a kind of source has of its own."""
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


def add_commands(commands: Any) -> None:
    """Add curate, fit-quality, status, verify, report, mend and relink.

    Args:
        commands: where subcommands go.
    """
    _add_curate(commands)
    _add_fit_quality(commands)
    _add_accounts(commands)
    _add_mend(commands)


def _add_curate(commands: Any) -> None:
    curate = add_command(
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
    add_pool(curate)


def _add_fit_quality(commands: Any) -> None:
    fit = add_command(
        commands,
        "fit-quality",
        "refloom.cli.taste:fit_quality",
        "Fit the weights of object quality to your judgements, say how well they rank by cross-validation over images, "
        "and write a config for curate.",
        "  refloom fit-quality DATASET\n"
        "  refloom fit-quality DATASET --labels references.tsv --out mine.yaml\n"
        "  refloom fit-quality DATASET --replace",
    )
    fit.add_argument("dataset", metavar="DATASET")
    fit.add_argument(
        "--labels",
        metavar="FILE",
        help="tab-separated object_id and score, or score_a, score_b ... (default: what `browse --label` wrote)",
    )
    fit.add_argument("--out", default="quality.yaml", metavar="FILE", help="config to write")
    fit.add_argument(
        "--ignore-unknown", action="store_true", help="go on where FILE judges objects that are not in the dataset"
    )
    fit.add_argument("--replace", action="store_true", help="write over a config that is there")
    fit.add_argument("--json", action="store_true", help="print json")


def _add_accounts(commands: Any) -> None:
    """What a dataset holds, and whether it is whole."""
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
        one = add_command(
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


def _add_mend(commands: Any) -> None:
    mend = add_command(
        commands,
        "mend",
        "refloom.cli.curate:mend",
        "Make again what is damaged, with the settings of then, to the same bytes; derive dataset.json and the card.",
        "  refloom mend DATASET",
    )
    mend.add_argument("dataset", metavar="DATASET")
    add_pool(mend)
    relink = add_command(
        commands,
        "relink",
        "refloom.cli.ingest:relink",
        "Say where linked pictures lie that have moved; some are compared with what was ingested.",
        "  refloom relink DATASET /new/val2017\n  refloom relink DATASET /new/sa1b --root sa1b.sa_000000",
    )
    relink.add_argument("dataset", metavar="DATASET")
    relink.add_argument("folder", metavar="FOLDER", help="folder or URL that takes the place of the old one")
    relink.add_argument("--root", metavar="NAME", help="which, as dataset.json names them (default: the only one)")
