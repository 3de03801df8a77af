"""Whether json that somebody else wrote has the shape that is expected of it: types and keys, and nothing of meaning.

A shape is `None`, `str`, `int` (from 0, of 64 bits), `bool`, `float` (finite, whole ones too), `dict` (any mapping),
`object` (anything), `[shape]` for a list, `{"*": shape}` for a mapping of any keys, or `{"key": shape, "key?": shape}`
for one of these keys, of which those with a question mark may be absent; other keys may be there too. A tuple of shapes
is any one of them.
"""

import math
from typing import Any

_NAMES = {str: "a text", int: "a whole number from 0", bool: "true or false", float: "a number", dict: "an object"}


def misfit(value: Any, shape: Any, where: str = "it") -> str | None:
    """What does not fit, with its place; None where everything does.

    Args:
        value: parsed json, of bounded depth.
        shape: see the module.
        where: the value's place, for the answer.
    """
    if isinstance(shape, tuple):
        found = [misfit(value, one, where) for one in shape]
        return None if None in found else found[0]
    if shape is None:
        return None if value is None else f"{where} is not null"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is no list"
        return _first(misfit(item, shape[0], f"{where}[{index}]") for index, item in enumerate(value))
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where} is no object"
        if "*" in shape:
            return _first(misfit(item, shape["*"], f"{where}.{key}") for key, item in value.items())
        return _first(_key(value, key, inner, where) for key, inner in shape.items())
    return None if _is(value, shape) else f"{where} is not {_NAMES.get(shape, 'what it should be')}"


def _key(value: dict[str, Any], key: str, shape: Any, where: str) -> str | None:
    name = key.removesuffix("?")
    if name in value:
        return misfit(value[name], shape, name if where == "it" else f"{where}.{name}")
    return None if name != key else f"{where} has no {name}"


def _is(value: Any, kind: Any) -> bool:
    if kind is object:
        return True
    if kind is int:
        return type(value) is int and 0 <= value < 1 << 63
    if kind is float:
        return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)
    return type(value) is kind


def _first(found: Any) -> str | None:
    return next((one for one in found if one is not None), None)
