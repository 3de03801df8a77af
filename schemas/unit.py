"""Writing one unit of one stage: rows, ledger and counts, committed by the manifest as the last act."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from refloom.schemas import tables
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.manifest import Counts, Manifest, TableEntry
from refloom.schemas.notes import NOTES
from refloom.schemas.parquet import File, TableWriter, usual_name
from refloom.schemas.reasons import FAILED, REJECTED
from refloom.schemas.storage import Folder


@dataclass(frozen=True, slots=True)
class UnitKey:
    """What a unit's manifest says of how it was made; see `refloom.schemas.manifest.Manifest` for the fields."""

    stage: str
    unit: str
    key: str
    config: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    stage_version: int = 1
    models: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    roots: dict[str, str] = field(default_factory=dict)


class UnitWriter:
    """Collects what a stage makes of one unit. Use as a context: leaving it commits, an exception changes nothing.

    A unit of the same name that is there can be read until the manifest takes the place of its manifest; then its files
    go.

    Every item must be announced with `expect` where it is *read* and settled with exactly one of `keep`, `reject` or
    `fail` where it is *decided*; commit refuses to lose or double one.
    """

    def __init__(
        self,
        folder: Folder,
        key: UnitKey,
        *,
        on_verdict: Callable[[str, str, int], None] | None = None,
        before_commit: Callable[[], None] | None = None,
        inputs: Callable[[], dict[str, str]] | None = None,
        schemas: Mapping[str, pa.Schema] | None = None,
        place: str | None = None,
        beside: str | None = None,
    ) -> None:
        """Open the unit.

        Args:
            folder: the dataset.
            key: stage, unit and settings.
            on_verdict: called with kind and verdict (`kept`, `rejected`, `failed`) of items and their number.
            before_commit: called when all is written but the manifest; may raise to keep it from being committed.
            inputs: fingerprints of what was read, asked for at commit: a stage may read what was committed just before.
            schemas: of the tables that are written, by name; None for the stage's own in a dataset.
            place: of the manifest; None for where those are that can be read.
            beside: path of another manifest of the unit, whose files stay.
        """
        self._folder, self._key = folder, key
        self._inputs = inputs or (lambda: key.inputs)
        self._before_commit = before_commit or (lambda: None)
        self._on_verdict = on_verdict or (lambda kind, verdict, count: None)
        self._schemas = schemas or {
            name: tables.written(name) for name, one in tables.TABLES.items() if one.stage == key.stage
        }
        self._place, self._beside = place or Manifest.path(key.stage, key.unit), beside
        self._old: tuple[File, ...] = ()
        self._kept: tuple[File, ...] = ()
        self._writers: dict[str, TableWriter] = {}
        self.items: dict[str, Counts] = defaultdict(Counts)
        self._notes: Counter[str] = Counter()

    def __enter__(self) -> "UnitWriter":
        self._old = files_of(self._folder, self._place)
        self._kept = files_of(self._folder, self._beside) if self._beside is not None else ()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._commit()
        finally:  # what has not appeared until now is not to appear
            for writer in self._writers.values():
                writer.abort()

    def expect(self, kind: str, count: int = 1) -> None:
        """Announce items of the input."""
        self.items[kind].input += count

    def keep(self, kind: str, count: int = 1) -> None:
        """Settle items that have their rows."""
        self.items[kind].kept += count
        self._on_verdict(kind, "kept", count)

    def reject(
        self, kind: str, item_id: str, reason: str, detail: str = "", *, file: str | None = None, occurrence: int = 0
    ) -> None:
        """Settle an item as rejected for its content.

        Args:
            kind: of item.
            item_id: its id.
            reason: a key of `REJECTED`.
            detail: short and deterministic.
            file: the source's file that holds it, relative to the source.
            occurrence: 0 for the first item of this id in the source, 1 for the second ...
        """
        if reason not in REJECTED:
            raise KeyError(f"{reason!r} is not a reason to reject")
        self.items[kind].rejected[reason] += 1
        self._note(kind, item_id, occurrence, file, "rejected", reason, detail)

    def fail(
        self, kind: str, item_id: str, reason: str, detail: str = "", *, file: str | None = None, occurrence: int = 0
    ) -> None:
        """Settle an item as failed in this run; arguments as for `reject`, `reason` a key of `FAILED`."""
        if reason not in FAILED:
            raise KeyError(f"{reason!r} is not a way to fail")
        self.items[kind].failed[reason] += 1
        self._note(kind, item_id, occurrence, file, "failed", reason, detail)

    def note(self, word: str, count: int = 1) -> None:
        """Count what was settled without a loss and is worth knowing; `word` is a key of `NOTES`."""
        if word not in NOTES:
            raise KeyError(f"{word!r} is no note")
        self._notes[word] += count

    def _note(
        self, kind: str, item_id: str, occurrence: int, file: str | None, verdict: str, reason: str, detail: str
    ) -> None:
        row = (kind, item_id, occurrence, file, verdict, reason, detail or None)
        safe = [
            value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value for value in row
        ]
        self._writer(f"ledger/{self._key.stage}", tables.LEDGER).add(dict(zip(tables.LEDGER.names, safe, strict=True)))
        self._on_verdict(kind, verdict, 1)

    def add(self, table: str, row: dict[str, Any], *, weight: int = 0, below: str = "") -> None:
        """Add one row.

        Args:
            table: of this stage.
            row: column to value; missing columns are null.
            weight: bytes of the pictures in it.
            below: folder inside the table's, e.g. `train` for samples.
        """
        self._table_writer(table, below).add(row, weight)

    def add_columns(self, table: str, columns: dict[str, Any], *, below: str = "") -> None:
        """Add many rows at once.

        Args:
            table, below: as for `add`.
            columns: name to a list or array of N values, NaN where a float is null; missing columns are null.
        """
        self._table_writer(table, below).add_columns(columns)

    def _table_writer(self, table: str, below: str) -> TableWriter:
        if table not in self._schemas:
            raise KeyError(f"stage {self._key.stage} does not write the table {table}")
        return self._writer(f"{table}/{below}" if below else table, self._schemas[table])

    def _writer(self, directory: str, schema: pa.Schema) -> TableWriter:
        if directory not in self._writers:
            taken = [file.path for file in (*self._old, *self._kept)]
            self._writers[directory] = TableWriter(self._folder, directory, self._key.unit, schema, taken=taken)
        return self._writers[directory]

    def _commit(self) -> None:
        for kind, counts in self.items.items():
            if not counts.balanced:
                raise AssertionError(
                    f"{self._key.stage}/{self._key.unit}: {kind} items do not add up: "
                    f"{counts.to_json()}; nothing was committed"
                )
        for name, schema in self._schemas.items():
            if name != "samples":
                self._writer(name, schema)  # so that an empty table is on record as empty
        for writer in self._writers.values():
            writer.finish()
        self._before_commit()
        for writer in self._writers.values():
            writer.show()
        manifest = Manifest(
            stage=self._key.stage,
            unit=self._key.unit,
            key=self._key.key,
            config=self._key.config,
            source=self._key.source,
            stage_version=self._key.stage_version,
            models=self._key.models,
            inputs=self._inputs(),
            tables={name: TableEntry(writer.rows, writer.fingerprint) for name, writer in self._writers.items()},
            items=dict(self.items),
            files=tuple(file for name in sorted(self._writers) for file in self._writers[name].files),
            roots=self._key.roots,
            notes=dict(sorted(self._notes.items())),
        )
        self._folder.write(self._place, manifest.to_json())
        remove_files(self._folder, self._old, but=(*manifest.files, *self._kept))
        if self._place == Manifest.path(manifest.stage, manifest.unit):
            settle_names(self._folder, manifest)


