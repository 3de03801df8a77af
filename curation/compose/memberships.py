"""Which objects and faces show one subject, as groups say it: of a unit, and of groups that begin in other units."""

from collections import ChainMap, defaultdict
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of

Row = dict[str, Any]

_ORDER = ("identity", "look", "track", "folder")
"""Kinds of groups; a subject in several is called after the first: a person or a thing goes beyond its video."""
_COLUMNS = ("group_id", "kind", "members")


@dataclass(slots=True)
class Memberships:
    """Groups by id, and the groups of each member.

    Attributes:
        groups: rows of `groups`: id, kind, members.
        of: object or face id to the groups that it is in, in the order in which a subject is called after them.
    """

    groups: dict[str, Row] = field(default_factory=dict)
    of: MutableMapping[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> "Memberships":
        """Of rows of `groups`."""
        groups = {row["group_id"]: row for row in rows}
        of: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(groups.values(), key=_place):
            for member in row["members"]:
                of[member].append(row)
        return cls(groups, dict(of))

    def plus(self, rows: Iterable[Row]) -> "Memberships":
        """These and further groups."""
        more = Memberships.of_rows(rows)
        joined = {member: sorted([*self.of.get(member, ()), *groups], key=_place) for member, groups in more.of.items()}
        return Memberships(self.groups | more.groups, ChainMap(joined, self.of))

    def one(self, kind: str, members: Iterable[str]) -> str | None:
        """The group of a kind that all of these members are in that are in any; None where they are in several."""
        found = {row["group_id"] for member in members for row in self.of.get(member, ()) if row["kind"] == kind}
        return found.pop() if len(found) == 1 else None


def _place(group: Row) -> tuple[int, str]:
    return _ORDER.index(group["kind"]), group["group_id"]


@dataclass(frozen=True, slots=True)
class Nearby:
    """Other units that composing a unit reads.

    Attributes:
        whole: all of their pictures may be in its samples: they hold members of its groups, or share source groups.
        references: objects and faces there may be references of its cross samples.
        leads: their groups have members on pictures of those above.
    """

    whole: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    leads: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every unit of them once."""
        return tuple(dict.fromkeys((*self.whole, *self.references, *self.leads)))


def nearby(dataset: Dataset, unit: str, tied: tuple[str, ...]) -> Nearby:
    """The units that composing a unit reads besides; ids alone are looked at.

    Args:
        dataset, unit: where.
        tied: units that share source groups with it.
    """
    own = dataset.read("groups", [*_COLUMNS, "units"], unit=unit).to_pylist()
    held = (name for row in own for name in row["units"] or ())
    whole = tuple(dict.fromkeys(name for name in (*tied, *held) if name != unit))
    leads = _leads(dataset, (unit, *whole))
    images = set(dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()) if leads else set()
    counts: dict[str, list[Row]] = defaultdict(list)
    foreign = [
        row | {"units": sorted({lead, *(row["units"] or ())})}
        for lead in leads
        for row in dataset.read("groups", [*_COLUMNS, "units"], unit=lead).to_pylist()
        if row["kind"] != "track"
    ]
    for row in (*own, *foreign):
        for image_id in images.intersection(map(image_of, row["members"])):
            counts[image_id].append(row)
    far = {
        name
        for rows in counts.values()
        if len(rows) > 1  # of one subject alone no cross sample is made
        for row in rows
        for name in row["units"] or ()
    }
    return Nearby(whole, tuple(sorted(far - {unit, *whole})), leads)


def _leads(dataset: Dataset, units: tuple[str, ...]) -> tuple[str, ...]:
    """Units beyond these whose groups have members on their pictures."""
    found = {
        name
        for one in units
        for names in dataset.read("splits", ["group_units"], unit=one)["group_units"].drop_null().to_pylist()
        for name in names
    }
    return tuple(sorted(found - set(units)))


def read_memberships(dataset: Dataset, units: Iterable[str]) -> Memberships:
    """The groups that begin in some units."""
    rows = (row for unit in units for row in dataset.read("groups", _COLUMNS, unit=unit).to_pylist())
    return Memberships.of_rows(rows)
