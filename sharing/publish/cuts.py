"""One unit of one stage without some pictures: its rows, its ledger, its counts; in its place, or in another dataset.

A picture that goes is a word of the ledger of ingest, and its annotations and captions follow it there; later stages
never had it: what they counted for it is counted no more.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import parquet, tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.manifest import Counts, Manifest, TableEntry
from refloom.schemas.parquet import File, Look, TableWriter
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import file_of
from refloom.schemas.verify import kept_items
from refloom.sharing.publish.redaction import ID_COLUMNS, Redaction

_KIND = re.compile(r"^(track|identity|look|folder)/")
_WITH_PICTURES = ("images", "faces", "samples")
_TOLD = {"images": ("captions", "link.root", "link.file", "link.offset", "link.length", "image.path")}
"""Columns of rows that go which the ledger tells of; the bytes of pictures are not among them."""
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


Route = Callable[[str, pa.RecordBatch], Iterable[tuple[str, pa.RecordBatch]]]
"""Where rows of a directory go, and as what; most stay as they are."""


def stay(directory: str, rows: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows stay in their directory."""
    yield directory, rows


def cut_unit(dataset: Dataset, manifest: Manifest, cut: Cut, redaction: Redaction) -> int:
    """Write a unit anew without what goes, and remove its old files.

    Returns:
        How many pictures went whose bytes lie in their source.
    """
    state = "\n".join(file.sha256 for file in manifest.files)
    stem = f"{manifest.unit}-{hashlib.sha256(state.encode()).hexdigest()[:8]}"  # a name that no file of it has
    rewriting = Rewriting(dataset, manifest, dataset.folder, stem)
    rewriting.rewrite(cut, redaction)
    rewriting.keep_others()
    new = rewriting.counted(dataset, rewriting.manifest(), redaction)
    dataset.folder.write(Manifest.path(new.stage, new.unit), new.to_json())
    kept = {file.path for file in new.files}
    for file in manifest.files:
        if file.path not in kept:
            dataset.folder.remove(file.path)
    dataset.refresh()
    return rewriting.lost.linked


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
            reason = redaction.reason(name)
            yield word("image", name, reason, "", files[name])
            for _ in row["captions"] or []:
                yield word("caption", name, "image_rejected", reason, files[name])
        for row in self._objects:
            kind, reason = "whole" if row["kind"] == "whole" else "annotation", redaction.reason(row["image_id"])
            yield word(kind, row["object_id"], "image_rejected", reason, files.get(row["image_id"]))
        for name in sorted(self._tracks - self._tracks_left):
            self.settled["track"] += 1
            yield word("track", name, "image_rejected", redaction.word)
        for name in self._groups:
            yield word("group", name, "too_few_members", redaction.word)


