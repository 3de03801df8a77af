"""One look over the scalar columns of a dataset: what its report counts, and the rows its contact sheets choose from.

Memory and time are bounded: a unit is read at a time, of every score a sample of rows is kept, and pictures are shown
from a few files only, so that a handful of thumbnails never costs a read of the whole dataset.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from refloom.curation.objects import box_array, float_array, read_objects
from refloom.schemas import labels, parquet, tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.labels import Label
from refloom.schemas.parquet import File
from refloom.viewing.report.content import Content
from refloom.viewing.report.sampling import LowestHashes
from refloom.viewing.report.scores import CANDIDATES, Tally, families

_SHOWN_BYTES = 2 << 30
"""Of the picture files that the sheets show pictures of."""
_SHOWN_KEYS = 32

KEPT = ""
"""In the column `reason` of objects: kept. Null is undecided."""

Floats = npt.NDArray[np.float64]
IsShown = Callable[[pa.ChunkedArray], npt.NDArray[np.bool_]]


@dataclass(slots=True)
class Survey:
    """What was seen.

    Attributes:
        tallies: family name to its rows.
        sources: source to its pictures; videos: source to its videos.
        licenses: (source, license or None) to its pictures.
        blurred: pictures of sources that blur faces.
        located: pictures whose files say where they were taken; unlooked: those of which that is not known.
        kinds: kind to the objects of the source; found: objects that a segmenter found.
        copies: (kind, by) to its duplicates.
        objects: candidates among all objects, scored or not; None without any.
        pictures: candidates among the pictures; None without any.
        duplicates: candidates among the copies that go; None without any.
        content: what the dataset is made of.
        judged: objects that people judged, with `label`, `flags` and `is_shown`; None without any.
        absent_labels: labels of objects that are not in the dataset.
    """

    tallies: dict[str, Tally]
    sources: Counter[str] = field(default_factory=Counter)
    videos: Counter[str] = field(default_factory=Counter)
    licenses: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    blurred: int = 0
    located: int = 0
    unlooked: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    found: int = 0
    copies: Counter[tuple[str, str]] = field(default_factory=Counter)
    objects: pa.Table | None = None
    pictures: pa.Table | None = None
    duplicates: pa.Table | None = None
    content: Content = field(default_factory=Content)
    judged: pa.Table | None = None
    absent_labels: int = 0


def survey(dataset: Dataset) -> Survey:
    """Look over a dataset in any state, unit by unit."""
    here = families(dataset)
    found = Survey({name: Tally(family) for name, family in here.items()})
    shown = shown_files(dataset)
    objects, pictures, duplicates, judged = (LowestHashes(CANDIDATES) for _ in range(4))
    said = labels.read(dataset)
    known = 0
    for unit in dataset.units():
        is_shown = _shown_pictures(dataset, unit, shown.get(unit, []))
        images = _count_pictures(dataset, unit, found)
        pictures.add(images.filter(pa.array(is_shown(images["image_id"]))))
        copies = _duplicate_rows(dataset, unit, found)
        duplicates.add(copies.filter(pa.array(is_shown(copies["image_id"]))))
        rows = _object_rows(dataset, unit, here["objects"].columns)
        found.found += len(rows) - _count_kinds(dataset, unit, found)
        visible = is_shown(rows["image_id"])
        objects.add(rows.filter(pa.array(visible)))
        found.content.add_objects(rows, KEPT)
        found.content.add_samples(dataset, unit)
        if said:
            mine = _judged_rows(rows, visible, said)
            known += len(mine)
            judged.add(mine)
        is_object = np.array(pc.equal(rows["kind"], "object"), bool)
        is_scored = np.array(rows["is_scored"], bool)
        for name, mine in (("objects", is_object), ("wholes", ~is_object)):
            chosen = mine & is_scored
            found.tallies[name].add(rows.filter(pa.array(chosen)), visible[chosen])
        for name, read in _READERS.items():
            rows = read(dataset, unit, here[name].columns)
            # a sample holds its own pictures, so it may be shown wherever they come from
            visible = is_shown(rows["image_id"]) if "image_id" in rows.schema.names else np.ones(len(rows), bool)
            found.tallies[name].add(rows, visible)
    found.objects, found.pictures, found.duplicates = objects.rows(), pictures.rows(), duplicates.rows()
    found.judged, found.absent_labels = judged.rows(), len(said) - known
    return found


def _judged_rows(rows: pa.Table, visible: npt.NDArray[np.bool_], said: dict[str, Label]) -> pa.Table:
    """Those of some objects that people judged, with what they said."""
    is_judged = pc.is_in(rows["id"], value_set=pa.array(list(said), pa.string()))
    mine = rows.append_column("is_shown", pa.array(visible)).filter(is_judged)
    own = [said[name] for name in mine["id"].to_pylist()]
    scores = pa.array([float(label.score) for label in own], pa.float64())
    flags = pa.array([list(label.flags) for label in own], pa.list_(pa.string()))
    return mine.append_column("label", scores).append_column("flags", flags)


def shown_files(dataset: Dataset) -> dict[str, list[File]]:
    """Unit to the files of `images` whose pictures the sheets may show: every ingest key has its turn, up to a size."""
    turns: dict[str, list[tuple[bytes, str, File]]] = defaultdict(list)
    for unit, manifest in dataset.manifests("ingest").items():
        for file in manifest.files_of("images"):
            turns[manifest.key].append((hashlib.sha256(file.path.encode()).digest(), unit, file))
    queue = sorted(
        (turn, mark, unit, file.path, file)
        for entries in turns.values()
        for turn, (mark, unit, file) in enumerate(sorted(entries, key=lambda entry: entry[:2]))
    )
    chosen: dict[str, list[File]] = defaultdict(list)
    size = 0
    for place, (turn, _, unit, _, file) in enumerate(queue):
        if size + file.bytes > _SHOWN_BYTES and not (turn == 0 and place < _SHOWN_KEYS):
            break
        size += file.bytes
        chosen[unit].append(file)
    return dict(chosen)


def _shown_pictures(dataset: Dataset, unit: str, files: list[File]) -> IsShown:
    """Says which image ids of a unit lie in some of its files."""
    manifest = dataset.manifest("ingest", unit)
    if not files:
        return lambda ids: np.zeros(len(ids), bool)
    if manifest is not None and len(files) == len(manifest.files_of("images")):
        return lambda ids: np.ones(len(ids), bool)
    rows = parquet.read(dataset.folder, files, tables.TABLES["images"].schema, ["image_id"])
    known = rows["image_id"].combine_chunks()
    return lambda ids: np.array(pc.is_in(ids, value_set=known), bool)


def _count_pictures(dataset: Dataset, unit: str, found: Survey) -> pa.Table:
    """Count sources and licenses of a unit; returns its pictures as candidates."""
    columns = ["image_id", "source", "license", "video_id", "faces_blurred", "located"]
    rows = dataset.read("images", columns, unit=unit)
    for row in rows.group_by(["source", "license"]).aggregate([([], "count_all")]).to_pylist():
        found.sources[row["source"]] += row["count_all"]
        found.licenses[row["source"], row["license"]] += row["count_all"]
    videos = rows.filter(rows["video_id"].is_valid()).group_by("source").aggregate([("video_id", "count_distinct")])
    for row in videos.to_pylist():
        found.videos[row["source"]] += row["video_id_count_distinct"]
    found.blurred += pc.sum(rows["faces_blurred"]).as_py() or 0
    found.located += pc.sum(rows["located"]).as_py() or 0
    found.unlooked += rows["located"].null_count
    return _table(unit, rows["image_id"], {}, {name: rows[name] for name in ("image_id", "video_id")})


def _object_rows(dataset: Dataset, unit: str, names: tuple[str, ...]) -> pa.Table:
    """Objects of a unit with scores and verdict, in one table."""
    columns = ["object_id", "image_id", "track_id", "kind", "category", "phrase"]
    objects = read_objects(dataset, unit, columns)
    scores = dataset.read("object_scores", ["object_id", "filtered", *names], unit=unit)
    selection = dataset.read("selection", unit=unit)
    scored = pc.index_in(objects["object_id"], value_set=scores["object_id"].combine_chunks())
    judged = selection.take(pc.index_in(objects["object_id"], value_set=selection["object_id"].combine_chunks()))
    found = scores.take(scored)
    is_kept = pc.fill_null(pc.equal(judged["verdict"], "keep"), False)
    reason = pc.if_else(is_kept, KEPT, judged["reason"])
    floats = {name: float_array(found[name]) for name in names}
    more = {name: objects[name] for name in columns[1:]}
    more |= {"filtered": found["filtered"], "reason": reason, "is_scored": scored.is_valid()}
    return _table(unit, objects["object_id"], floats, more)


def _count_kinds(dataset: Dataset, unit: str, found: Survey) -> int:
    """Count the objects of a unit's source by kind; returns how many they are."""
    kinds = dataset.read("objects", ["kind"], unit=unit)["kind"]
    for row in kinds.value_counts().to_pylist():
        found.kinds[row["values"]] += row["counts"]
    return len(kinds)


