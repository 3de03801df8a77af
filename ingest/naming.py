"""Ids of what a source lists, no two alike: names that two records share, names that differ and make one id.

The first to ask gets the plain id; whoever comes later gets the next of its own suggestions, or the last one with `~2`,
`~3` ... behind it. Who asks for the same thing again, by the same key, is told the same id and how often it came.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from refloom.ingest import jsons, references
from refloom.schemas import ids

_RESERVED = re.compile(r"whole|sam\d+")
"""What refloom itself calls objects: `#whole` a whole picture, `#sam<n>` what a segmenter found."""

MADE = "~"
"""Stands before the number of an id that refloom had to make."""


class Named(NamedTuple):
    """An id, and how often its key came before."""

    identity: str
    occurrence: int


def distinct(claims: Sequence[tuple[Hashable, Sequence[str]]], taken: Iterable[str] = ()) -> list[Named]:
    """Give every key an id of its own.

    Args:
        claims: key and suggested ids, best first, of each record in its order. A key that came before is the same
            record again.
        taken: ids that nobody may get.

    Returns:
        For each claim its id. The first suggestions are given out before any other.
    """
    wanted: dict[Hashable, Sequence[str]] = {}
    for key, suggestions in claims:
        wanted.setdefault(key, suggestions)
    given: dict[Hashable, str] = {}
    used = set(taken)
    for key, suggestions in wanted.items():
        if suggestions[0] not in used:
            given[key] = suggestions[0]
            used.add(suggestions[0])
    numbers: Counter[str] = Counter()
    for key, suggestions in wanted.items():
        if key in given:
            continue
        chosen = next((one for one in suggestions if one not in used), None)
        while chosen is None:
            numbers[suggestions[-1]] += 1
            candidate = f"{suggestions[-1]}{MADE}{numbers[suggestions[-1]] + 1}"
            chosen = candidate if candidate not in used else None
        given[key] = chosen
        used.add(chosen)
    seen: Counter[Hashable] = Counter()
    named = []
    for key, _ in claims:
        named.append(Named(given[key], seen[key]))
        seen[key] += 1
    return named


def of_names(names: Sequence[str], identity: Callable[[str], str]) -> list[Named]:
    """Ids of pictures by their names in a source; a name that came before is the same picture again.

    Names that differ may make one id, as the two ways to write an accent do; the one that is written as the id has it
    goes first.
    """
    order = sorted(range(len(names)), key=lambda place: ids.encode(names[place]) != names[place])
    named = distinct([(names[place], [identity(names[place])]) for place in order])
    by_place = dict(zip(order, named, strict=True))
    return [by_place[place] for place in range(len(names))]


def of_annotations(records: Sequence[Any]) -> list[Named]:
    """What to call the annotations of one picture; ids need not be unique beyond it.

    An annotation is called by its id. One without an id is called `~1`, `~2` ...; another one under an id that came
    before gets `~2`, `~3` ... behind it. The same record again, word for word, is the same annotation again.

    Args:
        records: of one picture, in the order of the file.

    Returns:
        For each the part of an object id behind the `#`, encoded.
    """
    plain = [_own(record) for record in records]
    if all(plain) and len(set(plain)) == len(plain) and not any(_RESERVED.fullmatch(said) for said in plain):
        return [Named(said, 0) for said in plain]
    made: dict[str, str] = {}
    claims: list[tuple[Hashable, Sequence[str]]] = []
    for said, record in zip(plain, records, strict=True):
        words = jsons.compact(record)
        claims.append((words, [said or made.setdefault(words, f"{MADE}{len(made) + 1}")]))
    return distinct(claims, [said for said in plain if _RESERVED.fullmatch(said)])


def notes(called: Iterable[tuple[Any, Named]], what: str, owner: str) -> list[str]:
    """How ids were made, where the source's own do not tell things apart; no note where all are the source's.

    Args:
        called: records and what they are called.
        what: their plural, `annotations`.
        owner: what their ids need to be unique in, `picture`.
    """
    made = [name.identity for record, name in called if not name.occurrence and _own(record) != name.identity]
    if not made:
        return []
    return [
        f"{len(made):,} {what} have no id or share it with another of their {owner}: they are called "
        f"<{owner}>#{MADE}<n> or <{owner}>#<id>{MADE}<n>, e.g. #{made[0]}, in the order of the file"
    ]


def _own(record: Any) -> str:
    """A record's id as a part of an id; empty where it has none."""
    said = references.text(record.get("id")) if isinstance(record, dict) else None
    return ids.encode(said.strip()) if said else ""