class Rewriting:
    """A unit that is written anew, directory by directory.

    Attributes:
        lost: what ingest loses.
    """

    def __init__(self, dataset: Dataset, manifest: Manifest, folder: Folder, stem: str) -> None:
        """Nothing is written yet.

        Args:
            dataset, manifest: the unit.
            folder: of the dataset that it goes into.
            stem: of the names of its new files.
        """
        self._dataset, self._manifest, self._folder, self._stem = dataset, manifest, folder, stem
        self._writers: dict[str, TableWriter] = {}
        self._others: dict[str, tuple[TableEntry, list[File]]] = {}
        self._ledger: list[Row] | None = None
        self.lost = _Lost()

    def rewrite(self, cut: Cut, redaction: Redaction, route: Route = stay) -> None:
        """The directories that change, and the ledger."""
        for directory in cut.directories:
            self._rewrite(directory, redaction, route)
        stage = self._manifest.stage
        rows = _ledger(self._dataset, self._manifest)
        if stage == "ingest":
            rows += list(self.lost.rows(redaction, rows))
        else:
            rows = [row for row in rows if not is_about(row, redaction)]
        self._ledger = rows
        if rows:
            writer = self._writer(f"ledger/{stage}", tables.LEDGER)
            for row in rows:
                writer.add(row | {"detail": row["detail"] or None})
        for writer in self._writers.values():
            writer.close()

    def _rewrite(self, directory: str, redaction: Redaction, route: Route) -> None:
        """A directory without the rows that go; row groups that go whole are not read but for what is told of them."""
        name = directory.split("/")[0]
        schema = self._dataset.schema(name, self._manifest.unit)
        self._writer(directory, schema)

        def wants(rows: pa.Table) -> bool:
            every = rows.combine_chunks().to_batches()
            stays = [not pc.all(redaction.hits(name, batch)[0]).as_py() for batch in every]
            if not any(stays):
                for batch in every:
                    self.lost.see(name, batch, batch.slice(0, 0))
                    redaction.counts[f"{name} dropped"] += batch.num_rows
            return any(stays)

        looked = list(dict.fromkeys([*ID_COLUMNS.get(name, ["image_id"]), *_TOLD.get(name, ())]))
        look = Look(looked, wants) if name in _WITH_PICTURES else None
        files = self._manifest.files_of(directory)
        for batch in parquet.batches(self._dataset.folder, files, None, schema, look):
            left = redaction.taken_down(name, batch)
            self.lost.see(name, batch, left)
            for place, rows in route(directory, left):
                if rows.num_rows:
                    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
                    self._writer(place, schema).add_columns(columns)

    def _writer(self, directory: str, schema: pa.Schema) -> TableWriter:
        if directory not in self._writers:
            self._writers[directory] = TableWriter(self._folder, directory, self._stem, schema)
        return self._writers[directory]

    def keep_others(self) -> None:
        """Directories that were not rewritten stay, with their files as they are."""
        for directory, entry in self._left():
            self._others[directory] = entry, self._manifest.files_of(directory)

    def copy_others(self) -> None:
        """Directories that were not rewritten are copied, file by file.

        Raises:
            DamagedFile: a file is gone, or not what its manifest says.
        """
        for directory, entry in self._left():
            files = []
            for number, file in enumerate(self._manifest.files_of(directory)):
                path = f"{directory}/unit-{self._stem}-{number:03d}.parquet"
                self._dataset.folder.send(file.path, self._folder, path, file.sha256)
                files.append(replace(file, path=path))
            self._others[directory] = entry, files

    def _left(self) -> Iterator[tuple[str, TableEntry]]:
        ledger = f"ledger/{self._manifest.stage}"
        for directory, entry in self._manifest.tables.items():
            if directory not in self._writers and not (directory == ledger and self._ledger is not None):
                yield directory, entry

    def manifest(self) -> Manifest:
        """What names the new files, with the old counts. A directory of samples without rows is none."""
        written = {
            name: (TableEntry(one.rows, one.fingerprint), one.files)
            for name, one in self._writers.items()
            if one.rows or not name.startswith(("samples/", "ledger/"))
        }
        every = dict(sorted((self._others | written).items()))
        entries = {name: entry for name, (entry, _) in every.items()}
        files = tuple(file for _, own in every.values() for file in own)
        return replace(self._manifest, tables=entries, files=files)

    def counted(self, target: Dataset, new: Manifest, redaction: Redaction) -> Manifest:
        """A manifest with its items counted as they are now.

        Args:
            target: the dataset that it goes into, where what it was made from is committed.
            new: of `manifest`.
            redaction: that was applied.
        """
        items = {kind: Counts.from_json(counts.to_json()) for kind, counts in self._manifest.items.items()}
        if self._ledger is not None:
            for counts in items.values():
                counts.rejected, counts.failed = Counter(), Counter()
            for row in self._ledger:
                counts = items[row["kind"]]
                (counts.failed if row["verdict"] == "failed" else counts.rejected)[row["reason"]] += 1
        target.foresee(new)  # so that the tables are counted as they are now
        _count(target, new, items, self.lost)
        return replace(new, items=items)
