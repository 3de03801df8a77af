"""Verify: everything a manifest says is re-read, re-hashed and recounted; rows are checked against each other.

What is checked, per unit: files exist with their size and sha256; rows and fingerprints of every table; schemas; keys
unique; ids across tables; input = kept + rejected + failed, recounted from tables and ledger; boxes in pictures and
close to their masks; masks sound, with the stored area; a sample of pictures decodes, and all have their sha256. Of the
whole: manifests that can be read, nothing of units that ingest no longer holds, no Parquet that no manifest names, and
derived files that say what the manifests say.

A unit whose inputs have changed since is out of date, which is counted; where it contradicts them, that is a problem
until `refloom curate` has done it again.

What is damaged is noted in the dataset, where it can be written to, so that the next run does those units again.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import boxes, labels, masks, parquet, pictures, publication, ranges, roots, samplechecks, tables
from refloom.schemas.dataset import STAGES, Dataset, Place
from refloom.schemas.errors import Failed, RefloomError, Rejected
from refloom.schemas.fields import VERSION
from refloom.schemas.findings import Findings
from refloom.schemas.ids import is_found
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.wholeness import check_whole, note_damage

COUNTED_BY: dict[str, dict[str, tuple[str, str]]] = {
    "ingest": {"image": ("images", "rows"), "caption": ("images", "captions"), "group": ("source_groups", "rows")},
    "measure": {"image": ("image_scores", "rows")},
    "embed": {"object": ("embeddings", "rows")},
    "phrase": {"object": ("phrases", "rows"), "image": ("captions", "rows")},
    "quality": {"object": ("object_scores", "rows")},
    "split": {"image": ("splits", "rows")},
    "match": {"group": ("matches", "rows")},
    "group": {"group": ("groups", "rows")},
    "label": {"object": ("labels", "rows")},
}
"""Stage and item kind to the table, and what of it, whose number is the number of kept items."""


@store_errors_stop()
def verify(dataset: Place, *, decode_per_unit: int = 64, derived: bool = False) -> Findings:
    """Check a whole dataset: re-open, re-hash and recount everything, decode a part; what `refloom verify` does.

        found = refloom.verify("DATASET", decode_per_unit=-1)
        assert found.sound, found.problems

    Args:
        dataset: a folder, an fsspec URL, or a dataset, whose manifests are read anew; or a publication.
        decode_per_unit: pictures to decode in each unit, evenly spaced; -1 for all.
        derived: also what holds once a run has ended: dataset.json and the card say what the manifests say, and nothing
            is left of units that ingest no longer holds, or of writing that was cut off; the command asks for it.

    Returns:
        What is wrong, if anything; nothing is raised for it.

    Raises:
        Refused: it is no dataset.
    """
    ranges.check("decode_per_unit", decode_per_unit, ranges.Whole(-1, remedy="-1 decodes all"))
    if isinstance(dataset, Dataset):
        return _all_checks(dataset, decode_per_unit, derived=derived)
    folder = Folder(absolute_url(dataset))
    if publication.is_publication(folder):
        return publication.verify(folder)
    return _all_checks(Dataset(folder.url, lenient=True), decode_per_unit, derived=derived)


def _all_checks(dataset: Dataset, decode_per_unit: int, *, derived: bool) -> Findings:
    own = dataset.index.get("roots", {})
    dataset = Dataset(dataset.url, lenient=True)
    dataset.index["roots"] = own
    findings = Findings(problems=roots.moved(dataset))
    for stage in STAGES:
        for unit, manifest in dataset.manifests(stage).items():
            before = len(findings.problems)
            _try(f"{stage}/{unit}", findings, lambda: _check_unit(dataset, manifest, findings))  # noqa: B023  called at once
            if len(findings.problems) > before:
                findings.damaged.add((stage, unit))
    for unit in dataset.units():
        for check in (_check_objects, _check_references):
            _try(f"unit {unit}", findings, lambda: check(dataset, unit, findings))  # noqa: B023  called at once
        _try(f"unit {unit}", findings, lambda: _check_pictures(dataset, unit, findings, decode_per_unit))  # noqa: B023
    for name in tables.TABLES:
        _try(name, findings, lambda: _check_keys(dataset, name, findings))  # noqa: B023  called at once
    _try("labels", findings, lambda: _check_labels(dataset, findings))
    for unit in dataset.manifests("compose"):
        _try(f"compose/{unit}", findings, lambda: samplechecks.check(dataset, unit, findings))  # noqa: B023  called at once
    _try("samples", findings, lambda: samplechecks.check_sides(dataset, findings))
    check_whole(dataset, findings, derived=derived)
    note_damage(dataset, findings)
    return findings


def _try(what: str, findings: Findings, check: Callable[[], None]) -> None:
    """Run one check; what cannot be read at all is a finding like any other, and the other checks go on."""
    try:
        check()
    except (OSError, pa.ArrowException, RefloomError, Failed, Rejected) as error:
        findings.problems.append(f"{what}: cannot be read ({type(error).__name__}: {error})")
    except Exception as error:  # values that no stage writes can lead to anything
        findings.problems.append(f"{what}: holds what cannot be checked ({type(error).__name__}: {error})")


def _check_unit(dataset: Dataset, manifest: Manifest, findings: Findings) -> None:
    where = f"{manifest.stage}/{manifest.unit}"
    for file in manifest.files:
        findings.checked["files"] += 1
        try:
            data = dataset.folder.read(file.path)
        except FileNotFoundError:
            findings.problems.append(f"{file.path}: is gone")
            findings.files.add(file.path)
            continue
        if len(data) != file.bytes or hashlib.sha256(data).hexdigest() != file.sha256:
            findings.problems.append(f"{file.path}: the bytes are not those that were committed")
            findings.files.add(file.path)
    for directory, entry in manifest.tables.items():
        name = directory.split("/")[0]
        schema = tables.LEDGER if name == "ledger" else dataset.schema(name)
        files = manifest.files_of(directory)
        rows = 0
        running = parquet.fingerprint_of(schema)
        for batch in parquet.batches(dataset.folder, files):
            rows += batch.num_rows
            running.update(batch)
            if not batch.schema.equals(_as_written(schema, batch.schema)):
                findings.problems.append(f"{where}: {directory} has other columns than version {VERSION}")
                break
        findings.checked["tables"] += 1
        findings.checked["rows"] += rows
        if rows != entry.rows or running.hexdigest() != entry.fingerprint:
            findings.problems.append(
                f"{where}: {directory} holds {rows} rows, not the {entry.rows} that were committed, or other values"
            )
    findings.checked["units out of date"] += dataset.is_stale(manifest)
    _recount(dataset, manifest, findings)


def _is_done(dataset: Dataset, stage: str, unit: str) -> bool:
    """Whether a stage has been done for a unit, be it out of date since: what it says is checked all the same."""
    return dataset.manifest(stage, unit) is not None


def _as_written(schema: pa.Schema, stored: pa.Schema) -> pa.Schema:
    """A table's schema without the columns, and fields of columns, that came into it since and read as null."""
    return pa.schema(
        [
            parquet.as_stored(field, stored.field(field.name)) if field.name in stored.names else field
            for field in schema
            if field.name in stored.names or not field.nullable
        ]
    )


