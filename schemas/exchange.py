"""Many units that take the place of others at one moment: until all are whole, those of before lie there, whole.

    manifests/<stage>/<unit>.json.next   of a unit that is whole and waits for the others
    manifests/<stage>/+exchange          units that come and units that go, from the moment when all are whole until
                                         every manifest is in its place

Units of one ingest share their pictures out among themselves: cut otherwise, a picture is in another unit. With some of
them new and some old, pictures would be there twice or not at all. Who reads while an exchange is under way, or after
it was cut off, follows its record; who writes next ends it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refloom.schemas import strict
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder
from refloom.schemas.unit import drop_unit, files_of, remove_files, settle_names

RECORD = "+exchange"
"""Name of the record; no unit is called so."""
_NEXT = ".next"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What takes the place of what.

    Attributes:
        coming: names of units.
        going: names of units that nothing comes for.
    """

    coming: tuple[str, ...]
    going: tuple[str, ...]


def waiting_path(stage: str, unit: str) -> str:
    """Where the manifest of a unit lies that waits for the others."""
    return Manifest.path(stage, unit) + _NEXT


def waiting(folder: Folder, stage: str) -> dict[str, Manifest]:
    """Unit name to manifest of every unit that waits."""
    end = ".json" + _NEXT
    names = [name for name in folder.names(f"manifests/{stage}") if name.endswith(end)]
    paths = {name.removesuffix(end): f"manifests/{stage}/{name}" for name in names}
    return {unit: Manifest.from_json(folder.read(path), path) for unit, path in paths.items()}


def forget(folder: Folder, stage: str, units: Iterable[str]) -> None:
    """Remove units that wait, and what only they name."""
    for unit in units:
        path = waiting_path(stage, unit)
        files = files_of(folder, path)
        folder.remove(path)
        remove_files(folder, files, but=files_of(folder, Manifest.path(stage, unit)))


def exchange(folder: Folder, stage: str, coming: Sequence[str], going: Sequence[str]) -> None:
    """Let units that wait take their places. Only for the holder of the lease."""
    record = {"coming": sorted(coming), "going": sorted(going)}
    folder.write(f"manifests/{stage}/{RECORD}", strict.dumps(record, indent=1).encode() + b"\n")
    end(folder, stage)


def under_way(folder: Folder, stage: str) -> Exchange | None:
    """The exchange that has begun and not ended, or None."""
    try:
        record = json.loads(folder.read(f"manifests/{stage}/{RECORD}"))
    except FileNotFoundError:
        return None
    return Exchange(tuple(record["coming"]), tuple(record["going"]))


def end(folder: Folder, stage: str) -> None:
    """End an exchange that has begun, wherever it was cut off. Only for the holder of the lease."""
    found = under_way(folder, stage)
    if found is None:
        return
    for unit in found.coming:
        place, path = Manifest.path(stage, unit), waiting_path(stage, unit)
        if folder.exists(path):
            old = files_of(folder, place)
            folder.copy(path, place)
            folder.remove(path)
            remove_files(folder, old, but=files_of(folder, place))
        settle_names(folder, Manifest.from_json(folder.read(place), place))
    for unit in found.going:
        drop_unit(folder, stage, unit)
    folder.remove(f"manifests/{stage}/{RECORD}")


def true_paths(found: Exchange, stage: str, paths: dict[str, str], names: Iterable[str]) -> dict[str, str]:
    """Unit name to path of the manifests that count while an exchange is under way.

    Args:
        found: the exchange.
        stage: whose.
        paths: unit name to path of the manifests in their places.
        names: of all files beside them.
    """
    there = set(names)
    after = {unit: path for unit, path in paths.items() if unit not in found.going}
    still = [unit for unit in found.coming if f"{unit}.json{_NEXT}" in there]
    return dict(sorted((after | {unit: waiting_path(stage, unit) for unit in still}).items()))
