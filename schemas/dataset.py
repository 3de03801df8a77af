"""A dataset folder: its units, tables, roots and index, read through the manifests.

DATASET/
  dataset.json                      version, name, roots of linked pictures, rows and fingerprints; derived
  README.md  croissant.json         the card; derived
  manifests/<stage>/<unit>.json     the commits
  <table>/unit-<unit>-000.parquet   samples/<split>/unit-<unit>-000.parquet
  ledger/<stage>/unit-<unit>-000.parquet
  work/<stage>/<state>/             what a stage over the whole dataset has half done; gone when it is committed
  runs/                             leases, notes, logs: clocks, hosts and paths live here and nowhere else
"""

import hashlib
import json
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from refloom.schemas import parquet, strict, tables
from refloom.schemas.components import ADDED, column_of
from refloom.schemas.errors import Failed, Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.fingerprint import of_parts
from refloom.schemas.manifest import Counts, Manifest
from refloom.schemas.storage import TEMPORARY, Folder
from refloom.schemas.unit import drop_unit

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
)
WORK = "work"
"""Folder of scratch: nothing in it is part of the dataset."""
INPUTS = "inputs.json"
"""In a scratch folder: input to fingerprint, as in a manifest."""
_INDEX = "dataset.json"


ADDED_KEY = "added"
"""In the settings of a stage's manifests: the columns that plugins add, and whose they are."""