def _duplicate_rows(dataset: Dataset, unit: str, found: Survey) -> pa.Table:
    """Copies of a unit that go; they are counted on the way."""
    rows = dataset.read("duplicates", unit=unit)
    for row in rows.group_by(["kind", "by"]).aggregate([([], "count_all")]).to_pylist():
        found.copies[row["kind"], row["by"]] += row["count_all"]
    first = pa.chunked_array([[image_of(name) for name in rows["id"].to_pylist()]], pa.string())
    more = {name: rows[name] for name in ("kind", "of", "by")} | {"image_id": first}
    return _table(unit, rows["id"], {"similarity": float_array(rows["similarity"])}, more)


def _size_rows(dataset: Dataset, unit: str, columns: tuple[str, ...]) -> pa.Table:
    rows = dataset.read("images", ["image_id", "width", "height"], unit=unit)
    width, height = float_array(rows["width"]), float_array(rows["height"])
    floats = {"shorter_px": np.minimum(width, height), "longer_px": np.maximum(width, height)}
    floats |= {"width_over_height": width / np.maximum(height, 1)}
    return _table(unit, rows["image_id"], floats, {"image_id": rows["image_id"]})


def _picture_rows(dataset: Dataset, unit: str, columns: tuple[str, ...]) -> pa.Table:
    rows = dataset.read("image_scores", ["image_id", *columns], unit=unit)
    floats = {name: float_array(rows[name]) for name in columns}
    return _table(unit, rows["image_id"], floats, {"image_id": rows["image_id"]})


