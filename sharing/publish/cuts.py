"""One unit of one stage without what is taken down: its rows, its ledger, its counts.

A picture that goes is a word of the ledger of ingest, and its annotations and captions follow it there; later stages
never had it: what they counted for it is counted no more.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import parquet, tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.manifest import Counts, Manifest, TableEntry
from refloom.schemas.parquet import TableWriter
from refloom.schemas.takedownlist import file_of
from refloom.schemas.verify import kept_items
from refloom.sharing.publish.redaction import ID_COLUMNS, Redaction

_KIND = re.compile(r"^(track|identity|look|folder)/")
_BY_ROW = ("select", "balance")
"""Stages whose rejected items are rows of their tables and not of the ledger."""

Row = dict[str, Any]


@dataclass(slots=True)
class Cut:
    """What of a unit goes.

    Attributes:
        directories: those whose rows change.
        rows: `<table> dropped`, `<table> touched` to rows.
        ledger: whether rows of the ledger go.
    """

    directories: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    ledger: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether anything of the unit goes."""
        return bool(self.directories or self.ledger)

    @classmethod
    def of(cls, dataset: Dataset, manifest: Manifest, redaction: Redaction) -> "Cut":
        """Look at the ids of a unit."""
        cut = cls()
        for directory in manifest.tables:
            name = directory.split("/")[0]
            if name == "ledger":
                continue
            columns = ID_COLUMNS.get(name, ["image_id"])
            schema = tables.TABLES[name].schema
            for batch in parquet.batches(dataset.folder, manifest.files_of(directory), columns, schema):
                away, touched = redaction.hits(name, batch)
                for word, hit in (("dropped", away), ("touched", pc.and_not(touched, away))):
                    cut.rows[f"{name} {word}"] += pc.sum(hit).as_py() or 0
                if pc.any(pc.or_(away, touched)).as_py() and directory not in cut.directories:
                    cut.directories.append(directory)
        if manifest.stage != "ingest":  # its ledger says what came in and did not stay, this picture among others
            rows = _ledger(dataset, manifest)
            cut.ledger = any(is_about(row, redaction) for row in rows)
        cut.rows = +cut.rows
        return cut


def is_about(row: Row, redaction: Redaction) -> bool:
    """Whether an item of a later stage's ledger is a picture that goes, lies on one, or is named after one."""
    taken, name = redaction.takedown, row["item_id"]
    if row["kind"] == "video":
        return name in taken.videos or name.rpartition("/")[0] in taken.videos or f"video/{name}" in taken.samples
    if row["kind"] == "group":
        if name in taken.groups or name in taken.renamed or f"group/{name}" in taken.samples:
            return True
        name = _KIND.sub("", name)
    return image_of(name) in taken.images or f"{row['kind']}/{name}" in taken.samples


def cut_unit(dataset: Dataset, manifest: Manifest, cut: Cut, redaction: Redaction) -> int:
    """Write a unit anew without what goes, and remove its old files.

    Returns:
        How many pictures went whose bytes lie in their source.
    """
    writer = _Writer(dataset, manifest)
    lost = _Lost()
    for directory in cut.directories:
        writer.rewrite(directory, redaction, lost)
    rows = _ledger(dataset, manifest)
    items = {kind: Counts.from_json(counts.to_json()) for kind, counts in manifest.items.items()}
    if manifest.stage == "ingest":
        added = list(lost.rows(redaction, rows))
        rows += added
        for row in added:
            items[row["kind"]].rejected[row["reason"]] += 1
    else:
        rows = _without(rows, items, redaction)
    if rows or f"ledger/{manifest.stage}" in manifest.tables:
        writer.write_ledger(rows)
    new = writer.manifest()
    dataset.manifests(manifest.stage)[manifest.unit] = new  # so that the tables are counted as they are now
    _count(dataset, new, items, lost)
    new = replace(new, items=items)
    dataset.folder.write(Manifest.path(new.stage, new.unit), new.to_json())
    kept = {file.path for file in new.files}
    for file in manifest.files:
        if file.path not in kept:
            dataset.folder.remove(file.path)
    dataset.refresh()
    return lost.linked


def recount(dataset: Dataset, manifest: Manifest) -> None:
    """Count the items of a unit anew that are rows of an earlier stage, which has lost some."""
    items = {kind: Counts.from_json(counts.to_json()) for kind, counts in manifest.items.items()}
    _count(dataset, manifest, items, _Lost())
    if items != manifest.items:
        dataset.folder.write(Manifest.path(manifest.stage, manifest.unit), replace(manifest, items=items).to_json())


def _ledger(dataset: Dataset, manifest: Manifest) -> list[Row]:
    directory = f"ledger/{manifest.stage}"
    rows: list[Row] = parquet.read(dataset.folder, manifest.files_of(directory), tables.LEDGER).to_pylist()
    return rows


def _without(rows: list[Row], items: dict[str, Counts], redaction: Redaction) -> list[Row]:
    """The rows of a later stage's ledger that stay; what goes is no longer an item."""
    left = []
    for row in rows:
        if not is_about(row, redaction):
            left.append(row)
            continue
        counts = items[row["kind"]]
        counts.input -= 1
        (counts.failed if row["verdict"] == "failed" else counts.rejected)[row["reason"]] -= 1
    return left


