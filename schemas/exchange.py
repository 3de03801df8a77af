"""Many units that take the place of others at one moment: until all are whole, those of before lie there, whole.

    manifests/<stage>/<unit>.json.next   of a unit that is whole and waits for the others
    manifests/<stage>/+exchange          units that come and units that go, from the moment when all are whole until
                                         every manifest is in its place

Units of one ingest share their pictures out among themselves: cut otherwise, a picture is in another unit. With some of
them new and some old, pictures would be there twice or not at all. Who reads while an exchange is under way, or after
it was cut off, follows its record; who writes next ends it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from refloom.schemas import strict
from refloom.schemas.errors import Damaged
from refloom.schemas.manifest import Manifest
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.schemas.unit import drop_unit, files_of, remove_files, settle_names

RECORD = "+exchange"
"""Name of the record; no unit is called so."""
_NEXT = ".next"
_SHAPE = {"coming": [str], "going": [str]}


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
    """Unit name to manifest of every unit that waits; one with a damaged manifest does not."""
    found = {unit: _manifest(folder, waiting_path(stage, unit)) for unit in _waiting_names(folder, stage)}
    return {unit: manifest for unit, manifest in found.items() if manifest is not None}


def drop_damaged(folder: Folder, stage: str) -> None:
    """Remove the damaged manifests of units that wait; what they named is garbage. Only for the lease's holder."""
    for unit in _waiting_names(folder, stage):
        if _manifest(folder, waiting_path(stage, unit)) is None:
            folder.remove(waiting_path(stage, unit))


def _waiting_names(folder: Folder, stage: str) -> list[str]:
    end = ".json" + _NEXT
    return [name.removesuffix(end) for name in folder.names(f"manifests/{stage}") if name.endswith(end)]


def _manifest(folder: Folder, path: str) -> Manifest | None:
    """The manifest at a path; None where there is no sound one."""
    try:
        return Manifest.from_json(folder.read(path), path)
    except (FileNotFoundError, Damaged):
        return None


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
    """The exchange that has begun and not ended, or None.

    Raises:
        Damaged: its record is.
    """
    path = f"manifests/{stage}/{RECORD}"
    try:
        record = strict.loads(folder.read(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Damaged(f"{path} is not the record of an exchange ({error})") from error
    if (wrong := misfit(record, _SHAPE)) is not None:
        raise Damaged(f"{path} is not the record of an exchange ({wrong})")
    return Exchange(tuple(record["coming"]), tuple(record["going"]))


def end(folder: Folder, stage: str) -> None:
    """End an exchange that has begun, wherever it was cut off. Only for the holder of the lease.

    One whose record is damaged is given up: what waits goes on waiting for an ingest that replaces the same units.
    """
    try:
        found = under_way(folder, stage)
    except Damaged:
        folder.remove(f"manifests/{stage}/{RECORD}")
        return
    if found is None:
        return
    for unit in found.coming:
        place, path = Manifest.path(stage, unit), waiting_path(stage, unit)
        if folder.exists(path):
            old = files_of(folder, place)
            folder.copy(path, place)
            folder.remove(path)
            remove_files(folder, old, but=files_of(folder, place))
        if (manifest := _manifest(folder, place)) is not None:  # a damaged unit is due by itself
            settle_names(folder, manifest)
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
