"""References and settings as the command line writes them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from inference.adapters.reference import Reference
from schemas.errors import Refused

_BOX = re.compile(r"[-+.\deE\s]+(,[-+.\deE\s]*)+")
_OPTIONS = ("scale", "crop", "mask")


def parse_reference(text: str) -> Reference:
    """Read `FILE[:PHRASE][:BOX ...][:scale=S][:crop=face][:mask=FILE]`.

    FILE may be a folder, whose pictures all show the subject. Where its own name has colons, the longest name that
    exists is meant. BOX is `x1,y1,x2,y2` in 0–1 of the generated picture.

    Raises:
        Refused: a part is not understood, or `Reference` refuses what it says.
    """
    parts = text.split(":")
    length = next((n for n in range(len(parts), 0, -1) if Path(":".join(parts[:n])).exists()), 1)
    file, *rest = ":".join(parts[:length]), *parts[length:]
    phrase: str | None = None
    boxes: list[list[float]] = []
    options: dict[str, Any] = {}
    for part in (part.strip() for part in rest):
        name, equals, value = part.partition("=")
        if equals and name in _OPTIONS:
            options[name] = value
        elif _BOX.fullmatch(part):
            boxes.append(_box(part, text))
        elif phrase is None and part:
            phrase = part.strip("\"'")
        else:
            raise Refused(
                f"--reference {text}: {part!r} is not understood; write FILE:PHRASE:x1,y1,x2,y2, and scale=, crop= or "
                "mask= behind"
            )
    try:
        scale = float(options.get("scale", 1.0))
    except ValueError as error:
        raise Refused(f"--reference {text}: the scale is a number, not {options['scale']!r}") from error
    return Reference(file, phrase, boxes or None, options.get("mask"), scale, options.get("crop"))


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` with values in YAML.

    Raises:
        Refused: one is written otherwise.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise Refused(f"--set {text}: write it as key=value, e.g. --set mask_threshold=0.5")
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise Refused(f"--set {text}: the value is not YAML") from error
    return settings


def apply_settings(adapter: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Set those that are plain attributes of the adapter; the others, which are of its generation, are returned.

    Raises:
        Refused: a value is of another type than the attribute's.
    """
    others: dict[str, Any] = {}
    for name, value in settings.items():
        present = getattr(adapter, name, others)
        if name.startswith("_") or not isinstance(present, bool | int | float | str | None):
            others[name] = value
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number if isinstance(present, float) else present is None or type(value) is type(present)
        if not fits and not (value is None and present is not None and isinstance(present, float)):
            raise Refused(f"--set {name}={value}: it is a {type(present).__name__}, now {present}")
        setattr(adapter, name, value)
    return others


def _box(part: str, text: str) -> list[float]:
    try:
        return [float(edge) for edge in part.split(",")]
    except ValueError as error:
        raise Refused(f"--reference {text}: the box {part} is not four numbers x1,y1,x2,y2") from error
