"""What `refloom models` and `models get` do, between the command line and the library."""

import argparse
from typing import Any

from refloom.inference.models import fetching, registry
from refloom.inference.models.entry import Entry, Weights
from refloom.ingest.engine.progress import Pace, TerminalLine, duration
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.wording import size


def models(options: argparse.Namespace) -> int:
    """`refloom models`: every model that refloom knows, whether it is there, and how to get it."""
    roles = {role: [_row(entry) for entry in entries] for role, entries in registry.entries().items()}
    if options.json:
        print(strict.dumps(roles, indent=1))
    elif options.verbose:
        _print_all(roles)
    else:
        _print_lines()
    return 0


def _print_lines() -> None:
    rows = []
    for role, entries in registry.entries().items():
        taken = registry.resolve(role)
        for entry in entries:
            state = ("there, taken by auto" if entry is taken else "there") if entry.present() is None else "absent"
            brought = f"; comes with {_packages(entry)}" if entry.is_packaged else ""
            rows.append((role, entry.name, state, size(entry.size_bytes).rjust(7), f"{entry.license}{brought}"))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row[:4], widths, strict=True)), row[4]]))
    print("`refloom models get NAME` fetches one; --verbose says what identifies each, and how to get it by hand")


def _packages(entry: Entry) -> str:
    """What brings a packaged model: the packages of its weights, or of its code where it has none."""
    modules = {weights.module for weights in entry.weights if isinstance(weights, Weights)}
    brings = [one for one in entry.packages if one.module in modules] or list(entry.packages)
    return ", ".join(one.distributions[0] for one in brings)


def _print_all(roles: dict[str, list[dict[str, Any]]]) -> None:
    for role, rows in roles.items():
        chosen = next((row["name"] for row in rows if row["absent"] is None), None)
        print(f"{role}: `auto` takes {chosen}" if chosen else f"{role}: none is there, its values stay null")
        for row in rows:
            state = "present" if row["absent"] is None else f"absent: {row['absent']}"
            print(f"  {row['name']:20} {row['size_bytes'] / 1e6:>8,.1f} MB  {row['license']}  {state}")
            print(f"  {'':20} {row['identity'] or 'get it with: ' + row['get']}")


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


def get(options: argparse.Namespace) -> int:
    """`refloom models get NAME`: 0 when its files are there."""
    found = [(name, registry.named(name)) for name in dict.fromkeys(options.names)]  # a wrong name fetches nothing
    if options.source and len(found) > 1:
        raise Refused("--from is for one model: give one name")
    for name, entries in found:
        entry = entries[0]
        if entry.is_packaged:
            _tell_packaged(entry)
            continue
        print(f"{name}: {size(entry.size_bytes)}, license {entry.license}, from {options.source or entry.source}")
        with _Fetched() as shown:
            notes = fetching.fetch(entry, source=options.source, show=shown)
        for note in notes:
            print(f"  {note}")
        missing = [reason for package in entry.packages if (reason := package.missing())]
        if missing:
            installs = " ".join(sorted({package.distributions[0] for package in entry.packages if package.missing()}))
            print(f"  its files are there, and {missing[0]}: pip install {installs}")
            continue
        roles = [one.role for one in entries if registry.resolve(one.role) is one]
        taken = f"takes it for {', '.join(roles)}" if roles else "takes a better one that is there too"
        print(f"  it is there; `auto` {taken}")
    return 0


def _tell_packaged(entry: Entry) -> None:
    if (absent := entry.present()) is not None:
        raise Refused(f"{entry.name} comes with packages and is not fetched, and {absent}: {entry.get}")
    print(f"{entry.name} is there: it comes with {_packages(entry)}")


class _Fetched:
    """A line a file: how much of it is there, how fast it comes, and how long it will still take."""

    def __init__(self) -> None:
        self._file = ""
        self._line, self._pace = TerminalLine(), Pace()
        self._began = (0.0, 0)

    def __enter__(self) -> "_Fetched":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.end(None)

    def __call__(self, file: str, done: int, total: int | None, now: float) -> None:
        """See `fetching.Show`."""
        if file != self._file:
            self._line.end(None)
            self._file, self._pace, self._began = file, Pace(), (now, done)
        began, before = self._began
        left = self._pace.left_s(done, total, now) if total else None
        of = f"{size(done)} of {size(total)}" if total else size(done)
        rate = f"{size((done - before) / max(now - began, 1e-3))}/s"
        self._line.show(file, done / total if total else 0.0, f"{of}  {rate}  {duration(left)} left")
