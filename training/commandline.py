"""The arguments of `refloom train`. Imports nothing that takes time."""

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[[Any, str, str, str, str], argparse.ArgumentParser]


def add_commands(commands: Any, command: Command) -> None:
    """Add train.

    Args:
        commands: where subcommands go.
        command: makes one: `(commands, name, handler, summary, examples)`.
    """
    train = command(
        commands,
        "train",
        "training.command:train",
        "Train an adapter on samples by a recipe. Ctrl-C saves; resumes to the same bits. On several GPUs the same "
        "recipe is shared by all of them: accelerate launch -m training, with the same arguments, and a config of "
        "accelerate's, of which `python -m training.launch` lists those that ship (DDP, DeepSpeed ZeRO-2 and 3). A run "
        "goes on with any other number of GPUs and under any other of them. A launcher that is stopped kills its "
        "processes after 30 s: TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300 leaves them time to save.",
        "  refloom train --config mip/sdxl --set 'data.sources=[{url: DATASET}]' --set models.start=ip-adapter.bin\n"
        "  refloom train --config ms_diffusion --out RUN --resume latest\n"
        "  accelerate launch --config_file $(python -m training.launch zero2-8) -m training --config mip/sdxl ...\n"
        "  accelerate launch --config_file $(python -m training.launch zero2-4x8) --machine_rank 0 "
        "--main_process_ip HOST -m training ...",
    )
    train.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help="a recipe: easyref/1-alignment, easyref/2-single, easyref/3-multi, ezigen, mip/sdxl, mip/sdxl_plus, "
        "ms_diffusion, ip_adapter; each also under debug/ in a size for tests; or a YAML file",
    )
    train.add_argument("--out", metavar="RUN", help="folder of the run (default: runs/NAME)")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. optimizer.lr=2e-5"
    )
    train.add_argument("--resume", metavar="WHERE", help="latest, or the folder of a checkpoint")
    train.add_argument("--print-config", action="store_true", help="print the whole recipe and stop")
    train.add_argument("--preview", metavar="FILE", help="write a page of the first batches and stop")
