"""The arguments of `refloom train`. Imports nothing that takes time."""

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[[Any, str, str, str, str], argparse.ArgumentParser]


def add_commands(commands: Any, command: Command) -> None:
    """Add train and heldout.

    Args:
        commands: where subcommands go.
        command: makes one: `(commands, name, handler, summary, examples)`.
    """
    train = command(
        commands,
        "train",
        "training.command:train",
        "Train an adapter on samples by a recipe. Ctrl-C saves; resumes to the same bits. On several GPUs: "
        "accelerate launch -m training, with the same arguments.",
        "  refloom train --config mip/sdxl --set 'data.sources=[{url: DATASET}]' --set models.start=ip-adapter.bin\n"
        "  refloom train --config ms_diffusion --out RUN --resume latest",
    )
    train.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help="a recipe: easyref/1-alignment, easyref/2-single, easyref/3-multi, ezigen, mip/sdxl, mip/sdxl_plus, "
        "ms_diffusion, ip_adapter; each also under tiny/ for the models that base/tiny/sdxl, sd, clip and qwen2vl "
        "make, and under debug/ in a size for tests; or a YAML file",
    )
    train.add_argument("--out", metavar="RUN", help="folder of the run (default: runs/NAME)")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. optimizer.lr=2e-5"
    )
    train.add_argument("--resume", metavar="WHERE", help="latest, or the folder of a checkpoint")
    train.add_argument("--print-config", action="store_true", help="print the whole recipe and stop")
    train.add_argument("--preview", metavar="FILE", help="write a page of the first batches and stop")
    heldout = command(
        commands,
        "heldout",
        "training.command:heldout",
        "Whether an adapter reads its references: its loss on held-out samples with the right references and with "
        "those of other samples, at the same noise.",
        "  refloom heldout RUN/adapter --config tiny/mip/sdxl --set 'data.sources=[{url: DATASET}]'\n"
        "  refloom heldout RUN/adapter --config RUN/recipe.yaml --samples 200",
    )
    heldout.add_argument("adapter", metavar="ADAPTER", help="folder of an adapter that was trained")
    heldout.add_argument("--config", required=True, metavar="NAME", help="its recipe, or the recipe.yaml of its run")
    heldout.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. batch.micro=2"
    )
    heldout.add_argument("--samples", type=int, default=64, metavar="N", help="most that are looked at")
