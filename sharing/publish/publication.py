"""Publishing a dataset: what may go is decided first, then rows are read once, cut into files and written.

The bytes of a publication are a function of the rows of the dataset and the settings: units, workers and interruptions
leave no trace in them.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from refloom.ingest.engine.pool import Status
from refloom.schemas import copies
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.fingerprint import of_json
from refloom.schemas.lease import Lease
from refloom.schemas.metadata import stripping
from refloom.schemas.publication import is_sound
from refloom.schemas.storage import absolute_url
from refloom.schemas.takedownlist import refuse_listed
from refloom.sharing.publish import redistribution
from refloom.sharing.publish import takedown as takedowns
from refloom.sharing.publish.addresses import ADDRESSES, Places
from refloom.sharing.publish.assembly import Show, assemble, silent
from refloom.sharing.publish.cardfacts import check_ready, facts, survey
from refloom.sharing.publish.imagebytes import Digests, MetadataCounts, StoredPictures, records
from refloom.sharing.publish.options import PICTURES, Publish, picture_column
from refloom.sharing.publish.redaction import Redaction
from refloom.sharing.publish.rows import Files, Origin, listed, spill_schema
from refloom.sharing.publish.spill import SpillWriter, load_json, save_json
from refloom.sharing.publish.staging import PRIVATE, Workbench
from refloom.sharing.publish.takedown import Takedown

_READY = "ready.json"


@dataclass(slots=True)
class PublicationPlan:
    """What a publication would hold.

    Attributes:
        files: `<table>/<split>` to (files, bytes), about.
        spill_bytes: about the disk that is needed while it is made, beyond the files.
        takedown: what the takedown list reached.
        pictures: distinct pictures in it.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    spill_bytes: int = 0
    takedown: Takedown = field(default_factory=Takedown)
    pictures: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        manifest: the content of MANIFEST.json.
        takedown: what the takedown list reached.
        was_there: it was complete before.
    """

    manifest: dict[str, Any]
    takedown: Takedown
    was_there: bool

    @property
    def unknown(self) -> tuple[str, ...]:
        """Entries of the takedown list that the dataset does not hold."""
        return self.takedown.unknown


def look_ahead(dataset: Dataset, options: Publish) -> PublicationPlan:
    """What `publish` would do; nothing is written.

    Raises:
        Refused: as `publish` does.
    """
    ready = _prepare(dataset, options)
    plan = PublicationPlan(takedown=ready.takedown, pictures=sum(ready.pictures.values()))
    for one in ready.files:
        size = one.bytes if options.images else sum(_without_pictures(dataset, one))
        plan.files[f"{one.table}/{one.split}"] = (-(-size // options.shard_bytes), size)
        plan.spill_bytes += 2 * sum(_without_pictures(dataset, one))
    return plan


def _without_pictures(dataset: Dataset, files: Files) -> list[int]:
    sizes = []
    for file in files.files:
        with dataset.opened(files.table, file.path) as reader:
            metadata = reader.metadata
        groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
        columns = (group.column(index) for group in groups for index in range(group.num_columns))
        sizes.append(sum(one.total_compressed_size for one in columns if not _is_bytes(one.path_in_schema)))
    return sizes


def _is_bytes(path: str) -> bool:
    return path.endswith(".bytes")


@dataclass(frozen=True, slots=True)
class _Ready:
    files: list[Files]
    takedown: Takedown
    facts: dict[str, Any]
    pictures: Counter[redistribution.Licensed]


def _prepare(dataset: Dataset, options: Publish) -> _Ready:
    """Everything that can be refused is refused here."""
    own = refuse_listed(dataset)
    files = listed(dataset, options.tables)
    check_ready(dataset, files)
    taken = takedowns.resolve(dataset, options.takedown, own)
    takedowns.refuse_unknown(dataset.url, taken, ignore=options.ignore_unknown)
    found = survey(dataset, files, Redaction(options, taken))
    if options.images:
        redistribution.check(found.pictures, options.accept_licenses)
    asked = [one for one in files if picture_column(one.table)]
    if asked and not sum(found.rows.values()):
        raise Refused("nothing is left to publish: check --only-sources and the takedown list")
    return _Ready(files, taken, facts(dataset, found, options), found.pictures)


def publish(
    dataset: Dataset, dest: str, options: Publish | None = None, *, replace: bool = False, show: Show = silent
) -> Published:
    """Publish a dataset into a folder; resumes where an earlier call was stopped.

    Args:
        dataset: curated, up to date.
        dest: new or empty local folder, or one of a publication of the same state.
        options: settings.
        replace: throw away a publication of another state that lies in `dest`.
        show: makes the progress display of a phase.

    Returns:
        The publication's MANIFEST.json, and what of the takedown list is not in the dataset.

    Raises:
        Refused: the dataset is stale or half done, licenses forbid it, or `dest` is somebody else's.
        JobStopped: no space left, or a linked picture has changed.
    """
    options = options or Publish()
    ready = _prepare(dataset, options)
    bench = Workbench(dest, _identity(dataset, options), replace=replace)
    copies.note(dataset.folder, "publication", absolute_url(dest), options=options.to_json())
    with Lease(bench.folder.below(PRIVATE)):
        manifest, there = bench.complete, True
        if manifest is None or not is_sound(manifest):
            manifest, there = _assembled(dataset, options, ready, bench, show), False
    bench.take_place()
    return Published(manifest, ready.takedown, there)


def _assembled(dataset: Dataset, options: Publish, ready: _Ready, bench: Workbench, show: Show) -> dict[str, Any]:
    """The MANIFEST.json of what is made, in two passes."""
    parts = [(one.table, one.split) for one in ready.files]
    if not options.images:
        parts.append((PICTURES, "train"))
    counts, metadata, places = _spilled(dataset, options, ready, bench, show)
    provider = StoredPictures(places) if options.images else None
    facts_of = ready.facts | {
        "left_out": _left_out(ready.takedown, counts),
        "metadata": {"kept": options.keep_metadata, **metadata},
    }
    try:
        return assemble(bench, parts, options.to_json(), facts_of, provider, show)
    finally:
        places.close()


def _identity(dataset: Dataset, options: Publish) -> dict[str, Any]:
    """What the publication is made of; the takedown's ids count by their hash, so that they stand nowhere."""
    fingerprints = {name: entry["fingerprint"] for name, entry in dataset.table_summary().items()}
    return {
        "dataset": of_json(fingerprints),
        "takedown": of_json(sorted(set(options.takedown))),
        **({} if options.keep_metadata else {"stripping": stripping.VERSION}),
        **{f"options.{name}": value for name, value in options.to_json().items()},
    }


