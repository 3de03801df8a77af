"""JSON that every reader takes: for numbers that are not finite, it has no word, and null stands in their place.

What others wrote is read here too: whatever is wrong with it is a ValueError, and how deep it nests is bounded.
"""

import json
import math
from typing import Any

MOST_LEVELS = 100
"""Of lists and mappings in each other, in a file that describes something. No sound one has more than a dozen."""
_NESTING = (dict, list)


def finite(value: Any) -> Any:
    """The same mappings and lists with None for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def dumps(value: Any, *, indent: int | None = None, sort_keys: bool = False, ensure_ascii: bool = True) -> str:
    """As `json.dumps`, with null for every number that is not finite."""
    return json.dumps(finite(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)


def loads(data: bytes | str) -> Any:
    """Parse json that somebody else wrote.

    Raises:
        ValueError: it is no json, no UTF-8, or nests more than `MOST_LEVELS` deep.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_levels(value)
    return value


def object_in(data: bytes | str) -> dict[str, Any]:
    """Parse a json object that somebody else wrote; ValueError also for any other value."""
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} and no object")
    return value


def check_levels(value: Any) -> None:
    """Raise ValueError where lists and mappings nest more than `MOST_LEVELS` deep, or hold themselves."""
    level = [value] if isinstance(value, _NESTING) else []
    for _ in range(MOST_LEVELS + 1):
        if not level:
            return
        inner: dict[int, Any] = {}  # what several places share, as aliases of YAML do, is looked at once a level
        for item in level:
            for one in item.values() if isinstance(item, dict) else item:
                if isinstance(one, _NESTING):
                    inner[id(one)] = one
        level = list(inner.values())
    raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
