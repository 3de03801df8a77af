"""The arguments of `refloom train` and `refloom cache`. Imports nothing that takes time."""

from typing import Any

from refloom.cli.command import add_command, add_pool, add_ranged

_RECIPES = (
    "a recipe: easyref/1-alignment, easyref/2-single, easyref/3-multi, ezigen, mip/sdxl, mip/sdxl_plus, "
    "ms_diffusion, ip_adapter; each also under tiny/ for the models that base/tiny/sdxl, sd, clip and qwen2vl "
    "make, and under debug/ in a size for tests; or a YAML file"
)


def add_commands(commands: Any) -> None:
    """Add cache, train and heldout.

    Args:
        commands: where subcommands go.
    """
    cache = add_command(
        commands,
        "cache",
        "refloom.cli.train:cache",
        "Compute once, on Ray, what a recipe keeps frozen: latents, text states, features of references. Resumes; does "
        "only what is missing or out of date. Then train with it: --set 'data.sources=[{url: DATASET, features: "
        "FEATURES}]'.",
        "  refloom cache DATASET --recipe mip/sdxl\n"
        "  refloom cache DATASET --recipe ms_diffusion --variants 2 --out s3://bucket/features --device cuda",
    )
    cache.add_argument("dataset", metavar="DATASET", help="a dataset or a publication")
    cache.add_argument("--recipe", required=True, metavar="NAME", help=_RECIPES)
    cache.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="as for `refloom train`"
    )
    add_ranged(
        cache,
        "--variants",
        "refloom.training.ranges:VARIANTS",
        default=4,
        metavar="K",
        help="of each target: crops, flips, references and captions that training draws among",
    )
    cache.add_argument("--out", metavar="FEATURES", help="folder or URL (default: DATASET/features/NAME)")
    cache.add_argument("--tag", metavar="NAME", help="the state of DATASET that has this name (default: as it is now)")
    cache.add_argument("--split", choices=("train", "validation"), default="train", help="of the samples")
    cache.add_argument("--device", default="auto", help="of the models: auto, cpu or cuda")
    add_ranged(
        cache,
        "--batch",
        "refloom.schemas.ranges:COUNT",
        default=8,
        metavar="N",
        help="pictures that go through a model at once",
    )
    cache.add_argument(
        "--replace", action="store_true", help="make features anew that are of other settings, models or samples"
    )
    cache.add_argument("--dry-run", action="store_true", help="say what would be done")
    add_pool(cache)
    train = add_command(
        commands,
        "train",
        "refloom.cli.train:train",
        "Train an adapter on samples by a recipe. Ctrl-C saves; resumes to the same bits. On several GPUs the same "
        "recipe is shared by all of them: `accelerate launch --config_file $(python -m refloom.training.launch "
        "zero2-8) -m refloom.training`, with the same arguments; `python -m refloom.training.launch` lists the configs "
        "that ship (DDP, DeepSpeed ZeRO-2 and 3). A run goes on with any other number of GPUs and under any other of "
        "them. A launcher that is stopped kills its processes after 30 s: TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300 leaves "
        "them time to save.",
        "  refloom train --config mip/sdxl --set 'data.sources=[{url: DATASET}]' --set models.start=ip-adapter.bin\n"
        "  refloom train --config mip/sdxl --set 'data.sources=[{url: DATASET}]' --set data.kinds=[cross] "
        "--preview page.html\n"
        "  refloom train --config ip_adapter --set 'data.sources=[{url: DATASET, features: FEATURES}]'\n"
        "  refloom train --config ms_diffusion --out RUN --resume latest",
    )
    train.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help=_RECIPES,
    )
    train.add_argument("--out", metavar="RUN", help="local folder of the run (default: runs/NAME)")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="e.g. optimizer.lr=2e-5"
    )
    train.add_argument(
        "--resume",
        metavar="WHERE",
        help="latest, or the folder of a checkpoint: what the run did after that one is set aside in RUN/aside, from "
        "where it can be resumed too",
    )
    train.add_argument("--print-config", action="store_true", help="print the whole recipe and stop")
    train.add_argument("--preview", metavar="FILE", help="write a page of the first batches and stop")
    heldout = add_command(
        commands,
        "heldout",
        "refloom.cli.train:heldout",
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
    heldout.add_argument("--device", default="auto", help="to compute on: auto, cpu or cuda")
    add_ranged(
        heldout,
        "--samples",
        "refloom.training.ranges:SAMPLES",
        default=64,
        metavar="N",
        help="most that are looked at",
    )
