"""What values a setting may have, declared beside it, as in `steps: Annotated[int, Whole(1)]`. Imports no library.

A range says itself in words, so that every refusal names the setting, its value, its range and the remedy in one line.
"""

import dataclasses
import math
import reprlib
import types
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from refloom.schemas.errors import Refused


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, both inside; multiples of `step`.

    Attributes:
        low, high: None for no bound.
        step: that a value is a multiple of.
        none: whether None is a value, too.
        remedy: said behind the range.
    """

    low: int | None = None
    high: int | None = None
    step: int = 1
    none: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        what = f"a multiple of {self.step}" if self.step != 1 else "a whole number"
        return what + _between(self.low, self.high) + _or_null(self.none)

    def takes(self, value: Any) -> bool:
        """Whether it is such a number; True and False are none."""
        if value is None:
            return self.none
        if isinstance(value, bool) or not isinstance(value, Integral):
            return False
        number = int(value)
        return _inside(number, self.low, self.high) and number % self.step == 0

    def read(self, value: Any) -> Any:
        """What a text means; anything else is itself."""
        return _converted(int, value)


@dataclass(frozen=True, slots=True)
class Number:
    """Finite numbers from `low` to `high`, both inside unless said otherwise.

    Attributes:
        low, high: None for no bound.
        above, below: whether `low` and `high` themselves are outside.
        none: whether None is a value, too.
        remedy: said behind the range.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    none: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        what = "a number" if (self.low, self.high) != (None, None) else "a finite number"
        return what + _between(self.low, self.high, above=self.above, below=self.below) + _or_null(self.none)

    def takes(self, value: Any) -> bool:
        """Whether it is such a number; True, False, NaN and infinities are none."""
        if value is None:
            return self.none
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        number = float(value)
        ends = (self.above and number == self.low) or (self.below and number == self.high)
        return math.isfinite(number) and _inside(number, self.low, self.high) and not ends

    def read(self, value: Any) -> Any:
        """What a text means; YAML reads 1e-4 as one."""
        return _converted(float, value)


@dataclass(frozen=True, slots=True)
class Word:
    """One of some words.

    Attributes:
        words: there are.
        none: whether None is a value, too.
        remedy: said behind the range.
    """

    words: tuple[str, ...]
    none: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        return (f"one of {', '.join(self.words)}" if len(self.words) > 1 else self.words[0]) + _or_null(self.none)

    def takes(self, value: Any) -> bool:
        """Whether it is one of them."""
        return self.none if value is None else isinstance(value, str) and value in self.words

    def read(self, value: Any) -> Any:
        """Itself."""
        return value


@dataclass(frozen=True, slots=True)
class Flag:
    """True or False."""

    remedy: str = ""

    def __str__(self) -> str:
        return "true or false"

    def takes(self, value: Any) -> bool:
        """Whether it is one of the two; 0 and 1 are not."""
        return isinstance(value, bool)

    def read(self, value: Any) -> Any:
        """Itself."""
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """Words of the user's own, at least one character that shows.

    Attributes:
        none: whether None is a value, too.
        remedy: said behind the range.
    """

    none: bool = False
    remedy: str = ""

    def __str__(self) -> str:
        return "a text with something in it" + _or_null(self.none)

    def takes(self, value: Any) -> bool:
        """Whether it is a text that is not blank."""
        return self.none if value is None else isinstance(value, str) and bool(value.strip())

    def read(self, value: Any) -> Any:
        """Itself."""
        return value


@dataclass(frozen=True, slots=True)
class Several:
    """A list of values of one range.

    Attributes:
        of: the range of each.
        count: how many; None for one or more.
        alone: whether one value by itself is as good as a list.
        none: whether None is a value, too.
    """

    of: "Whole | Number"
    count: int | None = None
    alone: bool = False
    none: bool = False

    @property
    def remedy(self) -> str:
        """Of each value."""
        return self.of.remedy

    def __str__(self) -> str:
        many = f"{self.count or 'one or more'} values, each {self.of}"
        return (f"{self.of}, or {many}" if self.alone else many) + _or_null(self.none)

    def takes(self, value: Any) -> bool:
        """Whether every value is in the range, and there are as many as there should be."""
        if value is None:
            return self.none
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return self.alone and self.of.takes(value)
        right = len(value) == self.count if self.count is not None else len(value) > 0
        return right and all(self.of.takes(one) for one in value)

    def read(self, value: Any) -> Any:
        """With what its texts mean."""
        return [self.of.read(one) for one in value] if isinstance(value, list | tuple) else self.of.read(value)


