"""Sample data and a dataset of it: the commands that a user would type, shown and run one after the other."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from refloom.ingest import sampledata
from refloom.schemas.storage import local_path

_SETTINGS = (
    *("looks.strictness=0.6", "looks.cut_out_margin=0.0", "looks.max_cosine=null", "looks.min_side_px=0.0"),
    "select.min_quality=0.35",
)
"""The defaults are those of photographs. The toys of sample data share shapes and differ in paint, and each is a
cut-out: 96 % of the pairs in groups are of one toy, 44 % at strictness 0. Their quality was never judged."""


def commands(options: argparse.Namespace) -> list[list[str]]:
    """The arguments of `refloom`, command by command.

    Args:
        options: of `refloom demo`.
    """
    sample, dataset = (str(local_path(options.out, "the demo") / name) for name in ("sample", "dataset"))
    size = ["--images", str(options.images), "--videos", str(options.videos), "--seed", str(options.seed)]
    pool = ["--item-timeout", f"{options.item_timeout:g}"]
    pool += ["--workers", str(options.workers)] if options.workers is not None else []
    pool += ["--address", options.address] if options.address is not None else []
    ingests = sampledata.ingest_commands(sample, options.images, options.videos, dataset)
    return [
        ["sample-data", sample, *size],
        *([*command, *pool] for command in ingests),
        ["curate", dataset, *(word for setting in _SETTINGS for word in ("--set", setting)), *pool],
        ["report", dataset],
        ["verify", dataset],
    ]


def demo(options: argparse.Namespace) -> int:
    """`refloom demo [OUT]`: the first exit code that is not 0, or 0.

    Every command resumes, so the demo does: a second run finds all done.
    """
    from refloom.cli import main  # the demo is a user of the command line, and the only one inside

    began = time.monotonic()
    for command in commands(options):
        print(f"\n$ refloom {shlex.join(command)}", flush=True)
        if code := main(command):
            print(f"refloom: the demo stopped at `refloom {shlex.join(command)}`", file=sys.stderr)
            return code
    dataset = Path(options.out) / "dataset"
    print(
        f"\nThe dataset took {time.monotonic() - began:.0f} s. Where to look next:\n"
        f"  {dataset / 'report.html'}  what came in, what was kept and why not the rest: open it in a browser\n"
        f"  {dataset / 'README.md'}  the dataset's card\n"
        f"  refloom status {shlex.quote(str(dataset))}  rows, units and reasons, table by table\n"
        f"  refloom curate {shlex.quote(str(dataset))} --set select.min_quality=0.8 --replace  other thresholds, "
        "in seconds\n"
        f"  python -c 'from datasets import load_dataset; print(load_dataset(\"{dataset}\"))'  the samples"
    )
    return 0