def _count(dataset: Dataset, manifest: Manifest, items: dict[str, Counts], lost: "_Lost") -> None:
    """Counts as the tables have them: in ingest what went is rejected now, in later stages it never came."""
    for kind, counts in items.items():
        kept = kept_items(dataset, manifest, kind)
        if kept is None:
            kept = counts.kept - lost.settled[kind]
        if manifest.stage in _BY_ROW:
            counts.rejected = _rejected_rows(dataset, manifest, kind)
        counts.kept = kept
        if manifest.stage != "ingest":
            counts.input = kept + counts.rejected.total() + counts.failed.total()
        counts.rejected, counts.failed = +counts.rejected, +counts.failed


def _rejected_rows(dataset: Dataset, manifest: Manifest, kind: str) -> Counter[str]:
    """Reason to rows of the tables that carry verdicts."""
    name, key = {"select": ("selection", "object_id"), "balance": ("choices", "sample_id")}[manifest.stage]
    rows = dataset.read(name, [key, "verdict", "reason"], unit=manifest.unit).to_pylist()
    return Counter(
        row["reason"]
        for row in rows
        if row["verdict"] == "reject" and (manifest.stage == "select" or row[key].startswith(f"{kind}/"))
    )


class _Lost:
    """What ingest loses, and the words of its ledger for that."""

    def __init__(self) -> None:
        self._images: list[Row] = []
        self._objects: list[Row] = []
        self._groups: list[str] = []
        self._tracks: set[str] = set()
        self._tracks_left: set[str] = set()
        self.settled: Counter[str] = Counter()
        self.linked = 0

    def see(self, table: str, before: pa.RecordBatch, after: pa.RecordBatch) -> None:
        """Note which rows are no longer there."""
        if table not in ("images", "objects", "source_groups"):
            return
        key = tables.TABLES[table].key
        gone = before.filter(pc.invert(pc.is_in(before.column(key), value_set=after.column(key))))
        if table == "images":
            names = ["image_id", "captions", "link"]
            paths = pc.struct_field(gone.column("image"), "path").to_pylist()
            for row, path in zip(gone.select(names).to_pylist(), paths, strict=True):
                self._images.append(row | {"image": {"path": path}})
                self.linked += row["link"] is not None
        elif table == "objects":
            self._objects += gone.select(["object_id", "image_id", "kind", "track_id"]).to_pylist()
            self._tracks.update(name for name in gone.column("track_id").to_pylist() if name)
            self._tracks_left.update(name for name in after.column("track_id").to_pylist() if name)
        else:
            self._groups += gone.column(key).to_pylist()

    def rows(self, redaction: Redaction, held: list[Row]) -> Iterator[Row]:
        """Words of the ledger, in order: pictures with what lies on them, tracks, groups."""
        files = {row["image_id"]: file_of(row) for row in self._images}
        seen = Counter((row["kind"], row["item_id"]) for row in held)

        def word(kind: str, item_id: str, reason: str, detail: str, file: str | None = None) -> Row:
            occurrence = seen[kind, item_id]
            seen[kind, item_id] += 1
            row = (kind, item_id, occurrence, file, "rejected", reason, detail)
            return dict(zip(tables.LEDGER.names, row, strict=True))

        for row in self._images:
            name = row["image_id"]
            yield word("image", name, "taken_down", "", files[name])
            for _ in row["captions"] or []:
                yield word("caption", name, "image_rejected", "taken_down", files[name])
        for row in self._objects:
            kind = "whole" if row["kind"] == "whole" else "annotation"
            yield word(kind, row["object_id"], "image_rejected", "taken_down", files.get(row["image_id"]))
        for name in sorted(self._tracks - self._tracks_left):
            self.settled["track"] += 1
            yield word("track", name, "image_rejected", "taken_down")
        for name in self._groups:
            yield word("group", name, "too_few_members", "taken_down")


class _Writer:
    """Writes directories of a unit anew, under names that no file of it has."""

    def __init__(self, dataset: Dataset, manifest: Manifest) -> None:
        self._dataset, self._manifest = dataset, manifest
        state = "\n".join(file.sha256 for file in manifest.files)
        self._name = f"{manifest.unit}-{hashlib.sha256(state.encode()).hexdigest()[:8]}"
        self._done: dict[str, TableWriter | None] = {}

    def rewrite(self, directory: str, redaction: Redaction, lost: _Lost) -> None:
        """A directory without the rows that go."""
        name = directory.split("/")[0]
        schema = tables.TABLES[name].schema
        writer = TableWriter(self._dataset.folder, directory, self._name, schema)
        files = self._manifest.files_of(directory)
        for batch in parquet.batches(self._dataset.folder, files, None, schema):
            left = redaction.taken_down(name, batch)
            lost.see(name, batch, left)
            if left.num_rows:
                writer.add_columns(dict(zip(left.schema.names, left.columns, strict=True)))
        writer.close()
        self._done[directory] = writer

    def write_ledger(self, rows: list[Row]) -> None:
        """The ledger with these rows."""
        directory = f"ledger/{self._manifest.stage}"
        if not rows:
            self._done[directory] = None
            return
        writer = TableWriter(self._dataset.folder, directory, self._name, tables.LEDGER)
        for row in rows:
            writer.add(row | {"detail": row["detail"] or None})
        writer.close()
        self._done[directory] = writer

    def manifest(self) -> Manifest:
        """What names the new files, with the old counts."""
        old = self._manifest
        entries = {name: entry for name, entry in old.tables.items() if name not in self._done}
        entries |= {name: TableEntry(one.rows, one.fingerprint) for name, one in self._done.items() if one is not None}
        files = []
        for name in sorted(entries):
            one = self._done.get(name)
            files += one.files if one is not None else old.files_of(name)
        return replace(old, tables=entries, files=tuple(files))
