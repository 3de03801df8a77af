"""The readers of each format by name, made of options as functions or the command line have them."""

import argparse
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from refloom.ingest.source import Source
from refloom.ingest.sourcekinds import SOURCES
from refloom.schemas import settings
from refloom.schemas.errors import Refused
from refloom.schemas.storage import absolute_url

_OWN = ("kind",)
"""Fields that a source gives itself."""


def make(kind: str, /, **options: Any) -> Source:
    """A source by name.

        make("coco", images="val2017", instances="instances_val2017.json", limit=100)

    Args:
        kind: a key of `SOURCES`.
        options: fields of its class. Paths may be texts or `Path`, relative ones count from the current folder.

    Raises:
        Refused: there is no such source or option (with the nearest one), one is missing, or a value is wrong.
    """
    declared = SOURCES.find(str(kind))
    reader = declared.reader_class
    places = {one.field: one.many for one in declared.own_options if one.place}
    values = {name: _value(places, name, value) for name, value in options.items()}
    known = [field for field in dataclasses.fields(reader) if field.name not in _OWN]
    missing = [
        field.name
        for field in known
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    for name in values:
        if name not in {field.name for field in known}:
            near = difflib.get_close_matches(name, [field.name for field in known], n=1)
            all_of_them = ", ".join(field.name for field in known)
            raise Refused(f"{kind} has no {name}" + (f"; did you mean {near[0]}?" if near else f": give {all_of_them}"))
    if missing := [name for name in missing if name not in values]:
        raise Refused(f"{kind} needs {' and '.join(missing)}, as in refloom.ingest({kind!r}, ..., {missing[0]}=...)")
    for name in ("unit_size", "limit"):
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise Refused(f"{name} must be a whole number, 1 or more, not {value!r}")
    if not str(values.get("name", kind)).strip():
        raise Refused("name must not be empty")
    made: Source = settings.build(reader, values, f"{kind}.")
    return made


def _value(places: Mapping[str, bool], name: str, value: Any) -> Any:
    if name not in places or value is None:
        return value
    if places[name]:
        return tuple(map(absolute_url, value if isinstance(value, list | tuple) else [value]))
    return absolute_url(value)


def from_options(options: argparse.Namespace) -> Source:
    """The source that `refloom ingest SOURCE ...` names.

    Raises:
        Refused: a unit or a limit of nothing.
    """
    for option in ("unit_size", "limit"):
        if getattr(options, option, None) is not None and getattr(options, option) < 1:
            raise Refused(f"--{option.replace('_', '-')} must be 1 or more")
    if not options.name.strip():
        raise Refused("--name must not be empty")
    declared = SOURCES.find(options.source)
    said = {one.field: one.name.replace("-", "_") for one in declared.own_options} | {"linked": "link"}
    given: dict[str, Any] = {}
    for field in dataclasses.fields(declared.reader_class):
        value = getattr(options, said.get(field.name, field.name), None)
        if field.name not in _OWN and (value if field.default is None else value is not None):
            given[field.name] = value
    return make(options.source, **given)


__all__ = ["SOURCES", "from_options", "make"]