def _recount(dataset: Dataset, manifest: Manifest, findings: Findings) -> None:
    ledger = dataset.ledger(manifest.stage, unit=manifest.unit).to_pylist()
    found = {kind: (Counter[str](), Counter[str]()) for kind in manifest.items}
    seen: set[tuple[str, str, int]] = set()
    for row in ledger:
        found.setdefault(row["kind"], (Counter(), Counter()))[row["verdict"] == "failed"][row["reason"]] += 1
        seen.add((row["kind"], row["item_id"], row["occurrence"]))
    for kind, counts in manifest.items.items():
        findings.checked["item kinds"] += 1
        where = f"{manifest.stage}/{manifest.unit}: {kind} items"
        if not counts.balanced:
            findings.problems.append(f"{where} do not add up: {counts.to_json()}")
        if manifest.stage not in ("select", "balance") and (counts.rejected, counts.failed) != found[kind]:
            findings.problems.append(f"{where}: the ledger says otherwise than the manifest")
        kept = kept_items(dataset, manifest, kind)
        if kept is not None and kept != counts.kept:
            findings.problems.append(f"{where}: {counts.kept} kept, but the tables hold {kept}")


def kept_items(dataset: Dataset, manifest: Manifest, kind: str) -> int | None:
    """Kept items of a kind as the tables have them; None where a kind has no rows of its own (videos, tars)."""

    def column(table: str, name: str) -> list[Any]:
        values: list[Any] = dataset.read(table, [name], unit=unit)[name].to_pylist()
        return values

    stage, unit = manifest.stage, manifest.unit
    if stage == "ingest" and kind in ("annotation", "whole"):
        return sum(1 for value in column("objects", "kind") if (value == "whole") == (kind == "whole"))
    if stage == "select":
        return column("selection", "verdict").count("keep")
    if stage == "balance":
        judged = zip(column("choices", "sample_id"), column("choices", "verdict"), strict=True)
        return sum(1 for name, verdict in judged if verdict == "keep" and name.startswith(f"{kind}/"))
    if stage == "compose":
        return column("samples", "kind").count(kind)
    if stage == "face":
        return len(set(column("faces", "image_id")))
    if stage == "dedup":  # says of every picture and object whether it is a copy, and keeps them all
        return len(column(f"{kind}s", f"{kind}_id"))
    if stage == "mask":
        found = [is_found(object_id) for object_id in column("masks", "object_id")]
        images = column("masks", "image_id")
        return found.count(False) if kind == "object" else len({i for i, new in zip(images, found, strict=True) if new})
    if kind not in COUNTED_BY.get(stage, {}):
        return None
    table, what = COUNTED_BY[stage][kind]
    if what == "rows":
        return sum(entry.rows for directory, entry in manifest.tables.items() if directory.split("/")[0] == table)
    return sum(len(value or []) for value in column(table, what))


