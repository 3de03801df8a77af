"""JSON that every reader takes: for numbers that are not finite, it has no word, and null stands in their place."""

import json
import math
from typing import Any


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