Range = Whole | Number | Word | Flag | Text | Several

WORKERS = Whole(0, none=True, remedy="0 works without Ray; leave it out for all cores")
COUNT = Whole(1)
SHARE = Number(0, 1, above=True, none=True, remedy="0.1 is a tenth")
SEED = Whole(0, (1 << 63) - 1)
PORT = Whole(0, 65535, remedy="0 takes a free one")
ITEM_TIMEOUT = Number(0, above=True, none=True, remedy="it is in seconds")


class OutOfRange(Refused, ValueError):
    """A field of a dataclass has a value outside its range; the text starts with the field's name."""


def check(name: str, value: Any, of: Range) -> None:
    """Refuse a value outside its range.

    Raises:
        Refused: naming the setting, its value, its range and the remedy.
    """
    if not of.takes(value):
        raise Refused(refusal(name, value, of))


def refusal(name: str, value: Any, of: Range) -> str:
    """Why a value is refused, in one line."""
    shown = _SHORT.repr(value).replace("\n", " ")
    return f"{name} is {of}, not {shown}: {of.remedy or 'give one that is'}"


def check_fields(record: Any) -> None:
    """Check every field of a dataclass whose type has a range; to be called by `__post_init__`.

    Raises:
        OutOfRange: for the first one that has not.
    """
    for name, hint in _hints(type(record)).items():
        for where, value, of in _ranged(hint, getattr(record, name), name):
            if not of.takes(value):
                raise OutOfRange(refusal(where, value, of))


def of_hint(hint: Any) -> Range | None:
    """The range that an annotated type carries."""
    found = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Range)]
    return found[0] if found else None


def given(name: str, text: str, of: Range) -> Any:
    """The value of an option of a command line, where nothing is null.

    Raises:
        Refused: it is out of range.
    """
    wanted = of if isinstance(of, Flag) else dataclasses.replace(of, none=False)
    value = wanted.read(text)
    check(name, value, wanted)
    return value


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def _hints(kind: type) -> dict[str, Any]:
    """Types of the fields of a dataclass, with their ranges."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _ranged(hint: Any, value: Any, name: str) -> list[tuple[str, Any, Range]]:
    """Every value inside a value whose type has a range, with its name."""
    of = of_hint(hint)
    if of is not None:
        return [(name, value, of)]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _ranged(arguments[0], value, name)
    if origin in (Union, types.UnionType):
        inner = next((one for one in arguments if one is not type(None)), None)
        return [] if value is None else _ranged(inner, value, name)
    if origin is tuple and isinstance(value, tuple):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        many = zip(kinds, value, strict=False)
        return [one for at, (kind, item) in enumerate(many) for one in _ranged(kind, item, f"{name}[{at}]")]
    if origin is dict and isinstance(value, dict):
        return [one for key, item in value.items() for one in _ranged(arguments[1], item, f"{name}.{key}")]
    return []


def _inside(number: float, low: float | None, high: float | None) -> bool:
    return (low is None or number >= low) and (high is None or number <= high)


def _between(low: float | None, high: float | None, *, above: bool = False, below: bool = False) -> str:
    first = "" if low is None else f" above {low:.10g}" if above else f" from {low:.10g}"
    if low is not None and high is not None and not above and not below:
        return f"{first} to {high:.10g}"
    if high is None:
        return first
    last = f"below {high:.10g}" if below else f"at most {high:.10g}"
    return f"{first}{' and' if first else ''} {last}"


def _or_null(none: bool) -> str:
    return ", or null" if none else ""


def _converted(kind: type[int] | type[float], value: Any) -> Any:
    """A number out of a text; itself where it is none."""
    if not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        return value
