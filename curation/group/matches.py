"""Groups over the whole dataset: one person by faces, one thing by looks. Each lies in the unit of its first member."""

from collections.abc import Iterable, Mapping
from typing import Any

from refloom.schemas.ids import image_of
from refloom.schemas.unit import UnitWriter

VERSION = 3

Row = dict[str, Any]


def lead(row: Row, unit_of: Mapping[str | None, str]) -> Row:
    """A group with its `unit`, that of its first member, and the other `units` that hold members."""
    units = list(dict.fromkeys(unit_of[member] for member in row["members"]))
    return row | {"unit": units[0], "units": sorted(units[1:]) or None}


def new_groups(rows: Iterable[Row], source_groups: Mapping[str, frozenset[str]]) -> list[Row]:
    """Groups that are not wholly inside a group of the source, which says the same already.

    Args:
        rows: of groups.
        source_groups: image id to the source groups that it is in.
    """
    none: frozenset[str] = frozenset()
    return [
        row
        for row in rows
        if not frozenset.intersection(*(source_groups.get(image_of(member), none) for member in row["members"]))
    ]


def write_matches(rows: list[Row], out: UnitWriter) -> None:
    """The rows of one unit."""
    out.expect("group", len(rows))
    for row in rows:
        out.add("matches", row)
    out.keep("group", len(rows))
