"""YAML that somebody else wrote: plain values only, and whatever is wrong with it is a ValueError of one line."""

from typing import Any

import yaml

from refloom.schemas.strict import check_levels

MOST_NODES = 1_000_000
"""Values, each counted as often as aliases repeat it: a few lines can stand for more than any memory holds."""


def loads(text: str) -> Any:
    """Parse YAML.

    Raises:
        ValueError: it is no YAML, nests too deeply, or stands for more than `MOST_NODES` values.
    """
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # a date that is none, a tag on a value that cannot be it: the package raises what it meets
        raise ValueError(" ".join(str(error).split())) from error
    check_levels(value)
    if _nodes(value, {}) > MOST_NODES:
        raise ValueError(f"its aliases stand for more than {MOST_NODES:,} values")
    return value


def _nodes(value: Any, known: dict[int, int]) -> int:
    """Values in a value of few levels, shared ones as often as they stand there."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_nodes(item, known) for item in items)
    return known[id(value)]
