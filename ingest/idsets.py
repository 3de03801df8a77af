"""Several sets of one kind in one dataset: sets that number from 0 are told apart by their `--name`.

An id is `<kind>/<name of the picture>`. Where another key of the dataset holds such ids already, the set that comes
later has `<kind>/<set>/<name of the picture>`, and its manifests say so: `ids_under` in their settings. The same input
under another name is no other set; it is refused.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from refloom.ingest.admission import Verdicts
from refloom.ingest.source import Group, Item, Picture, Plan, Source, Track, UnitPlan
from refloom.schemas import ids
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.manifest import Manifest, flatten

STAGE = "ingest"
SETTING = "ids_under"
"""The setting of a plan whose ids are set apart: what they are under."""

_R = TypeVar("_R", Track, Group, Item)

_WITHOUT_IDS = frozenset({"tar", "member", "record"})
"""Kinds of items that are called by a name in the source and have no id."""


class Held(NamedTuple):
    """An id that another key holds already."""

    identity: str
    unit: str
    by: Manifest


def set_apart(plans: list[Plan], source: Source, dataset: Dataset) -> list[Plan]:
    """Plans whose ids are under their name where the dataset holds them under another key.

    A key that is there already stays as it is. A set of the default name has no name to be under.

    Raises:
        Refused: the same input is held under another key.
    """
    held = dataset.manifests(STAGE)
    keys = {plan.key for plan in plans}
    apart = []
    for plan in plans:
        own = [manifest for manifest in held.values() if manifest.key == plan.key]
        chosen = own[0].config.get(SETTING) if own else None
        if not own and source.name != source.kind:
            found = first_held(dataset, plan.units, keys)
            if found is not None:
                _refuse_same(found, plan, source, dataset)
                chosen = ids.unit_key(source.name)
        apart.append(plan if chosen is None else _under(plan, source.kind, chosen))
    return apart


def _under(plan: Plan, kind: str, name: str) -> Plan:
    def those(identities: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(under(identity, kind, name) for identity in identities)

    units = tuple(
        replace(
            unit,
            image_ids=those(unit.image_ids),
            group_ids=those(unit.group_ids),
            video_ids=those(unit.video_ids),
        )
        for unit in plan.units
    )
    example = next((unit.image_ids[0] for unit in units if unit.image_ids), f"{kind}/{name}/...")
    note = f"other sets of the dataset have ids like those of {plan.key}: its own are under its name, e.g. {example}"
    return replace(plan, units=units, config=plan.config | {SETTING: name}, notes=(*plan.notes, note))


def first_held(dataset: Dataset, units: tuple[UnitPlan, ...], keys: set[str]) -> Held | None:
    """The first id of some units that is held under a key that is none of `keys`."""
    coming = {
        ("images", "image_id"): {one: unit.name for unit in units for one in unit.image_ids},
        ("images", "video_id"): {one: unit.name for unit in units for one in unit.video_ids},
        ("source_groups", "group_id"): {one: unit.name for unit in units for one in unit.group_ids},
    }
    for (table, column), names in coming.items():
        for name, manifest in dataset.manifests(STAGE).items() if names else ():
            if manifest.key in keys:
                continue
            for identity in dataset.read(table, [column], unit=name)[column].to_pylist():
                if identity in names:
                    return Held(identity, names[identity], manifest)
    return None


def _refuse_same(found: Held, plan: Plan, source: Source, dataset: Dataset) -> None:
    """Refuse an input that is held already: its files are those that a manifest of the other key names."""
    unit = next(unit for unit in plan.units if unit.name == found.unit)
    others = [manifest for manifest in dataset.manifests(STAGE).values() if manifest.key == found.by.key]
    digests = {value for value in flatten(unit.identity).values() if _is_digest(value)}
    if any(digests & set(flatten(manifest.source).values()) for manifest in others if manifest.source) and _has_first(
        dataset, found.by.key, source, unit
    ):
        raise Refused(
            f"{found.identity} (unit {found.unit}) is already held under the key {found.by.key}, from the same input: "
            "use the --name it was ingested with, or leave it out"
        )


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 32


def _has_first(dataset: Dataset, key: str, source: Source, unit: UnitPlan) -> bool:
    """Whether the first picture of a unit is held: folders are known by names and sizes, which two sets may share."""
    for record in source.read(unit):
        if not isinstance(record, Picture):
            continue
        try:
            digest = hashlib.sha256(record.load()).hexdigest()
        except (Rejected, Failed):
            return True
        return any(
            digest in dataset.read("images", ["sha256"], unit=name)["sha256"].to_pylist()
            for name, manifest in dataset.manifests(STAGE).items()
            if manifest.key == key
        )
    return True


def refuse_shared(units: list[UnitPlan], keys: dict[str, str]) -> None:
    """Refuse ids that two keys of one command would bring in; within a key the source itself sees duplicates.

    Args:
        units: to do.
        keys: unit name to key.
    """
    first: dict[str, UnitPlan] = {}
    for unit in units:
        for identity in (*unit.image_ids, *unit.group_ids, *unit.video_ids):
            other = first.setdefault(identity, unit)
            if keys[other.name] != keys[unit.name]:
                raise Refused(
                    f"{identity} is in {other.name} and in {unit.name}: leave one of them out, or, if they are "
                    "different sets, ingest one by itself under a --name of its own, which sets its ids apart"
                )


def refuse_held(dataset: Dataset, units: tuple[UnitPlan, ...], keys: set[str]) -> None:
    """Refuse ids that another key holds: ids are unique over the dataset."""
    found = first_held(dataset, units, keys)
    if found is not None:
        raise Refused(
            f"{found.identity} (unit {found.unit}) is already held under the key {found.by.key}: if this is another "
            "set, give it a --name of its own, which sets its ids apart; if it is the same, use the --name it was "
            "ingested with, or leave it out"
        )


def under(identity: str, kind: str, name: str | None) -> str:
    """An id of a source, set apart: `coco/000000000001` under `valid` is `coco/valid/000000000001`.

    Items that belong to no picture are `<kind>#<id>`, and under a name `<kind>/<name>#<id>`.
    """
    if name is None:
        return identity
    if identity.startswith((f"{kind}/", f"{kind}#")):
        return f"{kind}/{name}{identity[len(kind) :]}"
    return identity


def renamed(record: _R, kind: str, name: str | None) -> _R:
    """A record with its ids set apart."""
    if name is None:
        return record
    if isinstance(record, Track):
        return replace(record, track_id=under(record.track_id, kind, name))
    if isinstance(record, Item):
        is_id = record.kind not in _WITHOUT_IDS
        return replace(record, item_id=under(record.item_id, kind, name)) if is_id else record
    return replace(
        record,
        group_id=under(record.group_id, kind, name),
        members=[under(member, kind, name) for member in record.members],
        target=None if record.target is None else under(record.target, kind, name),
        instructions=[
            replace(one, references=tuple(under(reference, kind, name) for reference in one.references))
            for one in record.instructions
        ],
    )


def rename(verdicts: Verdicts, kind: str, name: str | None) -> None:
    """Set the ids of one picture and all that lies on it apart."""
    if name is None:
        return
    for row, columns in _rows(verdicts):
        for column in columns:
            if row.get(column) is not None:
                row[column] = under(row[column], kind, name)
    verdicts.settled = [
        (item, under(identity, kind, name), problem, occurrence)
        for item, identity, problem, occurrence in verdicts.settled
    ]


def _rows(verdicts: Verdicts) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    if verdicts.image is not None:
        yield verdicts.image, ("image_id", "video_id")
    for row in verdicts.objects:
        yield row, ("object_id", "image_id", "track_id")
