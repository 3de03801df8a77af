"""The readers of each format by name, with their options, and which of them a command line asks for."""

import argparse
import dataclasses
import difflib
import importlib
from typing import Any

from refloom.ingest.source import Source
from refloom.schemas import settings
from refloom.schemas.errors import Refused
from refloom.schemas.storage import absolute_url

KINDS = {
    "coco": "refloom.ingest.sources.coco:Coco",
    "ytvis": "refloom.ingest.sources.ytvis:YouTubeVis",
    "vos": "refloom.ingest.sources.vos:Vos",
    "sa1b": "refloom.ingest.sources.sa1b:Sa1b",
    "subjects": "refloom.ingest.sources.subjects:Subjects",
    "easyref": "refloom.ingest.sources.easyref:EasyRef",
    "subject10k": "refloom.ingest.sources.subject10k:Subject10k",
    "folder": "refloom.ingest.sources.folder:PlainPictures",
}
"""Name to the class that reads it; its fields are its options."""
_PLACES = ("images", "instances", "captions", "frames", "annotations", "root", "directory", "records", "select", "path")
"""Fields that are a file or a folder."""
_TARS = "tars"
_OWN = ("kind",)
"""Fields that a source gives itself."""
_ELSEWHERE = {"linked": "link", "records": "json"}
"""Fields that the command line calls otherwise."""


def make(kind: str, /, **options: Any) -> Source:
    """A source by name.

        make("coco", images="val2017", instances="instances_val2017.json", limit=100)

    Args:
        kind: a key of `KINDS`.
        options: fields of its class. Paths may be texts or `Path`, relative ones count from the current folder.

    Raises:
        Refused: there is no such source or option (with the nearest one), one is missing, or a value is wrong.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        raise Refused(
            f"there is no source {kind!r}" + (f"; did you mean {near[0]}?" if near else f": give {', '.join(KINDS)}")
        )
    source = _class_of(kind)
    values = {name: _value(name, value) for name, value in options.items()}
    known = [field for field in dataclasses.fields(source) if field.name not in _OWN]
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
    made: Source = settings.build(source, values, f"{kind}.")
    return made


def _class_of(kind: str) -> Any:
    module, _, name = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def _value(name: str, value: Any) -> Any:
    if name == _TARS:
        return tuple(map(absolute_url, value if isinstance(value, list | tuple) else [value]))
    return absolute_url(value) if name in _PLACES and value is not None else value


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
    given: dict[str, Any] = {}
    for field in dataclasses.fields(_class_of(options.source)):
        value = getattr(options, _ELSEWHERE.get(field.name, field.name), None)
        if field.name not in _OWN and (value if field.default is None else value is not None):
            given[field.name] = value
    return make(options.source, **given)