class Dataset:
    """A dataset on a local disk or an object store.

    Manifests are read once and kept; `refresh` forgets them.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        """Open a dataset.

        Args:
            url: a local path or an fsspec URL.
            create: an empty or absent folder becomes a new dataset instead of an error.

        Raises:
            Refused: nothing there, not a dataset, or of another version.
        """
        self.folder = Folder(url)
        self._manifests: dict[str, dict[str, Manifest]] = {}
        self._fingerprints: dict[str, str] = {}  # of whole tables: asked once per unit by `is_stale`
        self._roots: dict[str, Folder] = {}
        try:
            self.index: dict[str, Any] = json.loads(self.folder.read(_INDEX))
        except FileNotFoundError:
            if not create:
                raise Refused(
                    f"{url} is no refloom dataset (it has no {_INDEX}): make one with `refloom ingest ... --out {url}`"
                ) from None
            refuse_foreign(self.folder)
            self.index = {"version": VERSION, "roots": {}}
            try:
                self.folder.write(_INDEX, _json(self.index))
            except OSError as error:
                raise Refused(f"{url} cannot be made: {error.strerror or error}; give a place to write to") from error
        except NotADirectoryError as error:
            raise Refused(f"{url} is a file: give the folder of a dataset") from error
        except ValueError as error:
            raise Refused(f"{url}/{_INDEX} is not json ({error}): remove it, it is rebuilt by the next run") from error
        if self.index.get("version") != VERSION:
            raise Refused(
                f"{url} is of dataset version {self.index.get('version')}; "
                f"this refloom reads version {VERSION}: "
                "use the refloom that wrote it, or build the dataset anew"
            )

    @property
    def url(self) -> str:
        """As it was opened."""
        return self.folder.url

    # -- units ---------------------------------------------------------------------------------------------------

    def manifests(self, stage: str) -> dict[str, Manifest]:
        """Unit name to manifest of every committed unit of a stage, in order of name."""
        if stage not in self._manifests:
            names = [name for name in self.folder.names(f"manifests/{stage}") if name.endswith(".json")]
            paths = [f"manifests/{stage}/{name}" for name in names]
            self._manifests[stage] = {
                path.rsplit("/", 1)[1][:-5]: Manifest.from_json(self.folder.read(path), path) for path in paths
            }
        return self._manifests[stage]

    def manifest(self, stage: str, unit: str) -> Manifest | None:
        """The manifest of one unit, or None: as it is now, unless `manifests` has read them all."""
        if stage in self._manifests:
            return self._manifests[stage].get(unit)
        path = Manifest.path(stage, unit)
        try:
            return Manifest.from_json(self.folder.read(path), path)
        except FileNotFoundError:
            return None

    def units(self) -> list[str]:
        """Names of all ingested units, sorted."""
        return list(self.manifests("ingest"))

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

    # -- rows ----------------------------------------------------------------------------------------------------

    def schema(self, table: str, unit: str | None = None) -> pa.Schema:
        """The columns of a table here, or in one unit: those of the contract, then those that plugins have added."""
        schema, stage = tables.TABLES[table].schema, tables.TABLES[table].stage
        added: dict[str, dict[str, str]] = {}
        if table in ADDED:
            one = None if unit is None else self.manifest(stage, unit)
            for manifest in self.manifests(stage).values() if unit is None else filter(None, [one]):
                added |= manifest.config.get(ADDED_KEY, {})
        for name in sorted(added):
            schema = schema.append(column_of(name, added[name]))
        return schema

    def read(self, table: str, columns: Sequence[str] | None = None, *, unit: str | None = None) -> pa.Table:
        """Rows of a table, in order of unit and row.

        Args:
            table: a name in `refloom.schemas.tables.TABLES`.
            columns: all by default; leave out picture columns of more than one unit.
            unit: only this one.
        """
        schema = self.schema(table, unit)
        if table in ADDED and not {name.split(".")[0] for name in columns or ()} <= set(schema.names):
            schema = self.schema(table)  # a plugin's column, which other units have
        return parquet.read(self.folder, self._files(table, table, unit), schema, columns)

    def batches(
        self, table: str, columns: Sequence[str] | None = None, *, unit: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """As `read`, one row group at a time: memory does not grow with the unit."""
        return parquet.batches(self.folder, self._files(table, table, unit), columns, self.schema(table, unit))

    def ledger(self, stage: str, *, unit: str | None = None) -> pa.Table:
        """Rejected and failed items of a stage; rejected objects of `select` are rows of its table instead."""
        return parquet.read(self.folder, self._files(stage, f"ledger/{stage}", unit), tables.LEDGER)

    def _files(self, table_or_stage: str, directory: str, unit: str | None) -> list[parquet.File]:
        stage = tables.TABLES[table_or_stage].stage if table_or_stage in tables.TABLES else table_or_stage
        if unit is None:
            found = list(self.manifests(stage).values())
        else:
            one = self.manifest(stage, unit)
            found = [one] if one else []
        return [file for manifest in found for file in manifest.files_of(directory)]

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
        if unit == "*":
            return self.fingerprint(directory)
        table, _, rest = directory.partition("/")
        manifest = self.manifest(rest if table == "ledger" else tables.TABLES[table].stage, unit)
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
                raise Failed("missing_file", f"root {name} is not in {_INDEX}")
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
        roots: dict[str, str] = {}
        for manifest in self.manifests("ingest").values():
            roots.update(manifest.roots)
        self.index = {
            "version": VERSION,
            "roots": roots | self.index.get("roots", {}),
            "tables": self.table_summary(),
            "stages": {stage: {"units": len(self.manifests(stage))} for stage in STAGES if self.manifests(stage)},
        }
        self.folder.write(_INDEX, _json(self.index))

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

    def collect_garbage(self) -> list[str]:
        """Remove files of tables and ledgers that no manifest names, temporary files, and scratch of other inputs.

        Returns their paths.

        Only for the holder of the lease.
        """
        self.refresh()
        named = {
            file.path for stage in STAGES for manifest in self.manifests(stage).values() for file in manifest.files
        }
        removed = []
        for top in (*tables.TABLES, "ledger", "manifests"):
            for directory in (top, *(f"{top}/{name}" for name in self.folder.folders(top))):
                for name in self.folder.names(directory):
                    path = f"{directory}/{name}"
                    if name.endswith(TEMPORARY) or (name.endswith(".parquet") and path not in named):
                        self.folder.remove(path)
                        removed.append(path)
        for stage in self.folder.folders(WORK):
            for state in self.folder.folders(f"{WORK}/{stage}"):
                if not self._is_current(f"{WORK}/{stage}/{state}"):
                    self.folder.remove_tree(f"{WORK}/{stage}/{state}")
                    removed.append(f"{WORK}/{stage}/{state}")
        return removed

    def _is_current(self, scratch: str) -> bool:
        """Whether the inputs of a scratch folder are still what they were."""
        try:
            inputs: dict[str, str] = json.loads(self.folder.read(f"{scratch}/{INPUTS}"))
            return all((self.fingerprint_of(name) or "absent") == then for name, then in inputs.items())
        except (FileNotFoundError, ValueError, KeyError):
            return False


def refuse_foreign(folder: Folder) -> None:
    """Raise Refused if a new dataset would come among other people's files."""
    if folder.is_local and not folder.exists("dataset.json") and (folder.names("") or folder.folders("")):
        raise Refused(f"{folder.url} is not empty and no refloom dataset: give an empty or new folder")


def _json(value: Any) -> bytes:
    return strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
