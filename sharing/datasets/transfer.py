"""What workers do when a dataset is made of others: one unit after another, stage by stage, less what stays behind.

A directory of which nothing changes is copied file by file, compared with its sha256; others are written anew. The
manifest of each stage is written when its files are there, and keeps the fingerprints of inputs as the source has them:
when all units are there, `refloom.sharing.datasets.making` tells them the new ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas import strict
from refloom.schemas.dataset import LABEL, STAGES, WORK, Dataset
from refloom.schemas.errors import JobStopped
from refloom.schemas.lease import holds
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder
from refloom.sharing.datasets.leaving import LeavingBehind
from refloom.sharing.publish.cuts import Cut, Rewriting
from refloom.sharing.publish.redaction import Redaction
from refloom.sharing.publish.smaller import smaller_sample
from refloom.sharing.publish.takedown import Takedown

CARRIED = tuple(stage for stage in STAGES if stage != LABEL)
"""Stages whose units are those of ingest."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A dataset that units come from.

    Attributes:
        url: of it, or of its tag.
        number: among those that units come from.
        units: unit to its name in the new dataset, where that is another.
        keys: ingest key, and name of a root, to its name in the new dataset, where that is another.
        stages: that are carried over.
        joined: whether splits are given anew, see `refloom.sharing.datasets.joining`.
    """

    url: str
    number: int
    units: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    stages: tuple[str, ...] = CARRIED
    joined: bool = False

    def unit(self, name: str) -> str:
        """What a unit is called in the new dataset."""
        return self.units.get(name, name)

    def input(self, name: str) -> str:
        """What an input of a manifest is called in the new dataset."""
        directory, _, unit = name.rpartition("/")
        return f"{directory}/{self.unit(unit)}"


@dataclass(frozen=True, slots=True)
class TransferJob:
    """What the workers do; travels to them.

    Attributes:
        how: subset or merge.
        url: of the new dataset.
        lease_id: checked before every commit.
        origins: where units come from.
    """

    how: str
    url: str
    lease_id: str
    origins: tuple[Origin, ...]

    def start(self) -> "TransferWorker":
        """One worker per process."""
        return TransferWorker(self)


def splits_path(how: str, unit: str) -> str:
    """Where the new rows of `splits` of a unit wait for whoever writes it, and which samples change sides."""
    return f"{WORK}/{how}/joined/{unit}.json"


class TransferWorker:
    """Carries units over."""

    def __init__(self, job: TransferJob) -> None:
        self._job = job
        self._folder = Folder(job.url)
        self._sources: dict[int, tuple[Dataset, LeavingBehind]] = {}

    def run(self, task: Task, watch: Watch) -> None:
        """One unit: `task.payload` is the number of its source and its name there."""
        number, unit = task.payload
        origin = self._job.origins[number]
        source, leaving = self._source(origin)
        target = Dataset(self._job.url, unfinished=True)
        redaction = leaving.of(source, unit)
        changes = _Changes.of(self._folder, self._job.how, origin, unit)
        for stage in origin.stages:
            manifest = source.manifest(stage, unit)
            if manifest is None or self._folder.exists(Manifest.path(stage, origin.unit(unit))):
                continue
            new = _carried(source, manifest, target, origin, redaction, changes)
            if not holds(self._folder, self._job.lease_id):
                raise JobStopped(f"another writer took over {self._job.url}; run again to resume")
            self._folder.write(Manifest.path(stage, new.unit), new.to_json())
            watch.read_bytes(sum(file.bytes for file in manifest.files))
        ingested = source.manifest("ingest", unit)
        watch.advance(ingested.tables["images"].rows if ingested is not None else 0)

    def _source(self, origin: Origin) -> tuple[Dataset, LeavingBehind]:
        if origin.number not in self._sources:
            leaving = LeavingBehind(self._folder, self._job.how, origin.number)
            self._sources[origin.number] = Dataset(origin.url), leaving
        return self._sources[origin.number]


def _carried(
    source: Dataset,
    manifest: Manifest,
    target: Dataset,
    origin: Origin,
    redaction: Redaction,
    changes: "_Changes",
) -> Manifest:
    """Write one unit of one stage into the new dataset; its manifest, which is not written yet."""
    taken = redaction.takedown
    cuts = bool(taken.images or taken.samples or taken.groups or taken.clusters)
    cut = Cut.of(source, manifest, redaction) if cuts else Cut()
    cut.directories += [name for name in changes.directories(manifest) if name not in cut.directories]
    unit = origin.unit(manifest.unit)
    rewriting = Rewriting(source, manifest, target.folder, unit)
    if cut.is_needed:
        rewriting.rewrite(cut, redaction, changes.route)
    rewriting.copy_others()
    new = replace(
        rewriting.manifest(),
        unit=unit,
        key=origin.keys.get(manifest.key, manifest.key),
        roots={origin.keys.get(name, name): url for name, url in manifest.roots.items()},
        inputs={origin.input(name): fingerprint for name, fingerprint in manifest.inputs.items()},
    )
    if cut.is_needed or (taken.images and manifest.stage == "dedup"):  # which counts pictures and objects
        new = rewriting.counted(target, new, redaction)
    target.foresee(new)
    return new


@dataclass(frozen=True, slots=True)
class _Changes:
    """What of the rows that stay is another in the new dataset.

    Attributes:
        origin: where they come from.
        splits: image id to its split and cluster; None where they stay.
        moves: sample id to its split, and to the pictures that it loses for the sake of that.
    """

    origin: Origin
    splits: dict[str, tuple[str, str]] | None = None
    moves: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Folder, how: str, origin: Origin, unit: str) -> "_Changes":
        """Those of one unit of the source."""
        if not origin.joined:
            return cls(origin)
        found = strict.object_in(folder.read(splits_path(how, origin.unit(unit))))
        splits = {name: (split, cluster) for name, (split, cluster) in found["splits"].items()}
        return cls(origin, splits, {name: (split, without) for name, (split, without) in found["moves"].items()})

    def directories(self, manifest: Manifest) -> Iterator[str]:
        """Those of a unit whose rows change."""
        for directory, entry in manifest.tables.items():
            name = directory.split("/")[0]
            if (
                (name == "images" and not self.origin.keys.keys().isdisjoint(manifest.roots))
                or (name in ("groups", "matches") and self.origin.units)
                or (name == "splits" and self.splits is not None)
                or (name == "samples" and self.moves)
            ) and entry.rows:
                yield directory

    def route(self, directory: str, rows: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Rows of a directory as they are in the new dataset."""
        name = directory.split("/")[0]
        if name == "samples" and self.moves:
            yield from self._moved(directory, rows)
            return
        if name == "images" and self.origin.keys:
            rows = _replaced(rows, "link", [self._link(link) for link in rows.column("link").to_pylist()])
        elif name in ("groups", "matches") and self.origin.units:
            units = rows.column("units").to_pylist()
            rows = _replaced(rows, "units", [one and [self.origin.unit(unit) for unit in one] for one in units])
        elif name == "splits" and self.splits is not None:
            found = [self.splits[image_id] for image_id in rows.column("image_id").to_pylist()]
            rows = _replaced(rows, "split", [split for split, _ in found])
            rows = _replaced(rows, "cluster", [cluster for _, cluster in found])
        yield directory, rows

    def _link(self, link: dict[str, Any] | None) -> dict[str, Any] | None:
        return link and link | {"root": self.origin.keys.get(link["root"], link["root"])}

    def _moved(self, directory: str, rows: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Samples that change sides go alone, less the pictures of the other side."""
        names = rows.column("sample_id")
        moving = pc.is_in(names, pa.array(sorted(self.moves), pa.string()))
        yield directory, rows.filter(pc.invert(moving))
        for row in rows.filter(moving).to_pylist():
            split, without = self.moves[row["sample_id"]]
            if without:
                row = smaller_sample(row, Takedown(images=frozenset(without)), "in the other split")
            if row is not None:
                yield f"samples/{split}", pa.RecordBatch.from_pylist([row], rows.schema)


def _replaced(rows: pa.RecordBatch, name: str, values: list[Any]) -> pa.RecordBatch:
    position = rows.schema.get_field_index(name)
    kind = rows.schema.field(position)
    return rows.set_column(position, kind, pa.array(values, kind.type))
