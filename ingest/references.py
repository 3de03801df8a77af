"""What the records of an annotation file call each other: ids, and looking one up.

    the number 18, 18.0      one id: json has one kind of number
    the text "18"            another id
    true, false              ids of their own

A reference means the record whose id is of its own type. Only where there is none it means the record whose id is the
same text, because many tools write numbers in one list and texts in another.
"""

import math
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


def exact(value: Any) -> Hashable | None:
    """An id as a key that keeps types apart; None for what is no id (null, a list, an object, NaN, Infinity)."""
    kind = type(value)
    if kind is int or kind is str:
        return value  # type: ignore[no-any-return]
    if kind is float:
        return int(value) if value.is_integer() else ("float", value) if math.isfinite(value) else None
    return ("bool", value) if kind is bool else None


def text(value: Any) -> str | None:
    """An id as text, as ids of tables and messages have it; None for what is no id."""
    if exact(value) is None:
        return None
    return str(int(value)) if type(value) is float and value.is_integer() else str(value)


class References(Generic[_T]):
    """Records, or what is asked of them, by their ids; the first of one id is the one that is meant.

    Args:
        entries: id as it stands in the json, and what it means; an id that is none is left out.
    """

    def __init__(self, entries: Iterable[tuple[Any, _T]] = ()) -> None:
        self._exact: dict[Hashable, _T] = {}
        self._text: dict[str, _T] = {}
        for value, meaning in entries:
            key, said = exact(value), text(value)
            if key is not None and said is not None:
                self._exact.setdefault(key, meaning)
                self._text.setdefault(said, meaning)

    def get(self, value: Any) -> _T | None:
        """What a reference means; None where no record has this id."""
        key = exact(value)
        if key is None:
            return None
        found = self._exact.get(key)
        return found if found is not None else self._text.get(text(value) or "")

    def __contains__(self, value: Any) -> bool:
        key = exact(value)
        return key is not None and (key in self._exact or text(value) in self._text)

    def __len__(self) -> int:
        return len(self._exact)

    def __iter__(self) -> Iterator[_T]:
        return iter(self._exact.values())
