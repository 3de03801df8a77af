"""`refloom.diff(...)`: rows that came, went and changed between two states of a dataset, and what that comes from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from refloom.schemas import tables
from refloom.schemas.dataset import LABEL, STAGES, Dataset, Place, opened
from refloom.schemas.fingerprint import Fingerprint
from refloom.schemas.manifest import Manifest, differing
from refloom.schemas.parquet import fingerprint_of
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.tables import TABLES
from refloom.schemas.tags import NOW
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.wording import several, shown, some

_EXAMPLES = 5


@dataclass(slots=True)
class TableDiff:
    """One table.

    Attributes:
        rows: before and after.
        came, went, changed: number of rows, by their ids.
        examples: `came`, `went` and `changed` to the first ids of each, in order.
    """

    rows: tuple[int, int] = (0, 0)
    came: int = 0
    went: int = 0
    changed: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class StageDiff:
    """Why units of one stage differ.

    Attributes:
        came, went: units.
        changed: units that hold other rows.
        settings: what differs in settings, models and versions, as `key: old -> new`, to the number of units.
        sources: units whose input outside the dataset is another.
        inputs: name of a table or ledger that was read, to the units for which it was another.
        taken_down: units that lost pictures to a takedown.
        retried: units of which other items failed, settings and inputs being the same.
        unexplained: units that differ though all of these are the same.
    """

    came: list[str] = field(default_factory=list)
    went: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    settings: Counter[str] = field(default_factory=Counter)
    sources: list[str] = field(default_factory=list)
    inputs: Counter[str] = field(default_factory=Counter)
    taken_down: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.came or self.went or self.changed or self.settings)


@dataclass(frozen=True, slots=True)
class Diff:
    """What is different between two states.

    Attributes:
        before, after: their names: of tags, or `now`.
        tables: by name, those that differ.
        stages: by name, those that differ, in the order of the stages.
        taken_down: pictures that are on the takedown list of the later state and not of the earlier one.
    """

    before: str
    after: str
    tables: dict[str, TableDiff]
    stages: dict[str, StageDiff]
    taken_down: int

    def __bool__(self) -> bool:
        return bool(self.tables or self.stages)


@store_errors_stop()
def diff(dataset: Place, before: str, after: str = NOW) -> Diff:
    """Compare two states of a dataset.

        refloom.diff("DATASET", "v1", "now").tables["samples"].came

    Args:
        dataset: a folder, an fsspec URL, or a dataset.
        before, after: names of tags, or `now` for the dataset as it is.

    Returns:
        Rows that came, went and changed in each table, and what of settings, models, sources and inputs differs; it is
        false where nothing does.

    Raises:
        Refused: no such dataset, or no such tag.
    """
    found = opened(dataset)
    one, other = (found if name == NOW else Dataset(found.url, tag=name) for name in (before, after))
    by_table = {name: told for name in TABLES if (told := _of_table(name, one, other)) is not None}
    by_stage = {stage: why for stage in STAGES if (why := _of_stage(stage, one, other))}
    lists = [set(TakedownList.load(held.folder).images) for held in (one, other)]
    return Diff(before, after, by_table, by_stage, len(lists[1] - lists[0]))


# -- rows --------------------------------------------------------------------------------------------------------------


def _of_table(name: str, one: Dataset, other: Dataset) -> TableDiff | None:
    """The rows of a table that differ; units that are the same in both are not read, and pictures by their hash."""
    stage = TABLES[name].stage
    held = [{unit: _entries(manifest, name) for unit, manifest in it.manifests(stage).items()} for it in (one, other)]
    if held[0] == held[1]:
        return None
    same = {unit for unit, entries in held[0].items() if held[1].get(unit) == entries}
    rows = [dict(_rows(name, dataset, same)) for dataset in (one, other)]
    names = {
        "came": rows[1].keys() - rows[0].keys(),
        "went": rows[0].keys() - rows[1].keys(),
        "changed": {key for key in rows[0].keys() & rows[1].keys() if rows[0][key] != rows[1][key]},
    }
    counts = [sum(rows for entries in units.values() for rows, _ in entries.values()) for units in held]
    examples = {word: sorted(ids)[:_EXAMPLES] for word, ids in names.items() if ids}
    came, went, changed = (len(ids) for ids in names.values())
    return TableDiff((counts[0], counts[1]), came, went, changed, examples)


def _entries(manifest: Manifest, name: str) -> dict[str, tuple[int, str]]:
    return {
        directory: (entry.rows, entry.fingerprint)
        for directory, entry in manifest.tables.items()
        if directory.split("/")[0] == name and entry.rows
    }


def _rows(name: str, dataset: Dataset, same: set[str]) -> Iterator[tuple[str, str]]:
    """Key and fingerprint of every row of units that are not the same in both; samples say which split they are in."""
    table = tables.TABLES[name]
    for unit, manifest in dataset.manifests(table.stage).items():
        for directory in _entries(manifest, name) if unit not in same else ():
            split = directory.partition("/")[2]
            for file in manifest.files_of(directory):
                with dataset.opened(name, file.path) as reader:
                    for group in range(reader.num_row_groups):
                        rows = reader.read_row_group(group, use_threads=False).combine_chunks()
                        for batch in rows.to_batches():
                            yield from _hashed(batch, table.key, split)


def _hashed(batch: pa.RecordBatch, key: str, split: str) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(batch.column(key).to_pylist()):
        running: Fingerprint = fingerprint_of(batch.schema)
        running.update(batch.slice(number, 1))
        yield name, f"{split}/{running.hexdigest()}"


# -- why ---------------------------------------------------------------------------------------------------------------


def _of_stage(stage: str, one: Dataset, other: Dataset) -> StageDiff:
    old, new = one.manifests(stage), other.manifests(stage)
    told = StageDiff(came=sorted(new.keys() - old.keys()), went=sorted(old.keys() - new.keys()))
    for unit in sorted(old.keys() & new.keys()):
        then, now = old[unit], new[unit]
        settings = differing(then.settings(), now.settings())
        told.settings.update(settings)
        if then.fingerprint == now.fingerprint:
            continue
        told.changed.append(unit)
        inputs = {
            name.rpartition("/")[0]
            for name in then.inputs | now.inputs
            if then.inputs.get(name) != now.inputs.get(name)
        }
        told.inputs.update(inputs)
        if then.source != now.source:
            told.sources.append(unit)
        elif _taken_down(then) != _taken_down(now):
            told.taken_down.append(unit)
        elif not inputs and not settings and then.failed != now.failed:
            told.retried.append(unit)
        elif not inputs and not settings and stage != LABEL:  # labels are what people said, and follow from nothing
            told.unexplained.append(unit)
    return told


def _taken_down(manifest: Manifest) -> int:
    return sum(counts.rejected["taken_down"] for counts in manifest.items.values())


# -- telling -----------------------------------------------------------------------------------------------------------


def as_json(found: Diff) -> dict[str, Any]:
    """The same for programs."""
    return {
        "before": found.before,
        "after": found.after,
        "taken_down": found.taken_down,
        "tables": {
            name: {
                "rows": list(one.rows),
                "came": one.came,
                "went": one.went,
                "changed": one.changed,
                "examples": one.examples,
            }
            for name, one in found.tables.items()
        },
        "stages": {
            stage: {
                "units": {"came": one.came, "went": one.went, "changed": one.changed},
                "settings": dict(sorted(one.settings.items())),
                "sources": one.sources,
                "inputs": dict(sorted(one.inputs.items())),
                "taken_down": one.taken_down,
                "retried": one.retried,
                "unexplained": one.unexplained,
            }
            for stage, one in found.stages.items()
        },
    }


def lines(found: Diff) -> Iterator[str]:
    """The same for people: a table of rows, then stage by stage what they come from."""
    if not found:
        yield f"{found.before} and {found.after} hold the same rows, made with the same settings"
        return
    yield f"{'table':14} {'before':>12} {'after':>12} {'came':>10} {'went':>10} {'changed':>10}"
    for name, one in found.tables.items():
        yield f"{name:14} {one.rows[0]:>12,} {one.rows[1]:>12,} {one.came:>10,} {one.went:>10,} {one.changed:>10,}"
        for word, ids in one.examples.items():
            yield f"    {word}: {some(ids)}{' ...' if getattr(one, word) > len(ids) else ''}"
    for stage, why in found.stages.items():
        yield from _told(stage, why)
    if found.taken_down:
        yield f"takedown: {several(found.taken_down, 'picture')} more on the list of {found.after}"


def _told(stage: str, one: StageDiff) -> Iterator[str]:
    counts = [f"{len(units):,} {word}" for word, units in _words(one) if units]
    yield f"{stage}: units: {', '.join(counts) or 'the same rows'}"
    for text, count in sorted(one.settings.items()):
        kind = "model" if text.startswith("models.") else "setting"
        yield f"    {kind} {shown(text.removeprefix('models.'), 200)}, {several(count, 'unit')}"
    for text, units in (
        ("came", one.came),
        ("went", one.went),
        ("another input", one.sources),
        ("lost pictures to a takedown", one.taken_down),
        ("failed items were tried again", one.retried),
        ("with the same settings and inputs, other rows", one.unexplained),
    ):
        if units:
            yield f"    {text}: {some(units)}"
    for name, count in sorted(one.inputs.items()):
        yield f"    what it reads of {name} changed, {several(count, 'unit')}"


def _words(one: StageDiff) -> tuple[tuple[str, list[str]], ...]:
    return ("came", one.came), ("went", one.went), ("changed", one.changed)
