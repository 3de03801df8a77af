"""What curation decides about real photographs, against judgements by eye; each section is a file of `judged`.

A section is a module with `run(quick) -> Section`. It takes in what it needs of the folder of photographs by itself.
"""

import importlib

from benchmarks.judged.photographs import shared
from benchmarks.table import Result

SECTIONS = ("references", "faces", "groups")
"""Modules of `benchmarks.judged`, in the order of the table."""


def run(quick: bool) -> Result:
    """The numbers of every section, with 95 % intervals, beside those of November 2026."""
    found = {name: importlib.import_module(f"benchmarks.judged.{name}").run(quick) for name in SECTIONS}
    return Result(
        f"Decisions about real photographs ({shared().name})",
        ("section", "what", "2026-11", "now"),
        [line.cells(name) for name, section in found.items() for line in section.lines],
        " ".join(section.notes for section in found.values()),
        [check for section in found.values() for check in section.checks],
    )
