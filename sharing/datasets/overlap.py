"""What several datasets hold of the same: ids with the same content come once, with other content they are refused."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json
from refloom.schemas.strict import finite
from refloom.schemas.takedownlist import COLUMNS, TakedownList
from refloom.schemas.wording import shown

_REMEDY = "if these are different sets, take one of them in again under a --name of its own, which sets its ids apart"

Row = dict[str, Any]


@dataclass(slots=True)
class Pictures:
    """The pictures of one dataset that come along, in order of unit and row.

    Attributes:
        rows: image_id, sha256, source, split and video_id of each.
        units: unit to the ids of its pictures that come.
        twice: ids of pictures that an earlier dataset holds.
        taken_down: ids of pictures that the takedown list of one of the datasets reaches.
    """

    rows: list[Row] = field(default_factory=list)
    units: dict[str, list[str]] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)
    taken_down: set[str] = field(default_factory=set)


def union(lists: Iterable[TakedownList]) -> TakedownList:
    """One takedown list of several: whatever one of the datasets may not hold, the merged one may not."""
    found = TakedownList()

    def joined(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*old, *new)))

    for one in lists:
        texts: Any = {name: joined(getattr(found, name), getattr(one, name)) for name in _TEXTS}
        found = TakedownList(images=found.images | one.images, **texts)
    return found


_TEXTS = ("entries", "places", "urls", "files", "samples", "unknown")


def share_out(datasets: Sequence[Dataset], units: Sequence[list[str]], listed: TakedownList) -> list[Pictures]:
    """Which dataset gives which picture.

    Args:
        datasets: in order; an earlier one gives what several hold.
        units: of each, those that come along.
        listed: takedown list of the merged dataset.

    Raises:
        Refused: an id has other content in two datasets; names it.
    """
    owners: dict[str, tuple[int, str, str]] = {}
    found = [Pictures() for _ in datasets]
    shared: dict[tuple[int, str, int, str], list[str]] = defaultdict(list)
    for number, (dataset, own) in enumerate(zip(datasets, units, strict=True)):
        pictures = found[number]
        for unit in own:
            rows = dataset.read("images", [*COLUMNS, "source", "split"], unit=unit)
            if listed:
                away = listed.reach(rows)
                pictures.taken_down.update(rows.filter(away)["image_id"].to_pylist())
                rows = rows.filter(pc.invert(away))
            kept = pictures.units.setdefault(unit, [])
            for row in rows.select(["image_id", "sha256", "source", "split", "video_id"]).to_pylist():
                name = row["image_id"]
                owner = owners.get(name)
                if owner is None:
                    owners[name] = number, unit, row["sha256"]
                    pictures.rows.append(row)
                    kept.append(name)
                    continue
                if owner[2] != row["sha256"]:
                    raise Refused(_other("picture", name, datasets[owner[0]], dataset, "other bytes"))
                pictures.twice.add(name)
                shared[owner[0], owner[1], number, unit].append(name)
    for (one, of_one, other, of_other), names in shared.items():
        _refuse_other_objects(datasets[one], of_one, datasets[other], of_other, names)
    _refuse_torn_videos(datasets, found)
    _refuse_other_groups(datasets, units)
    return found


def _other(what: str, name: str, one: Dataset, other: Dataset, how: str) -> str:
    return f"the {what} {shown(name)} has {how} in {one.url} and in {other.url}: {_REMEDY}"


def _refuse_other_objects(one: Dataset, unit: str, other: Dataset, of_other: str, names: list[str]) -> None:
    """Refuse a picture on which two datasets have other annotations."""
    first, second = _objects(one, unit, names), _objects(other, of_other, names)
    for name in names:
        if first.get(name) != second.get(name):
            raise Refused(_other("picture", name, one, other, "other annotations"))


def _objects(dataset: Dataset, unit: str, names: list[str]) -> dict[str, list[str]]:
    """Image id to a hash of each of its objects, in order of id."""
    wanted = pa.array(names, pa.string())
    found: dict[str, list[str]] = defaultdict(list)
    for batch in dataset.batches("objects", unit=unit):
        for row in batch.filter(pc.is_in(batch.column("image_id"), value_set=wanted)).to_pylist():
            found[row["image_id"]].append(f"{row['object_id']} {of_json(finite(row))}")
    return {name: sorted(hashes) for name, hashes in found.items()}


def _refuse_torn_videos(datasets: Sequence[Dataset], found: Sequence[Pictures]) -> None:
    """Refuse frames of one video that come from two datasets: a video lies in one unit."""
    owners: dict[str, int] = {}
    for number, pictures in enumerate(found):
        for row in pictures.rows:
            video = row["video_id"]
            if video is not None and owners.setdefault(video, number) != number:
                raise Refused(_other("video", video, datasets[owners[video]], datasets[number], "other frames"))


def _refuse_other_groups(datasets: Sequence[Dataset], units: Sequence[list[str]]) -> None:
    """Refuse groups of sources that have one id and other members."""
    owners: dict[str, tuple[int, str]] = {}
    for number, (dataset, own) in enumerate(zip(datasets, units, strict=True)):
        for unit in own:
            for row in dataset.read("source_groups", unit=unit).to_pylist():
                content = of_json(row)
                first, there = owners.setdefault(row["group_id"], (number, content))
                if there != content:
                    raise Refused(_other("group", row["group_id"], datasets[first], dataset, "other members or texts"))


def held_twice(datasets: Sequence[Dataset], units: Sequence[list[str]], table: str, key: str) -> list[set[str]]:
    """Of each dataset the keys of a table that an earlier one has: what is made again there goes once."""
    seen: set[str] = set()
    found = []
    for dataset, own in zip(datasets, units, strict=True):
        names = [name for unit in own for name in dataset.read(table, [key], unit=unit)[key].to_pylist()]
        found.append(seen.intersection(names))
        seen.update(names)
    return found
