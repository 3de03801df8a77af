"""Typed settings: nested frozen dataclasses from YAML and `key=value`, with errors that say what was meant."""

import dataclasses
import difflib
import math
import os
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from refloom.schemas import ranges, yamls
from refloom.schemas.errors import Refused

T = TypeVar("T")

Overrides = Sequence[str] | Mapping[str, Any]
"""Settings that differ: `dotted.key=value` with the value as YAML, or dotted keys with their values."""


def load(kind: type[T], file: str | os.PathLike[str] | None = None, overrides: Overrides = ()) -> T:
    """Settings from defaults, then a YAML file, then overrides.

    Args:
        kind: a frozen dataclass whose fields are values or such dataclasses.
        file: YAML with any part of the settings.
        overrides: `dotted.key=value`, the value as YAML; or a mapping of dotted keys to values.

    Raises:
        Refused: unknown key (with the nearest known one), wrong type, or a value the dataclass refuses.
    """
    values = {} if file is None else read(os.fspath(file))
    apply(values, overrides)
    return build(kind, values)


def apply(values: dict[str, Any], overrides: Overrides) -> None:
    """Lay settings that differ into others that are not built yet.

    Args:
        values: as they are read from YAML; changed.
        overrides: as for `load`.

    Raises:
        Refused: one is not written so, or lies inside a value.
    """
    if isinstance(overrides, str):
        raise Refused(f"{overrides!r:.60} is one text: give a list of `key=value`, or a mapping of keys to values")
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _lay(values, str(key), value, f"the setting {key}")
    else:
        for one in overrides:
            set_value(values, one)


def read(file: str) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        Refused: it cannot be read, is not YAML, or holds something else.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            values = yamls.loads(stream.read()) or {}
    except OSError as error:
        raise Refused(f"cannot read the config {file}: {error.strerror}") from error
    except ValueError as error:
        raise Refused(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise Refused(f"{file} must hold `key: value` settings, not a {type(values).__name__}")
    return values


def set_value(values: dict[str, Any], override: str) -> None:
    """Lay one `dotted.key=value` into settings that are not built yet.

    Raises:
        Refused: it is not written so, or lies inside a value.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise Refused(f"--set {override}: write it as key=value, e.g. --set select.min_quality=0.5")
    try:
        value = yamls.loads(text)
    except ValueError as error:
        raise Refused(f"--set {override}: the value is not YAML") from error
    _lay(values, key.strip(), value, f"--set {override}")


def _lay(values: dict[str, Any], key: str, value: Any, said: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise Refused(f"{said}: {parent} is a value, not a section")
        values = inner
    values[last] = dict(value) if isinstance(value, Mapping) else value


def build(kind: type[T], values: dict[str, Any], path: str = "") -> T:
    """One dataclass from a mapping; `path` is its dotted place, for messages. Ranges are those of `schemas.ranges`."""
    if not isinstance(values, dict):
        raise Refused(f"{path.rstrip('.') or 'settings'} is a section with keys, not {values!r}")
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            meant = f"; did you mean {path}{near[0]}?" if near else f"; known: {', '.join(names)}"
            raise Refused(f"unknown setting {path}{key}{meant}")
    try:
        return kind(**{key: _value(hints[key], value, f"{path}{key}") for key, value in values.items()})
    except ranges.OutOfRange as error:
        raise Refused(f"{path}{error}") from error
    except (TypeError, ValueError) as error:
        raise Refused(f"{path.rstrip('.') or 'settings'}: {error}") from error


def _value(kind: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        found, of = _value(arguments[0], value, path), ranges.of_hint(kind)
        if of is not None:
            ranges.check(path, found, of)
        return found
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, path + ".")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(argument for argument in arguments if argument is not type(None)), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise Refused(f"{path} is a list, not {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_value(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
        if len(value) != len(arguments):
            raise Refused(f"{path} has {len(arguments)} values, not {len(value)}")
        return tuple(_value(argument, item, path) for argument, item in zip(arguments, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise Refused(f"{path} is a section with keys, not {value!r}")
        return {str(key): _value(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 1e-4 as text
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise Refused(f"{path} is a number, not {value!r}")
        return number
    if type(value) is not kind:
        raise Refused(f"{path} is a {kind.__name__}, not {value!r}")
    return value


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as nested dicts and lists, fit for json and YAML."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    result: dict[str, Any] = plain(settings)
    return result