def _face_rows(dataset: Dataset, unit: str, columns: tuple[str, ...]) -> pa.Table:
    rows = dataset.read("faces", ["face_id", "image_id", "object_id", "box", "det_score", "sharpness"], unit=unit)
    boxes = box_array(rows["box"])
    floats = {name: float_array(rows[name]) for name in ("det_score", "sharpness")}
    floats["side_px"] = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]).astype(np.float64)
    return _table(unit, rows["face_id"], floats, {name: rows[name] for name in ("image_id", "object_id")})


def _phrase_rows(dataset: Dataset, unit: str, columns: tuple[str, ...]) -> pa.Table:
    rows = dataset.read("phrases", ["object_id", "origin", *columns], unit=unit)
    return _table(
        unit, rows["object_id"], {name: float_array(rows[name]) for name in columns}, {"origin": rows["origin"]}
    )


def _group_rows(dataset: Dataset, unit: str, columns: tuple[str, ...]) -> pa.Table:
    rows = dataset.read("groups", unit=unit)
    floats = {name: float_array(rows[name]) for name in columns if name != "members"}
    floats["members"] = float_array(pc.list_value_length(rows["members"]))
    first = [image_of(members[0]) if members else "" for members in rows["members"].to_pylist()]
    return _table(
        unit, rows["group_id"], floats, {"kind": rows["kind"], "image_id": pa.chunked_array([first], pa.string())}
    )


def _sample_rows(dataset: Dataset, unit: str, columns: tuple[str, ...]) -> pa.Table:
    rows = dataset.read("samples", ["sample_id", "kind", "scores"], unit=unit)
    scores = rows["scores"].combine_chunks()
    floats = {name: float_array(pc.struct_field(scores, name)) for name in columns}
    return _table(unit, rows["sample_id"], floats, {"kind": rows["kind"]})


_READERS: dict[str, Callable[[Dataset, str, tuple[str, ...]], pa.Table]] = {
    "sizes": _size_rows,
    "pictures": _picture_rows,
    "faces": _face_rows,
    "phrases": _phrase_rows,
    "groups": _group_rows,
    "samples": _sample_rows,
}


def _table(unit: str, ids: pa.ChunkedArray, floats: dict[str, Floats], more: dict[str, pa.ChunkedArray]) -> pa.Table:
    """Rows as tallies take them; what is not finite counts as missing."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"id": ids}
    columns |= {name: pa.array(np.where(np.isfinite(values), values, np.nan)) for name, values in floats.items()}
    columns |= more
    columns["unit"] = pa.array([unit] * len(ids), pa.string())
    return pa.table(columns)
