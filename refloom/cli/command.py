"""What every command of the command line is made with. Imports nothing that takes time."""

import argparse
import importlib
from typing import Any


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are written and names the defaults, once, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        return text if action.default is None or "(default" in text else super()._get_help_string(action)


def add_command(commands: Any, name: str, handler: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """Add a subcommand.

    Args:
        commands: where subcommands go.
        name: of the command.
        handler: `module:function`, called with the arguments, returns the exit code; several with spaces between are
            called in turn, up to the first that fails.
        summary: one line.
        examples: lines, each indented by two spaces.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=f"examples:\n{examples}", formatter_class=Help
    )
    parser.set_defaults(handler=handler)
    return parser


def add_ranged(parser: Any, name: str, where: str, **more: Any) -> None:
    """Add an option whose value must be in a range.

    Args:
        parser: of argparse, or a group of one.
        name: of the option, such as `--steps`.
        where: the range is declared, as `module:NAME`; imported when a value is given, so that `--help` stays light.
        more: as `add_argument` takes it.
    """

    def read(text: str) -> Any:
        module, _, constant = where.partition(":")
        of = getattr(importlib.import_module(module), constant)
        return importlib.import_module("refloom.schemas.ranges").given(name, text, of)

    parser.add_argument(name, type=read, **more)


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Add the options about workers."""
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
