"""The command line as a whole. What commands do is imported when needed, so that `refloom --help` answers at once."""

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from refloom import __version__
from refloom.cli import dataarguments, datasetarguments, lookarguments, picturearguments, sharearguments, trainarguments
from refloom.cli.command import Help, add_command, add_pool, add_ranged
from refloom.cli.groups import GroupedParser
from refloom.ingest.sourcekinds import SOURCES
from refloom.schemas.plugins import VARIABLE


def _add_demo_commands(commands: Any) -> None:
    sample = add_command(
        commands,
        "sample-data",
        "refloom.cli.ingest:sample_data",
        "Write COCO, YouTube-VIS and SA-1B trees in the true formats, made from photographs inside installed packages.",
        "  refloom sample-data OUT --images 100 --videos 10 --seed 0\n"
        "  refloom sample-data OUT --images 0 --videos 0 --scenes 50000",
    )
    sample.add_argument("out", metavar="OUT", help="new or empty folder")
    sample.add_argument(
        "--images", type=int, default=48, metavar="N", help="COCO pictures, and as many in the SA-1B tars"
    )
    sample.add_argument("--videos", type=int, default=6, metavar="N", help="videos")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument(
        "--scenes",
        type=int,
        default=0,
        metavar="N",
        help="small pictures of toys for training bases on, in YouTube-VIS's format: one cast is one video",
    )
    add_ranged(
        sample,
        "--side",
        "refloom.ingest.sampledata:SIDE",
        default=64,
        metavar="PX",
        help="of the scenes: 64 or 128",
    )
    add_pool(sample)
    demo = add_command(
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
    add_pool(demo)


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line; of an ingest with the sources of installed plugins, which are looked up for it alone."""
    parser = GroupedParser(
        prog="refloom",
        description="Grouped reference data from public image and video sets, and reference adapters trained on it.",
        epilog="exit codes: 0 done, 1 done and some rows failed or nothing was kept, 2 usage or refused, "
        "3 the job could not finish (run it again to resume), 4 an error that was not foreseen",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"refloom {__version__}")
    parser.add_argument(
        "--plugin",
        action="append",
        metavar="MODULE",
        help="a module or .py file that adds sources, models, methods ...; anywhere in a command, may be repeated",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)
    sources = SOURCES if "ingest" in words or VARIABLE in os.environ else SOURCES.own
    dataarguments.add_ingest(commands, sources)
    dataarguments.add_commands(commands)
    datasetarguments.add_commands(commands)
    sharearguments.add_export(commands)
    lookarguments.add_commands(commands)
    sharearguments.add_commands(commands)
    picturearguments.add_commands(commands)
    trainarguments.add_commands(commands)
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
        from refloom.schemas.storeerrors import store_errors_stop  # `--help` imports nothing of ours

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
