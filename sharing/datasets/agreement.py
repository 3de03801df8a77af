"""Whether several datasets were made alike, and what units of one are called beside those of others."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from refloom.schemas import ids
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json
from refloom.schemas.manifest import Manifest, flatten
from refloom.schemas.wording import quoted, some
from refloom.sharing.datasets.transfer import CARRIED

_LONGEST_UNIT = 80


def refuse_differing(datasets: Sequence[Dataset]) -> None:
    """Refuse datasets whose rows do not mean the same: other settings, models or versions of a stage.

    Raises:
        Refused: names the stage, the setting and the value of each, and what to do.
    """
    found: dict[str, None] = {}
    other = datasets[0]
    for stage in CARRIED[1:]:
        first: tuple[Dataset, dict[str, Any]] | None = None
        for dataset in datasets:
            for settings in _kinds(dataset, stage):
                if first is None:
                    first = dataset, settings
                for text in _differences(first, (dataset, settings)):
                    found[f"{stage}: {text}"] = None
                    other = dataset
    if found:
        raise Refused(
            f"these datasets were made with other settings ({some(found, between='; ')}): make them alike with "
            f"`refloom curate {quoted(other.url)} --set KEY=VALUE --replace`, then merge"
        )


def _kinds(dataset: Dataset, stage: str) -> list[dict[str, Any]]:
    """The settings that units of a stage were made with, each once."""
    every = {of_json(one.settings()): one.settings() for one in dataset.manifests(stage).values()}
    return list(every.values())


def _differences(one: tuple[Dataset, dict[str, Any]], other: tuple[Dataset, dict[str, Any]]) -> list[str]:
    (first, old), (second, new) = one, other
    return [
        f"{key} is {old.get(key)!r} in {first.url} and {new.get(key)!r} in {second.url}"
        for key in sorted(old.keys() | new.keys())
        if of_json(old.get(key)) != of_json(new.get(key))
    ]


@dataclass(slots=True)
class Names:
    """What of one dataset is called how beside the others.

    Attributes:
        units: those that come along, by their names in the dataset.
        same: units that an earlier dataset holds, the very same.
        renamed: unit to its new name.
        keys: ingest key to its new name.
    """

    units: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


def name_units(datasets: Sequence[Dataset]) -> list[Names]:
    """What units of each dataset are called in the merged one.

    A unit that an earlier dataset holds under the same name with the same rows comes once. A key of which a unit has
    the name of another one, or whose linked pictures lie elsewhere, is called after its dataset: `<dataset>.<key>`.
    """
    held: dict[str, tuple[Manifest, str | None]] = {}
    taken: set[str] = set()
    found = []
    for dataset, label in zip(datasets, _labels(datasets), strict=True):
        roots = dataset.index.get("roots", {})
        by_key: dict[str, list[Manifest]] = {}
        for manifest in dataset.manifests("ingest").values():
            by_key.setdefault(manifest.key, []).append(manifest)
        names = Names()
        for key, manifests in sorted(by_key.items()):
            root = roots.get(key)
            fresh = [one for one in manifests if not _is_held(one, held)]
            names.same += [one.unit for one in manifests if one not in fresh]
            elsewhere = any(other.key == key and place != root for other, place in held.values())
            if fresh and (elsewhere or any(one.unit in held for one in fresh)):
                names.keys[key] = _free(f"{label}.{key}", {other.key for other, _ in held.values()})
                for one in fresh:
                    names.renamed[one.unit] = _free(_fitting(f"{label}.{one.unit}"), taken)
            names.units += [one.unit for one in fresh]
        for unit in names.units:
            manifest = dataset.manifests("ingest")[unit]
            new = names.renamed.get(unit, unit)
            taken.add(new)
            held[new] = manifest, roots.get(manifest.key)
        names.units.sort()
        found.append(names)
    return found


def _is_held(manifest: Manifest, held: dict[str, tuple[Manifest, str | None]]) -> bool:
    """Whether an earlier dataset holds the very same unit."""
    other = held.get(manifest.unit, (None, None))[0]
    return (
        other is not None
        and other.key == manifest.key
        and other.fingerprint == manifest.fingerprint
        and flatten(other.settings()) == flatten(manifest.settings())
        and other.source == manifest.source
    )


def _labels(datasets: Sequence[Dataset]) -> list[str]:
    """A short name of each dataset, after its folder; numbers tell apart those that are called alike."""
    found: list[str] = []
    for dataset in datasets:
        base = ids.unit_key(dataset.url.rstrip("/").rpartition("/")[2] or "dataset")[:24].strip("-.")
        found.append(_free(base, set(found)))
    return found


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number behind it one that is free."""
    every = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(one for one in every if one not in taken)


def _fitting(unit: str) -> str:
    """A unit's name of at most 80 characters, with room for a number."""
    return unit if len(unit) < _LONGEST_UNIT - 4 else ids.unit_key(unit)
