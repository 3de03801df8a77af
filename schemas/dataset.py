"""A dataset folder: its units, tables, roots and index, read through the manifests.

DATASET/
  dataset.json                      version, name, roots of linked pictures, rows and fingerprints; derived
  README.md  croissant.json         the card; derived
  takedown.json                     what may not be in it, where somebody asked for that; see `schemas.takedownlist`
  lineage.json                      which datasets it was made of, where it was; see `schemas.lineage`
  manifests/<stage>/<unit>.json     the commits; see `refloom.schemas.exchange` for what waits beside them
  <table>/unit-<unit>-000.parquet   samples/<split>/unit-<unit>-000.parquet
  ledger/<stage>/unit-<unit>-000.parquet
  work/<stage>/<state>/             what a stage over the whole dataset has half done; gone when it is committed
  tags/<name>/                      states that are kept, each a dataset of its own; see `schemas.tags`
  runs/                             leases, notes, logs: clocks, hosts and paths live here and nowhere else
"""

import hashlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas import exchange, parquet, tables, tags
from refloom.schemas.components import ADDED, column_of
from refloom.schemas.damage import Damage
from refloom.schemas.errors import Damaged, DamagedFile, Failed, Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.fingerprint import of_parts
from refloom.schemas.index import INDEX, UNFINISHED, dumped, is_dataset, read_index
from refloom.schemas.lineage import Lineage
from refloom.schemas.manifest import Counts, Manifest
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.unit import drop_unit
from refloom.schemas.wording import quoted, shown

STAGES = (
    "ingest",
    "measure",
    "mask",
    "face",
    "embed",
    "phrase",
    "quality",
    "dedup",
    "select",
    "match",
    "group",
    "split",
    "balance",
    "compose",
    "label",
)
LABEL = "label"
"""The stage of what people say of objects: one unit over all of a dataset, which outlives those of ingest."""
WORK = "work"
"""Folder of scratch: nothing in it is part of the dataset."""
INPUTS = "inputs.json"
"""In a scratch folder: input to fingerprint, as in a manifest."""


ADDED_KEY = "added"
"""In the settings of a stage's manifests: the columns that plugins add, and whose they are."""


