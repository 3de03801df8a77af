"""What `refloom models` does, between the command line and the registry."""

import argparse
import json
import sys
from typing import Any

from inference.models.entry import Entry
from inference.models.registry import ENTRIES


def models(options: argparse.Namespace) -> int:
    """`refloom models`: every model that refloom knows, whether it is there, and how to get it."""
    roles = {role: [_row(entry) for entry in entries] for role, entries in ENTRIES.items()}
    if options.json:
        json.dump(roles, sys.stdout, indent=1)
        print()
        return 0
    for role, rows in roles.items():
        chosen = next((row["name"] for row in rows if row["absent"] is None), None)
        print(f"{role}: `auto` takes {chosen}" if chosen else f"{role}: none is there, its values stay null")
        for row in rows:
            state = "present" if row["absent"] is None else f"absent: {row['absent']}"
            print(f"  {row['name']:20} {row['size_bytes'] / 1e6:>8,.1f} MB  {row['license']}  {state}")
            print(f"  {'':20} {row['identity'] or 'get it with: ' + row['get']}")
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    absent = entry.present()
    return {
        "name": entry.name,
        "absent": absent,
        "identity": None if absent else entry.identity,
        "license": entry.license,
        "size_bytes": entry.size_bytes,
        "source": entry.source,
        "get": entry.get,
        "thresholds": dict(entry.thresholds),
    }
