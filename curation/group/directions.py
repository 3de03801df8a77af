"""Which image a record of the source makes of its others, where the records leave that open or settle it."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from refloom.schemas import ids

Row = dict[str, Any]

_MARK = "#whole~"
"""Between the first member of a record's group and the record, both encoded, so that neither can hold it."""


def group_id_of(first: str, source_id: str, *, is_record: bool) -> str:
    """The id of a group of the source; of a record it names the record, because records may overlap."""
    return f"folder/{first}~{ids.encode(source_id)}" if is_record else f"folder/{first}"


def record_of(group_id: str) -> str:
    """The record that a group was made of, as `directions` names it; empty for other groups."""
    return group_id.partition(_MARK)[2]


def texts_of(source_group: Row) -> tuple[str, ...]:
    """What a group of the source asks for: the same images may be asked for otherwise."""
    return tuple(one["text"] for one in source_group["instructions"] or [])


def directions(source_groups: Iterable[Row]) -> dict[str, str | None]:
    """Record to the image that is made of its others; None where records with the same images make each of them.

    A record that says how its target is to be made is always of that direction.

    Args:
        source_groups: rows of `source_groups`; records by their encoded ids.
    """
    records = [row for row in source_groups if row["kind"] == "record"]
    said: dict[frozenset[str], set[str]] = defaultdict(set)
    for row in records:
        if row["target"] is not None and not texts_of(row):
            said[frozenset(row["members"])].add(row["target"])
    open_ones = {members for members, targets in said.items() if members <= targets}
    return {
        ids.encode(row["group_id"]): None
        if frozenset(row["members"]) in open_ones and not texts_of(row)
        else row["target"]
        for row in records
    }
