"""Ways to damage a file, by their names."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path


def flip(path: Path) -> None:
    """Change a byte in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Take the end away."""
    path.write_bytes(path.read_bytes()[:-5])


def count_wrong(path: Path) -> None:
    """Let a manifest say that one more was kept."""
    path.write_text(re.sub(r'"kept": (\d+)', lambda found: f'"kept": {int(found[1]) + 1}', path.read_text(), count=1))


def typed_wrong(path: Path) -> None:
    """Give members of a json object types that they never have."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": "none", "roots": 3, "tables": [1]}))


def other_unit(path: Path) -> None:
    """Let a manifest be that of another unit."""
    path.write_text(path.read_text().replace('"unit": "', '"unit": "x'))


def stray(path: Path) -> None:
    """A file of rows that nobody names."""
    shutil.copy(next(path.parent.glob("*.parquet")), path)


HOW: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "cut": cut,
    "flipped": flip,
    "emptied": lambda path: path.write_bytes(b""),
    "no json": lambda path: path.write_text("{"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a number": lambda path: path.write_text("7"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "other types": typed_wrong,
    "other counts": count_wrong,
    "of another unit": other_unit,
    "stray": stray,
    "edited": lambda path: path.write_text(path.read_text() + "\nmore\n"),
}


def hurt(place: Path, pattern: str, how: str) -> Path:
    """Damage the last file of a pattern below a folder, or make one of that name."""
    found = sorted(place.glob(pattern))
    path = found[-1] if found else place / pattern
    HOW[how](path)
    return path