def _check_pictures(dataset: Dataset, unit: str, findings: Findings, decode_per_unit: int) -> None:
    manifest = dataset.manifests("ingest")[unit]
    total = manifest.tables["images"].rows
    every = 1 if decode_per_unit < 0 else max(1, total // decode_per_unit) if decode_per_unit else total + 1
    decodes = (
        set(dataset.read("image_scores", ["image_id"], unit=unit)["image_id"].to_pylist())
        if _is_done(dataset, "measure", unit)
        else None
    )
    position = 0
    for batch in dataset.batches("images", unit=unit):
        for row in batch.to_pylist():
            findings.checked["pictures hashed"] += 1
            try:
                data = dataset.picture(row)
            except Failed as problem:
                place = roots.place(dataset, row["link"]["root"]) if row["link"] else None
                findings.problems.append(f"{row['image_id']}: {problem}{f' ({place})' if place else ''}")
                continue
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                findings.problems.append(f"{row['image_id']}: the bytes are not those that were ingested")
            elif position % every == 0 and (decodes is None or row["image_id"] in decodes):
                _check_decode(row, data, findings, must=decodes is not None)
            position += 1


def _check_decode(row: dict[str, Any], data: bytes, findings: Findings, *, must: bool) -> None:
    """Pictures that `measure` saw must decode; before `measure` a picture that does not is no defect of the dataset."""
    findings.checked["pictures decoded"] += 1
    try:
        pixels = pictures.decode(data)
    except Rejected as problem:
        if must:
            findings.problems.append(f"{row['image_id']}: does not decode ({problem})")
        return
    if pixels.shape[:2] != (row["height"], row["width"]):
        findings.problems.append(
            f"{row['image_id']}: decodes to {pixels.shape[1]}x{pixels.shape[0]}, not {row['width']}x{row['height']}"
        )


def _check_objects(dataset: Dataset, unit: str, findings: Findings) -> None:
    """Boxes inside pictures, masks sound and close to their boxes and areas; for `objects` and `masks`."""
    sizes = {
        row["image_id"]: (row["height"], row["width"])
        for row in dataset.read("images", ["image_id", "width", "height"], unit=unit).to_pylist()
    }
    for table in ("objects", "masks"):
        if not _is_done(dataset, tables.TABLES[table].stage, unit):
            continue
        for batch in dataset.batches(table, ["object_id", "image_id", "box", "area", "mask"], unit=unit):
            rows = batch.to_pylist()
            findings.checked[f"{table} against pictures"] += len(rows)
            for row in rows:
                if row["image_id"] not in sizes:
                    findings.problems.append(f"{row['object_id']}: its picture {row['image_id']} is not in images")
            _check_boxes([row for row in rows if row["image_id"] in sizes], sizes, findings)


def _check_boxes(rows: list[dict[str, Any]], sizes: dict[str, tuple[int, int]], findings: Findings) -> None:
    for row in rows:
        height, width = sizes[row["image_id"]]
        x0, y0, x1, y1 = row["box"]
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            findings.problems.append(f"{row['object_id']}: its box {row['box']} leaves the picture of {width}x{height}")
    masked = [row for row in rows if row["mask"] is not None]
    if not masked:
        return
    findings.checked["masks against boxes"] += len(masked)
    problems = masks.check([row["mask"] for row in masked])
    sound = []
    for row, problem in zip(masked, problems, strict=True):
        if problem is not None or tuple(row["mask"]["size"]) != sizes[row["image_id"]]:
            findings.problems.append(
                f"{row['object_id']}: its mask is damaged ({problem or 'of another size than the picture'})"
            )
        else:
            sound.append(row)
    areas, tight = masks.areas([row["mask"] for row in sound]), masks.tight_boxes([row["mask"] for row in sound])
    fits = boxes.agree(np.array([row["box"] for row in sound], np.float32).reshape(-1, 4), tight)
    for row, area, fit in zip(sound, areas.tolist(), fits.tolist(), strict=True):
        if not fit:
            findings.problems.append(f"{row['object_id']}: its box does not fit its mask")
        if row["area"] != area:
            findings.problems.append(f"{row['object_id']}: area {row['area']} but the mask has {area} pixels")


_REFERENCES = (
    ("image_scores", "image_id", "images"),
    ("faces", "image_id", "images"),
    ("faces", "object_id", "objects"),
    ("embeddings", "object_id", "objects"),
    ("masks", "image_id", "images"),
    ("phrases", "object_id", "objects"),
    ("captions", "image_id", "images"),
    ("object_scores", "object_id", "objects"),
    ("selection", "object_id", "objects"),
    ("splits", "image_id", "images"),
)


def _check_references(dataset: Dataset, unit: str, findings: Findings) -> None:
    for table, column, target in _REFERENCES:
        if not _is_done(dataset, tables.TABLES[table].stage, unit):
            continue
        values = pc.drop_null(dataset.read(table, [column], unit=unit)[column])
        known = dataset.read(target, [tables.TABLES[target].key], unit=unit)[tables.TABLES[target].key]
        if target == "objects":  # those that the mask stage found on bare pictures are objects too
            known = pa.chunked_array(
                [*known.chunks, *dataset.read("masks", ["object_id"], unit=unit)["object_id"].chunks]
            )
        findings.checked["references"] += len(values)
        for value in pc.filter(values, pc.invert(pc.is_in(values, known))).to_pylist():
            findings.problems.append(f"{table}: {column} {value} is not in {target}")


def _check_keys(dataset: Dataset, name: str, findings: Findings) -> None:
    key = tables.TABLES[name].key
    stage = tables.TABLES[name].stage
    parts = [
        dataset.read(name, [key], unit=unit) for unit in dataset.manifests(stage) if _is_done(dataset, stage, unit)
    ]
    counts = pc.value_counts(pa.concat_tables(parts or [dataset.read(name, [key]).slice(0, 0)])[key])
    findings.checked["keys"] += len(counts)
    for entry in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist():
        findings.problems.append(f"{name}: {key} {entry['values']} stands {entry['counts']} times")


def _check_labels(dataset: Dataset, findings: Findings) -> None:
    """Labels say what can be said. Their objects need not be there: a picture may be taken in again."""
    for row in dataset.read("labels").to_pylist():
        findings.checked["labels"] += 1
        try:
            labels.of_row(row)
        except ValueError as error:
            findings.problems.append(f"labels: {row['object_id']}: {error}")