def files_of(folder: Folder, path: str) -> tuple[File, ...]:
    """Files of the unit whose manifest is at `path`; none if there is no manifest.

    A damaged one names nothing: what it named is garbage.
    """
    try:
        return Manifest.from_json(folder.read(path), path).files
    except (FileNotFoundError, Damaged):
        return ()


def remove_files(folder: Folder, files: Iterable[File], *, but: Iterable[File] = ()) -> None:
    """Remove files of a unit but those that another manifest names; call it when no manifest names the others."""
    staying = {file.path for file in but}
    for file in files:
        if file.path not in staying:
            with suppress(Refused):  # of a path that leaves the folder: nothing of ours
                folder.remove(file.path)


def settle_names(folder: Folder, manifest: Manifest, place: str | None = None) -> Manifest:
    """Give the files of a committed unit their usual names, which no other files have any more; its manifest then.

    A unit whose files are not all there stays as it is: it is due, and gets the usual names when it is made again.

    Args:
        folder: the dataset.
        manifest: of the unit.
        place: where it lies; None for where those are that can be read.
    """
    files = tuple(replace(file, path=usual_name(file.path)) for file in manifest.files)
    moved = [(old, new) for old, new in zip(manifest.files, files, strict=True) if old != new]
    if not moved:
        return manifest
    try:
        for old, new in moved:
            folder.copy(old.path, new.path)
    except (FileNotFoundError, Refused):  # gone, or of a path that leaves the folder
        return manifest
    settled = replace(manifest, files=files)
    folder.write(place or Manifest.path(manifest.stage, manifest.unit), settled.to_json())
    remove_files(folder, [old for old, _ in moved])
    return settled


def drop_unit(folder: Folder, stage: str, unit: str) -> None:
    """Remove a unit: the manifest first, so that a crash in between leaves garbage and not a broken unit."""
    path = Manifest.path(stage, unit)
    files = files_of(folder, path)
    folder.remove(path)
    remove_files(folder, files)
