"""Crowd regions: several objects under one mask, which are no subject; and brush masks that were exported as such.

Some annotation tools write every mask that was painted as run lengths with `iscrowd` 1. Nothing in the file tells these
from true crowds, so it is for a person to say.
"""

from typing import Any

REJECT, KEEP = "reject", "keep"
"""What becomes of annotations with `iscrowd`: a row in the ledger, or an object like any other."""


def setting(choice: str) -> dict[str, str]:
    """The choice as a part of a plan's settings; absent where it is the default, which older datasets do not name."""
    return {} if choice == REJECT else {"crowds": choice}


def notes(records: list[Any], choice: str) -> list[str]:
    """A note where every annotation of a file is a crowd, and none would be taken.

    Args:
        records: all annotations of the file.
        choice: `REJECT` or `KEEP`.
    """
    found = [record for record in records if isinstance(record, dict)]
    if choice == KEEP or not found or not all(record.get("iscrowd") for record in found):
        return []
    return [
        f"all {len(found):,} annotations are crowds (iscrowd 1), so none is taken: if they are brush masks, which CVAT "
        "and others export so, take them with --crowds keep"
    ]