def _left_out(taken: Takedown, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "takedown": {"ids": taken.ids, "pictures": len(taken.images)} if taken.ids else None,
        "rows": {name: number for name, number in sorted(counts.items()) if number},
    }


def _spilled(
    dataset: Dataset, options: Publish, ready: _Ready, bench: Workbench, show: Show
) -> tuple[dict[str, int], dict[str, int], Places]:
    """The first pass: rows and addresses into spills; what an earlier call has finished is taken as it is."""
    stored = load_json(bench.spill / _READY)
    if stored is not None:
        return stored["counts"], stored["metadata"], Places.from_json(stored["places"])
    bench.spill.mkdir(parents=True, exist_ok=True)
    status = Status(units=len(ready.files), weight=sum(one.bytes for one in ready.files))
    report = show("read")

    def on_bytes(count: int) -> None:
        status.tally["bytes"] += count
        status.tally["begun"] = status.weight_done = status.weight_done + count
        report(status)

    places, redaction = Places(), Redaction(options, ready.takedown)
    strips, metadata = not options.keep_metadata, MetadataCounts()
    origin = Origin(dataset, places, hashes=not options.images, strips=strips, on_bytes=on_bytes)
    digests = Digests.of(dataset) if not options.images else None
    pictures = SpillWriter(bench.spill, PICTURES, "train") if digests is not None else None
    for one in ready.files:
        writer = SpillWriter(bench.spill, one.table, one.split)
        for batch in origin.batches(one):
            kept = redaction.apply(one.table, batch)
            if pictures is not None and digests is not None:
                pictures.add(_picture_rows(records(one.table, kept, digests)))
            metadata.add(one.table, kept)
            writer.add(kept)
        writer.close()
        status.done += 1
        report(status)
    if pictures is not None:
        pictures.close()
    counts, of_metadata = dict(redaction.counts), metadata.to_json()
    save_json(bench.spill / _READY, {"counts": counts, "metadata": of_metadata, "places": places.to_json()})
    return counts, of_metadata, places


def _picture_rows(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    schema = spill_schema(PICTURES)
    columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name in schema.names[:-1]]
    return pa.RecordBatch.from_arrays([*columns, pa.nulls(len(rows), ADDRESSES)], schema=schema)


def check_disk(dest: str, needed: int) -> int:
    """Free bytes where a publication would lie.

    Raises:
        JobStopped: less than `needed`.
    """
    place = Path(dest).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise JobStopped(f"{dest} needs about {needed / 1e9:,.2f} GB and has {free / 1e9:,.2f} GB free")
    return free
