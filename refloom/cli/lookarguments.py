"""The arguments of the commands that look at datasets and models. Imports nothing that takes time."""

from typing import Any

from refloom.cli.command import add_command, add_ranged


def add_commands(commands: Any) -> None:
    """Add inspect, browse and models.

    Args:
        commands: where subcommands go.
    """
    inspect = add_command(
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

    browse = add_command(
        commands,
        "browse",
        "refloom.cli.browse:browse",
        "Serve a local page to search and look at pictures, objects, faces, groups and samples; read only, but for "
        "--label.",
        "  refloom browse DATASET\n  refloom browse DATASET --port 8080\n  refloom browse DATASET --label",
    )
    browse.add_argument("dataset", metavar="DATASET")
    browse.add_argument("--host", default="127.0.0.1", help="to listen on; anything else shows the dataset to others")
    add_ranged(browse, "--port", "refloom.schemas.ranges:PORT", default=0, help="0 takes a free one")
    browse.add_argument(
        "--label",
        action="store_true",
        help="a page on which you judge objects as references, key by key; `refloom fit-quality` learns from it",
    )
    browse.add_argument("--labeller", metavar="NAME", help="who judges, kept in the table `labels`")
    _add_models(commands)


def _add_models(commands: Any) -> None:
    models = add_command(
        commands,
        "models",
        "refloom.cli.models:models",
        "The models that refloom knows, a line each: role, name, whether it is there, size, license.",
        "  refloom models\n  refloom models --verbose\n  refloom models get dinov2-base",
    )
    models.add_argument("--json", action="store_true", help="print json")
    models.add_argument("--verbose", action="store_true", help="also what identifies each, or how to get it")
    get = add_command(
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