class Dataset:
    """A dataset on a local disk or an object store.

        refloom.Dataset("DATASET").read("samples", ["sample_id", "kind"])     # a pyarrow table

    Manifests are read once and kept; `refresh` forgets them. `docs/dataset.md` has every table and column.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        tag: str | None = None,
        create: bool = False,
        lenient: bool = False,
        unfinished: bool = False,
    ) -> None:
        """Open a dataset; where dataset.json is missing or damaged, what it says is derived from the manifests.

        Args:
            url: a local path or an fsspec URL.
            tag: the state that `refloom tag` kept under this name, instead of the present one.
            create: an empty or absent folder becomes a new dataset instead of an error.
            lenient: damaged manifests are passed over and noted in `damaged`, as whoever mends or checks them wants.
            unfinished: also one that a subset or a merge has not finished, as these want.

        Raises:
            Refused: nothing there, not a dataset, of another version, unfinished, or without such a tag.
            Damaged: without `lenient`, where a manifest is needed that is damaged.
        """
        self.folder = Folder(url if isinstance(url, str) else absolute_url(url))
        if tag is not None:
            url = tags.place(self.folder.url, tag)
            self.folder = Folder(url)
        self.lenient = lenient
        self.damaged: dict[tuple[str, str], str] = {}
        self.damage = Damage(self.folder)
        self._manifests: dict[str, dict[str, Manifest]] = {}
        self._fingerprints: dict[str, str] = {}  # of whole tables: asked once per unit by `is_stale`
        self._roots: dict[str, Folder] = {}
        self._foreseen: dict[tuple[str, str], Manifest] = {}
        index, self.index_problem = read_index(self.folder)
        if index is not None and UNFINISHED in index and not unfinished:
            how = shown(index[UNFINISHED])
            raise Refused(f"{url} is not finished: run the `refloom {how}` that makes it again, it resumes")
        if index is None and self.folder.folders("manifests"):
            index = {"version": VERSION, "roots": self._roots_of_manifests()}
        elif index is None and self.folder.exists(INDEX):
            raise Refused(
                f"{url} is no refloom dataset: its {self.index_problem}, and there are no manifests that say what it "
                "was; give another folder"
            )
        elif index is None:
            if not create:
                raise Refused(
                    f"{url} is no refloom dataset (it has no {INDEX}): make one with "
                    f"`refloom ingest ... --out {quoted(self.url)}`"
                )
            refuse_foreign(self.folder)
            index, self.index_problem = {"version": VERSION, "roots": {}}, None
            try:
                self.folder.write(INDEX, dumped(index))
            except OSError as error:
                raise Refused(f"{url} cannot be made: {error.strerror or error}; give a place to write to") from error
        self.index: dict[str, Any] = index

    @property
    def url(self) -> str:
        """As it was opened."""
        return self.folder.url

    # -- units ---------------------------------------------------------------------------------------------------

    def manifests(self, stage: str) -> dict[str, Manifest]:
        """Unit name to manifest of every committed unit of a stage, in order of name.

        Raises:
            Damaged: one is damaged; a `lenient` dataset notes it in `damaged` and goes on.
        """
        if stage not in self._manifests:
            names = self.folder.names(f"manifests/{stage}")
            paths = {name[:-5]: f"manifests/{stage}/{name}" for name in names if name.endswith(".json")}
            if exchange.RECORD in names and (found := self._exchange_under_way(stage)) is not None:
                paths = exchange.true_paths(found, stage, paths, names)
            read = {unit: self._read_manifest(stage, unit, path) for unit, path in paths.items()}
            self._manifests[stage] = {unit: manifest for unit, manifest in read.items() if manifest is not None}
        return self._manifests[stage]

    def manifest(self, stage: str, unit: str) -> Manifest | None:
        """The manifest of one unit, or None: as it is now, unless `manifests` has read them all."""
        if (stage, unit) in self._foreseen:
            return self._foreseen[stage, unit]
        if stage in self._manifests:
            return self._manifests[stage].get(unit)
        return self._read_manifest(stage, unit)

    def foresee(self, manifest: Manifest) -> None:
        """Read a unit by a manifest that is not committed yet, until `refresh`: to count its rows before it is."""
        self._foreseen[manifest.stage, manifest.unit] = manifest

    def _exchange_under_way(self, stage: str) -> exchange.Exchange | None:
        try:
            return exchange.under_way(self.folder, stage)
        except Damaged as error:
            self.damaged[stage, exchange.RECORD] = str(error)
            if self.lenient:
                return None
            raise Damaged(f"{error}: {self.remedy(stage)}") from error

    def _read_manifest(self, stage: str, unit: str, path: str | None = None) -> Manifest | None:
        path = path or Manifest.path(stage, unit)
        try:
            manifest = Manifest.from_json(self.folder.read(path), path)
            _check_place(manifest, stage, unit, path)
        except FileNotFoundError:
            return None
        except (Damaged, IsADirectoryError) as error:
            self.damaged[stage, unit] = str(error)
            if self.lenient:
                return None
            raise Damaged(f"{error}: {self.remedy(stage)}") from error
        self.damaged.pop((stage, unit), None)
        return manifest

    def remedy(self, stage: str) -> str:
        """The command that mends a damaged unit of a stage."""
        if tags.is_tag(self.folder):
            return "it is of a tag, which nothing makes again: remove the tag with `refloom tag ... --delete`"
        if stage == "ingest":
            return f"`refloom mend {quoted(self.url)}` says which source to ingest again"
        if stage == LABEL:
            return (
                "people made it and nothing else can: put labels/ and manifests/label/ back from a copy, or remove "
                "both to label anew"
            )
        return f"`refloom mend {quoted(self.url)}` makes it again"

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the files of a unit are there as they were committed, as far as a look can tell."""
        return self.damage.of(manifest) is None

    def units(self) -> list[str]:
        """Names of all ingested units, sorted."""
        return list(self.manifests("ingest"))

    def tags(self) -> list[str]:
        """Names of the states that `refloom tag` has kept, sorted; `Dataset(url, tag=NAME)` opens one."""
        return tags.names(self.folder)

    def drop(self, stage: str, unit: str) -> None:
        """Remove a unit of a stage."""
        drop_unit(self.folder, stage, unit)
        self._manifests.pop(stage, None)
        self._fingerprints.clear()

    def new_run(self) -> Folder:
        """A fresh folder for the notes and errors of one run."""
        return self.folder.below(f"runs/{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}")

    def refresh(self) -> None:
        """Forget what was read of the manifests."""
        self._manifests.clear()
        self._fingerprints.clear()
        self._foreseen.clear()
        self.damaged.clear()
        self.damage.forget()

    # -- rows ----------------------------------------------------------------------------------------------------

    def schema(self, table: str, unit: str | None = None) -> pa.Schema:
        """The columns of a table here, or in one unit: those of the contract, then those that plugins have added."""
        return _schema(table, self._held(table, unit) if table in ADDED else [])

    def read(self, table: str, columns: Sequence[str] | None = None, *, unit: str | None = None) -> pa.Table:
        """Rows of a table, in order of unit and row.

        Args:
            table: a name in `refloom.schemas.tables.TABLES`.
            columns: all by default; leave out picture columns of more than one unit.
            unit: only this one.
        """
        held = self._held(table, unit)
        schema = _schema(table, held)
        if table in ADDED and not {name.split(".")[0] for name in columns or ()} <= set(schema.names):
            schema = self.schema(table)  # a plugin's column, which other units have
        with self._mendable(table):
            return parquet.read(self.folder, _files(held, table), schema, columns)

    def batches(
        self, table: str, columns: Sequence[str] | None = None, *, unit: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """As `read`, one row group at a time: memory does not grow with the unit."""
        with self._mendable(table):
            held = self._held(table, unit)
            yield from parquet.batches(self.folder, _files(held, table), columns, _schema(table, held))

    def ledger(self, stage: str, *, unit: str | None = None) -> pa.Table:
        """Rejected and failed items of a stage; rejected objects of `select` are rows of its table instead."""
        with self._mendable(stage):
            held = self._held(stage, unit)
            return parquet.read(self.folder, _files(held, f"ledger/{stage}"), tables.LEDGER)

    @contextmanager
    def opened(self, table: str, path: str) -> Iterator[pq.ParquetFile]:
        """A file of a table to read, page by page checked.

        Raises:
            DamagedFile: it is gone or damaged; names the command that mends it.
        """
        with self._mendable(table), parquet.opened(self.folder, path) as reader:
            yield reader

    @contextmanager
    def _mendable(self, table_or_stage: str) -> Iterator[None]:
        """Say which command mends a file that turns out to be damaged."""
        try:
            yield
        except DamagedFile as error:
            raise DamagedFile(f"{error}: {self.remedy(_stage(table_or_stage))}") from error

    def _held(self, table_or_stage: str, unit: str | None) -> list[Manifest]:
        """The manifests of all units, or that of one if it is there; each is read once, for its files and columns."""
        stage = _stage(table_or_stage)
        if unit is None:
            return list(self.manifests(stage).values())
        one = self.manifest(stage, unit)
        return [one] if one else []

    def fingerprint(self, table: str) -> str:
        """Of a whole table, from those of its units."""
        if table not in self._fingerprints:
            self._fingerprints[table] = of_parts(
                {
                    f"{directory}/{unit}": entry.fingerprint
                    for unit, manifest in self.manifests(tables.TABLES[table].stage).items()
                    for directory, entry in manifest.tables.items()
                    if directory.split("/")[0] == table
                }
            )
        return self._fingerprints[table]

    def fingerprint_of(self, name: str) -> str | None:
        """Present fingerprint of an input as manifests name it: `<directory>/<unit>`, or `<table>/*` for all units.

        The ledger of a stage is the directory `ledger/<stage>`.
        """
        directory, _, unit = name.rpartition("/")
        top, _, rest = directory.partition("/")
        table = tables.TABLES.get(top)
        if table is None and top != "ledger":
            return None
        if table is not None and unit == "*":
            return self.fingerprint(table.name)
        manifest = self.manifest(rest if table is None else table.stage, unit)
        entry = manifest.tables.get(directory) if manifest else None
        return entry.fingerprint if entry else None

    def is_stale(self, manifest: Manifest) -> bool:
        """Whether an input of the unit has changed or gone since."""
        now = ((self.fingerprint_of(name) or "absent", then) for name, then in manifest.inputs.items())
        return any(present != then for present, then in now)

    # -- pictures ------------------------------------------------------------------------------------------------

    def picture(self, row: dict[str, Any]) -> bytes:
        """The stored bytes of an `images` row, from the row itself or through its link.

        Raises:
            Failed: `missing_file`, `io_error`: the linked file is gone or too short.
        """
        if row["image"] is not None:
            data: bytes = row["image"]["bytes"]
            return data
        link = row["link"]
        source = self._root(link["root"])
        try:
            with source.open(link["file"]) as file:
                file.seek(link["offset"])
                data = file.read(link["length"])
        except FileNotFoundError as error:
            raise Failed("missing_file", f"{link['file']} below root {link['root']}") from error
        except OSError as error:
            raise Failed("io_error", f"{link['file']}: {type(error).__name__}") from error
        if len(data) != link["length"]:
            raise Failed("io_error", f"{link['file']} ends before the linked bytes")
        return data

    def checked_picture(self, row: dict[str, Any]) -> bytes:
        """As `picture`, but a link must give the very bytes that were ingested.

        Raises:
            Failed: also `source_changed`.
        """
        data = self.picture(row)
        if row["image"] is None and hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise Failed("source_changed", row["link"]["file"])
        return data

    def _root(self, name: str) -> Folder:
        if name not in self._roots:
            if name not in self.index.get("roots", {}):
                raise Failed("missing_file", f"root {name} is not in {INDEX}")
            self._roots[name] = Folder(self.index["roots"][name])
        return self._roots[name]

    def set_roots(self, roots: dict[str, str]) -> bool:
        """Let links of some roots lead to other folders, which `write_index` keeps; whether that changes anything."""
        held = self.index.get("roots", {})
        changed = any(held.get(name, url) != url for name, url in roots.items())
        self.index["roots"] = held | roots
        self._roots.clear()
        return changed

    # -- upkeep --------------------------------------------------------------------------------------------------

    def counts(self, stage: str, units: Collection[str] | None = None) -> dict[str, Counts]:
        """Item kind to counts over the units of a stage; all of them by default."""
        total: dict[str, Counts] = {}
        for unit, manifest in self.manifests(stage).items():
            if units is not None and unit not in units:
                continue
            for kind, counts in manifest.items.items():
                total.setdefault(kind, Counts()).add(counts)
        return total

    def notes(self, stage: str, units: Collection[str] | None = None) -> Counter[str]:
        """Word of `refloom.schemas.notes` to its number over the units of a stage; all of them by default."""
        total: Counter[str] = Counter()
        for unit, manifest in self.manifests(stage).items():
            if units is None or unit in units:
                total.update(manifest.notes)
        return total

    def write_index(self) -> None:
        """Derive dataset.json anew; roots that a person changed in it are kept."""
        self.refresh()
        self.index = self.derived_index()
        self.folder.write(INDEX, dumped(self.index))
        self.index_problem = None

    def derived_index(self) -> dict[str, Any]:
        """What dataset.json says of the manifests as they are; its roots are those of the present one."""
        lineage = Lineage.load(self.folder)
        return {
            "version": VERSION,
            "roots": self._roots_of_manifests() | self.index.get("roots", {}),
            "tables": self.table_summary(),
            "stages": {stage: {"units": len(self.manifests(stage))} for stage in STAGES if self.manifests(stage)},
            **({"lineage": lineage.to_json()} if lineage is not None else {}),
        }

    def _roots_of_manifests(self) -> dict[str, str]:
        roots: dict[str, str] = {}
        for manifest in self.manifests("ingest").values():
            roots.update(manifest.roots)
        return roots

    def table_summary(self) -> dict[str, dict[str, Any]]:
        """Rows, units and fingerprint of every table that has any unit."""
        summary = {}
        for name, table in tables.TABLES.items():
            manifests = self.manifests(table.stage)
            rows: Counter[str] = Counter()
            for unit, manifest in manifests.items():
                entries = [entry for directory, entry in manifest.tables.items() if directory.split("/")[0] == name]
                rows[unit] = sum(entry.rows for entry in entries)
            if manifests:
                summary[name] = {"rows": rows.total(), "units": len(manifests), "fingerprint": self.fingerprint(name)}
        return summary


def _stage(table_or_stage: str) -> str:
    return tables.TABLES[table_or_stage].stage if table_or_stage in tables.TABLES else table_or_stage


def _files(held: list[Manifest], directory: str) -> list[parquet.File]:
    return [file for manifest in held for file in manifest.files_of(directory)]


def _schema(table: str, held: list[Manifest]) -> pa.Schema:
    """The columns of the contract, then those that plugins added to these units."""
    schema = tables.TABLES[table].schema
    added: dict[str, dict[str, str]] = {}
    for manifest in held if table in ADDED else ():
        added |= manifest.config.get(ADDED_KEY, {})
    for name in sorted(added):
        schema = schema.append(column_of(name, added[name]))
    return schema


def _check_place(manifest: Manifest, stage: str, unit: str, path: str) -> None:
    """Raise Damaged for a manifest that belongs elsewhere, or names what a stage of this refloom does not write."""
    if (manifest.stage, manifest.unit) != (stage, unit):
        raise Damaged(f"{path} is the manifest of {manifest.stage}/{manifest.unit}")
    for directory in manifest.tables:
        top, _, below = directory.partition("/")
        table = tables.TABLES.get(top)
        if (top == "ledger" and below != stage) or (top != "ledger" and (table is None or table.stage != stage)):
            raise Damaged(f"{path} names {shown(directory)}, which {stage} does not write")
    if stage == "ingest" and not {"images", "source_groups"} <= manifest.tables.keys():
        raise Damaged(f"{path} says nothing of its pictures")


Place = str | os.PathLike[str] | Dataset
"""Where a dataset is: a path, an fsspec URL, or the dataset itself."""


def url_of(place: Place) -> str:
    """The address of a dataset, a local path as an absolute one.

    Raises:
        Refused: it is empty or no path.
    """
    return place.url if isinstance(place, Dataset) else absolute_url(place)


def opened(place: Place) -> Dataset:
    """A dataset as it is now: one that was opened before reads its manifests anew.

    Raises:
        Refused: there is none.
    """
    if not isinstance(place, Dataset):
        return Dataset(absolute_url(place))
    place.refresh()
    return place


def refuse_foreign(folder: Folder) -> None:
    """Raise Refused if a new dataset would come among other people's files."""
    if folder.is_local and not is_dataset(folder) and (folder.names("") or set(folder.folders("")) - {"runs"}):
        raise Refused(f"{folder.url} is not empty and no refloom dataset: give an empty or new folder")
