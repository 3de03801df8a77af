"""Numbers and lists as a reader wants them: thousands separated, three digits where three are enough, units said."""

import math
import shlex
from collections.abc import Iterable

MOST_NAMED = 10
"""Things that one message names; of the others it says how many they are."""
_LONGEST = 100


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def several(number: int, noun: str) -> str:
    """`1 picture`, `12,345 pictures`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1] + 'ies' if noun.endswith('ry') else noun + 's'}"


def share(part: int, whole: int) -> str:
    """A share in percent; never `0 %` of something nor `100 %` of less than all."""
    if whole == 0:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def value(number: float | None) -> str:
    """A score with three significant digits; `–` for none."""
    if number is None or math.isnan(number):
        return "–"
    if number == 0 or (float(number).is_integer() and abs(number) < 1e7):
        return f"{number:,.0f}"
    size = abs(number)
    if size >= 1e7 or size < 1e-4:
        return f"{number:.2g}"
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return f"{number:,.{min(decimals, 4)}f}"


def short(number: float) -> str:
    """A round number without needless zeros: `0.5`, `1,000`, `0.0001`."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def size(number: float) -> str:
    """Bytes as `12.3 MB`; a thousand steps, as disks and `refloom ingest --dry-run` count them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def some(names: Iterable[str], most: int = MOST_NAMED, between: str = ", ") -> str:
    """`a, b, c`, and of more than `most` the first ones: `a, b and 12,345 more`. All lists in messages are made here.

    Args:
        names: from files, or sentences.
        most: how many are named.
        between: them; sentences, which may be longer than names, have a semicolon.
    """
    every = list(names)
    longest = _LONGEST if between == ", " else 3 * _LONGEST
    first = between.join(shown(name, longest) for name in every[:most])
    return first if len(every) <= most else f"{first} and {len(every) - most:,} more"


def quoted(word: str) -> str:
    """A word of a command that is printed, so that a shell takes it as it stands, spaces and all."""
    return shlex.quote(word)


def shown(name: str, longest: int = _LONGEST) -> str:
    """A name that comes from a file, on one line of any terminal and of bounded length."""
    text = name if len(name) <= longest else f"{name[: longest - 3]}..."
    return text if text.isprintable() else ascii(text)[1:-1]


def last_line(text: str) -> str:
    """The last line of a text that holds anything, without the spaces around it; the text itself where none does."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), text)
