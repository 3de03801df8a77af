"""Pictures as a folder or tar lists them, with what tables and companions in it say of each.

Sources that take plain pictures (`folder`, `subjects`) share this; what the tables and companions hold is in
`captionlines` and `companions`.
"""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from refloom.ingest import captionlines, companions
from refloom.ingest.companions import Said
from refloom.ingest.files import table_name
from refloom.ingest.source import Item, Picture, Record
from refloom.ingest.spelling import plain
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.fingerprint import of_json

LedgerItem = tuple[str, str, str | None, str]
"""Kind, id, reason and detail of what is no picture; the reason is None for what is sound."""


@dataclass(slots=True)
class Named:
    """One picture as it is listed: what tables say of it, its offset and size in a tar, and those of its companions."""

    name: str
    said: Said = field(default_factory=Said)
    place: tuple[int, int] | None = None
    beside: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    def payload(self) -> list[Any]:
        """As json, for `of`."""
        return [self.name, self.said.to_json(), self.place, self.beside]

    @classmethod
    def of(cls, payload: list[Any]) -> "Named":
        """The inverse of `payload`."""
        name, said, place, beside = payload
        return cls(name, Said(*said), place, beside)


@dataclass(slots=True)
class Found:
    """What lies in a folder, tar or JSONL; `nothing` says why there might be no pictures."""

    pictures: list[Named]
    items: list[LedgerItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    nothing: str = ""


def say(
    found: Found,
    others: Sequence[str],
    table: Callable[[str], captionlines.Lines],
    load: Callable[[str], bytes],
    *,
    samples: bool = False,
) -> set[str]:
    """Give pictures what the files around them say.

    Args:
        found: gets captions, companions, notes, ledger items, and an identity that changes when a table does.
        others: names of the files that are no pictures.
        table: reads one of ImageFolder's tables.
        load: the bytes of a file.
        samples: as for `companions.beside`.

    Returns:
        The names of the files that were taken.
    """
    digests = _from_tables(found, [name for name in others if captionlines.is_table(name)], table)
    if digests:
        # one table at the top: as it was before there could be others
        found.identity["lines"] = (
            digests[captionlines.METADATA[0]] if list(digests) == [captionlines.METADATA[0]] else of_json(digests)
        )
    beside = companions.beside([picture.name for picture in found.pictures], others, samples=samples)
    for picture in found.pictures:
        picture.beside = dict.fromkeys(beside.get(picture.name, []))
    taken = {name for names in beside.values() for name in names}
    found.notes += _unread(taken, load)
    return taken | digests.keys()


def _from_tables(found: Found, tables: list[str], read: Callable[[str], captionlines.Lines]) -> dict[str, str]:
    """Give pictures what ImageFolder's tables say, the nearest one first; returns the sha256 of each table."""
    known: dict[str, list[Named]] = defaultdict(list)
    for picture in found.pictures:
        for key in {picture.name, plain(picture.name)}:
            known[key].append(picture)
    told: set[str] = set()
    digests = {}
    for table in sorted(tables, key=lambda name: (-name.count("/"), posixpath.splitext(name)[0], _rank(name))):
        lines = read(table)
        digests[table] = lines.digest
        found.items += lines.wrong
        found.notes += [note for note in [lines.note(table_name(table))] if note]
        for number, name, said in lines.pictures:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(table), name))
            pictures = known.get(path) or known.get(plain(path)) or []
            meant = [one for one in pictures if one.name == path] or pictures
            item = f"{table_name(table)}#{number}"
            if len(meant) != 1:
                why = "could mean several files" if pictures else "is not in the folder"
                found.items.append(("record", item, "no_image", f"{name!r} {why}"[:200]))
            elif meant[0].name in told:
                found.items.append(("record", item, "duplicate", "a line of this picture came before"))
            else:
                told.add(meant[0].name)
                meant[0].said = said
    return dict(sorted(digests.items()))


def _rank(table: str) -> int:
    return captionlines.METADATA.index(posixpath.basename(table))


def _unread(beside: set[str], load: Callable[[str], bytes]) -> list[str]:
    """A note if the first json beside a picture has no captions; the others will be as the first is."""
    first = min((name for name in beside if name.lower().endswith(".json")), default=None)
    try:
        note = companions.unread(table_name(first), load(first)) if first is not None else None
    except (Rejected, Failed):
        return []
    return [note] if note else []


def records(
    picture: Picture,
    said: Said,
    beside: dict[str, Any],
    load: Callable[[str, Any], bytes],
    *,
    lines: bool,
) -> Iterator[Record]:
    """What a picture and its companions become: companions that cannot be read, then the picture.

    Args:
        picture: gets captions and origin.
        said: what tables say of it.
        beside: companions, each with its place.
        load: the bytes of one, by name and place; raises Rejected or Failed.
        lines: as for `companions.read`.
    """
    files = []
    for name, place in beside.items():
        try:
            files.append((name, load(name, place)))
        except (Rejected, Failed) as problem:
            yield Item("record", table_name(name), problem)
    read, wrong = companions.read(files, lines=lines)
    for name, why in wrong:
        yield Item("record", table_name(name), Rejected("bad_record", why))
    said.add(read)
    picture.captions = [(f"{picture.image_id}#caption{number}", text) for number, text in enumerate(said.texts)]
    picture.source_url, picture.license = said.url, said.license
    sides = said.original_size
    picture.original_size = (sides[0], sides[1]) if sides else None
    yield picture
