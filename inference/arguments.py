"""References and settings as the command line writes them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from refloom.inference import ranges
from refloom.inference.adapters.reference import Reference
from refloom.inference.request import check_names
from refloom.schemas import yamls
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Range, Word, check

Settings = dict[str, Any]
FILES = Word(("pil",), remedy="files are made of pictures; latents and arrays are for Python")
"""What `output_type` can be where pictures are written."""

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
    scale = ranges.SCALE.read(options.get("scale", 1.0))
    check(f"--reference {text}: the scale", scale, ranges.SCALE)
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
            settings[name] = yamls.loads(value)
        except ValueError as error:
            raise Refused(f"--set {text}: the value is not YAML") from error
    return settings


def read_settings(settings: Mapping[str, Any], kind: str, taken: Iterable[str]) -> tuple[Settings, Settings]:
    """Settings as values of their ranges: the adapter's own, and those of its generation.

    Args:
        settings: of `parse_settings`.
        kind: of the adapter.
        taken: names that its generation takes.

    Raises:
        Refused: nobody has a setting of that name (with the nearest that there is), or its value is out of range.
    """
    own = ranges.of_adapter(kind)
    of_generation = {name: ranges.OPTIONS[name] for name in set(taken) & set(ranges.OPTIONS)}
    ours, others = {}, {}
    for name, value in settings.items():
        if name in ranges.REQUEST or name == "seed":
            raise Refused(f"--set {name}={value}: it has an option of its own, see --help")
        known = {*own, *of_generation, *ranges.REQUEST}
        check_names(f"--set {name}={value}: a generation with the {kind} adapter", [name], known)
        if name in own:
            ours[name] = _checked(name, value, own[name])
        else:
            others[name] = _checked(name, value, FILES if name == "output_type" else of_generation[name])
    return ours, others


def apply_settings(adapter: Any, settings: Mapping[str, Any], taken: Iterable[str] = ranges.OPTIONS) -> Settings:
    """Set those that are the adapter's own; the others, which are of its generation, are returned.

    Raises:
        Refused: as `read_settings`; then none is set.
    """
    ours, others = read_settings(settings, adapter.kind, taken)
    for name, value in ours.items():
        setattr(adapter, name, value)
    return others


def _checked(name: str, value: Any, of: Range) -> Any:
    found = of.read(value)
    check(f"--set {name}", found, of)
    return found


def _box(part: str, text: str) -> list[float]:
    try:
        return [float(edge) for edge in part.split(",")]
    except ValueError as error:
        raise Refused(f"--reference {text}: the box {part} is not four numbers x1,y1,x2,y2") from error
