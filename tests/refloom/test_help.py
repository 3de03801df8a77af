"""`refloom --help`: every command in its group, a line each, and nothing imported for it."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import refloom
from refloom import cli
from refloom.cli.groups import GROUPS, shown

ROOT = Path(refloom.__file__).parents[1]
TITLES = ["data", "curation", "datasets", "sharing", "looking", "training", "pictures", "more"]


def commands(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser] | None":
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def handlers(parser: argparse.ArgumentParser) -> set[str]:
    found = set((parser.get_default("handler") or "").split())
    below = commands(parser)
    for inner in below.choices.values() if below else ():
        found |= handlers(inner)
    return found


def test_every_command_is_in_one_group_on_a_line_that_fits(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")] == [*TITLES, "options"]
    listed = [line.split()[0] for line in lines[: lines.index("options:")] if line.startswith("  ")]
    assert sorted(listed) == sorted(commands(cli.build_parser()).choices)
    assert list(GROUPS) == TITLES
    assert max(len(line) for line in lines if line.startswith("  ")) <= 80


def test_a_command_that_no_group_names_is_shown_under_more():
    parser = cli.build_parser()
    action = commands(parser)
    action.add_parser("extra", help="Do something else, by 100 %. And more.")
    assert shown(action)["more"]["extra"] == "Do something else, by 100 %"
    assert "extra        Do something else, by 100 %\n" in parser.format_help()


@pytest.mark.parametrize("handler", sorted(handlers(cli.build_parser())))
def test_what_a_command_calls_is_there(handler):
    module, _, function = handler.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


DECLARATIONS = ("ingest", "ingest.sourcekinds", "schemas", "schemas.errors", "schemas.plugins")


def test_help_imports_the_command_line_declarations_and_the_standard_library_alone():
    code = "import sys\nfrom refloom import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in sys.modules if not name.startswith('_')], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = eval(done.stderr)  # a list of texts of ours
    ours = {name for name in imported if name.startswith("refloom.") and not name.startswith("refloom.cli")}
    # what declares sources, for the commands that they are; no reader is among it
    assert ours <= {f"refloom.{name}" for name in DECLARATIONS}
    assert {name.partition(".")[0] for name in imported} - {"refloom"} <= set(sys.stdlib_module_names)
    assert len(imported) < 200
