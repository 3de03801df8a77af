"""The scalar columns of a dataset in memory: ids, words, verdicts and scores; no pictures, no masks.

Every list is a set of columns of one length. `parent` points to the row of another list, -1 where there is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from refloom.curation.objects import float_array
from refloom.schemas.dataset import Dataset
from refloom.schemas.wording import several

MAX_ROWS = 5_000_000
"""Objects that are held; the units of more are left out, and the page says so."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Words:
    """A column of words that repeat: codes into distinct words, -1 for none."""

    codes: Ints
    words: list[str]

    def at(self, row: int) -> str | None:
        """The word of a row."""
        code = self.codes[row]
        return self.words[code] if code >= 0 else None

    def matching(self, part: str) -> npt.NDArray[np.bool_]:
        """Rows whose word holds a part, whatever the case."""
        found = np.array([part.casefold() in word.casefold() for word in self.words] + [False], bool)
        rows: npt.NDArray[np.bool_] = found[self.codes]
        return rows

    def equal(self, word: str) -> npt.NDArray[np.bool_]:
        """Rows that have exactly this word."""
        rows: npt.NDArray[np.bool_] = self.codes == (self.words.index(word) if word in self.words else -2)
        return rows

    def present(self) -> list[tuple[str, int]]:
        """Every word and its rows, the most frequent first."""
        counts: list[int] = np.bincount(self.codes[self.codes >= 0], minlength=len(self.words)).tolist()
        return sorted(zip(self.words, counts, strict=False), key=lambda entry: (-entry[1], entry[0]))


@dataclass(frozen=True, slots=True)
class Listing:
    """One kind of thing.

    Attributes:
        ids: of N things.
        units: the unit of each, as code into `Index.units`.
        parent: row of the picture that an object or face lies on, or of the first picture of a group or sample.
        kind, name: words; `name` is what a search by phrase looks at.
        score: quality, detector score, mean similarity or lowest quality; NaN where there is none.
        size: members of a group, subjects of a sample, objects of a picture.
    """

    ids: pa.Array
    units: Ints
    parent: Ints
    kind: Words
    name: Words
    score: Floats
    size: Ints

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, identity: str) -> int | None:
        """The row of an id."""
        row = pc.index(self.ids, pa.scalar(identity, pa.string())).as_py()
        return None if row < 0 else int(row)

    def matching(self, part: str) -> npt.NDArray[np.bool_]:
        """Rows whose id holds a part, whatever the case."""
        return np.array(pc.match_substring(self.ids, part, ignore_case=True), bool)


@dataclass(frozen=True, slots=True)
class Index:
    """What a dataset holds.

    Attributes:
        pictures, objects, faces, groups, samples: lists by that name.
        units: names of the units.
        places: row of each picture in its unit's table.
        sources: of the pictures.
        verdicts: of the objects: `keep`, a reason, or `undecided`.
        members: (object row, group row) of every member of a group.
        shown: (picture row, sample row) of every picture of a sample.
        left_out: units that are not held.
    """

    listings: dict[str, Listing]
    units: list[str]
    places: Ints
    sources: Words
    verdicts: Words
    members: Ints
    shown: Ints
    left_out: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """What there is, in words."""
        nouns = {"pictures": "picture", "objects": "object", "faces": "face", "groups": "group", "samples": "sample"}
        return ", ".join(several(len(self.listings[view]), noun) for view, noun in nouns.items())


class _Columns:
    """A list under construction."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {}
        self.length = 0

    def add(self, rows: int, **columns: Any) -> None:
        for name, values in columns.items():
            self._parts.setdefault(name, []).append(values)
        self.length += rows

    def strings(self, name: str) -> pa.Array:
        parts = [part for column in self._parts.get(name, []) for part in _chunks(column)]
        return pa.concat_arrays(parts) if parts else pa.array([], pa.string())

    def numbers(self, name: str, kind: type = np.int64) -> npt.NDArray[Any]:
        parts = self._parts.get(name, [])
        return np.concatenate(parts).astype(kind) if parts else np.zeros(0, kind)

    def words(self, name: str) -> Words:
        column = self.strings(name).dictionary_encode()
        codes = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return Words(codes, column.dictionary.to_pylist())

    def listing(self) -> Listing:
        return Listing(
            ids=self.strings("ids"),
            units=self.numbers("units"),
            parent=self.numbers("parent"),
            kind=self.words("kind"),
            name=self.words("name"),
            score=self.numbers("score", np.float64),
            size=self.numbers("size"),
        )


def build(dataset: Dataset, max_rows: int = MAX_ROWS) -> Index:
    """Read the scalar columns of a dataset in any state, unit by unit.

    Args:
        dataset: where.
        max_rows: objects that are held at most.
    """
    pictures, objects, faces, groups, samples = (_Columns() for _ in range(5))
    left_out: list[str] = []
    units = dataset.units()
    for code, unit in enumerate(units):
        if objects.length >= max_rows:
            left_out.append(unit)
            continue
        first = pictures.length
        own = _pictures(dataset, unit, code, pictures)
        known = _objects(dataset, unit, code, own, first, objects)
        _faces(dataset, unit, code, own, first, known, faces)
        _groups(dataset, unit, code, groups)
        _samples(dataset, unit, code, samples)
    ids = pictures.strings("ids")
    listings = {"pictures": _with_sizes(pictures.listing(), objects.numbers("parent"), objects.numbers("score", float))}
    listings["objects"] = objects.listing()
    members = np.stack([_where(groups.strings("members"), listings["objects"].ids), groups.numbers("owners")], axis=1)
    shown = np.stack([_where(samples.strings("shown"), ids), samples.numbers("owners")], axis=1)
    listings["faces"] = faces.listing()
    listings["groups"] = _with_first(groups, listings["objects"], members)
    listings["samples"] = _first_pictures(samples.listing(), shown)
    return Index(
        listings=listings,
        units=units,
        places=pictures.numbers("places"),
        sources=pictures.words("sources"),
        verdicts=objects.words("verdicts"),
        members=members,
        shown=shown,
        left_out=left_out,
    )


def _chunks(column: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        yield chunk.cast(pa.string())


def _where(values: pa.Array | pa.ChunkedArray, among: pa.Array) -> Ints:
    found = pc.fill_null(pc.index_in(values, value_set=among), -1)
    flat = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return np.array(flat.to_numpy(zero_copy_only=False), np.int64)


def _nulls(rows: int) -> pa.Array:
    return pa.nulls(rows, pa.string())


def _pictures(dataset: Dataset, unit: str, code: int, out: _Columns) -> pa.Array:
    rows = dataset.read("images", ["image_id", "source"], unit=unit)
    count = len(rows)
    nothing = np.zeros(count)
    out.add(
        count,
        ids=rows["image_id"],
        units=np.full(count, code),
        places=np.arange(count),
        sources=rows["source"],
        parent=out.length + np.arange(count),
        kind=_nulls(count),
        name=_nulls(count),
        score=nothing,
        size=nothing,
    )
    return rows["image_id"].combine_chunks()


def _objects(dataset: Dataset, unit: str, code: int, own: pa.Array, first: int, out: _Columns) -> pa.Array:
    rows = dataset.read("objects", ["object_id", "image_id", "kind", "category", "phrase"], unit=unit)
    made = dataset.read("masks", ["object_id", "image_id"], unit=unit)
    bare = made.filter(pc.invert(pc.is_in(made["object_id"], value_set=rows["object_id"].combine_chunks())))
    ids = pa.chunked_array([*rows["object_id"].chunks, *bare["object_id"].chunks], pa.string())
    images = pa.chunked_array([*rows["image_id"].chunks, *bare["image_id"].chunks], pa.string())
    kinds = pa.chunked_array([*rows["kind"].chunks, pa.array(["object"] * len(bare), pa.string())])
    words = pc.coalesce(rows["phrase"], rows["category"])
    words = pa.chunked_array([*words.chunks, _nulls(len(bare))], pa.string())
    phrases = dataset.read("phrases", ["object_id", "phrase"], unit=unit)
    scores = dataset.read("object_scores", ["object_id", "quality"], unit=unit)
    selection = dataset.read("selection", unit=unit)
    count = len(ids)
    parent = _where(images, own)
    judged = selection.take(pc.index_in(ids, value_set=selection["object_id"].combine_chunks()))
    verdict = pc.fill_null(pc.coalesce(judged["reason"], judged["verdict"]), "undecided")
    quality = scores["quality"].take(pc.index_in(ids, value_set=scores["object_id"].combine_chunks()))
    phrase = phrases["phrase"].take(pc.index_in(ids, value_set=phrases["object_id"].combine_chunks()))
    out.add(
        count,
        ids=ids,
        units=np.full(count, code),
        parent=np.where(parent < 0, -1, parent + first),
        kind=kinds,
        name=pc.coalesce(phrase, words),
        verdicts=verdict,
        score=float_array(quality),
        size=np.zeros(count),
    )
    return ids.combine_chunks(), pc.coalesce(phrase, words)


def _faces(
    dataset: Dataset, unit: str, code: int, own: pa.Array, first: int, known: tuple[pa.Array, Any], out: _Columns
) -> None:
    rows = dataset.read("faces", ["face_id", "image_id", "object_id", "det_score"], unit=unit)
    ids, names = known
    parent = _where(rows["image_id"], own)
    out.add(
        len(rows),
        ids=rows["face_id"],
        units=np.full(len(rows), code),
        parent=np.where(parent < 0, -1, parent + first),
        kind=_nulls(len(rows)),
        name=names.take(pc.index_in(rows["object_id"], value_set=ids)),
        score=float_array(rows["det_score"]),
        size=np.zeros(len(rows)),
    )


def _groups(dataset: Dataset, unit: str, code: int, out: _Columns) -> None:
    rows = dataset.read("groups", ["group_id", "kind", "members", "mean_similarity"], unit=unit)
    members = rows["members"].combine_chunks()
    sizes = np.array(pc.list_value_length(members), np.int64)
    owners = out.length + np.repeat(np.arange(len(rows)), sizes)
    out.add(
        len(rows),
        ids=rows["group_id"],
        units=np.full(len(rows), code),
        kind=rows["kind"],
        members=pc.list_flatten(members),
        owners=owners,
        score=float_array(rows["mean_similarity"]),
        size=sizes,
    )


def _samples(dataset: Dataset, unit: str, code: int, out: _Columns) -> None:
    words = ["subjects.list.element.phrase", "subjects.list.element.category", "pictures.list.element.image_id"]
    for batch in dataset.batches("samples", ["sample_id", "kind", "scores.min_quality", *words], unit=unit):
        subjects = batch.column("subjects").to_pylist()
        pictures = batch.column("pictures")
        sizes = np.array(pc.list_value_length(pictures), np.int64)
        names = [
            ", ".join(dict.fromkeys(one["phrase"] or one["category"] or "" for one in row)).strip(", ")
            for row in subjects
        ]
        out.add(
            batch.num_rows,
            ids=batch.column("sample_id"),
            units=np.full(batch.num_rows, code),
            kind=batch.column("kind"),
            name=pa.array([name or None for name in names], pa.string()),
            shown=pc.struct_field(pc.list_flatten(pictures), "image_id"),
            owners=out.length + np.repeat(np.arange(batch.num_rows), sizes),
            score=float_array(pc.struct_field(batch.column("scores"), "min_quality")),
            size=np.array([len(row) for row in subjects], np.int64),
            parent=np.full(batch.num_rows, -1),
        )


def _with_sizes(pictures: Listing, parents: Ints, quality: Floats) -> Listing:
    """Pictures with the number of their objects, and the best quality among them."""
    on_some = parents >= 0
    sizes = np.bincount(parents[on_some], minlength=len(pictures))
    best = np.full(len(pictures), -np.inf)
    known = on_some & ~np.isnan(quality)
    np.maximum.at(best, parents[known], quality[known])
    best[np.isinf(best)] = np.nan
    return _changed(pictures, size=sizes, score=best)


def _with_first(columns: _Columns, objects: Listing, members: Ints) -> Listing:
    """Groups named as the first of their members, which also says on which picture they begin."""
    firsts = _first(members, columns.length)
    is_known = firsts >= 0
    names = np.where(is_known, objects.name.codes[firsts] if len(objects) else -1, -1)
    parents = np.where(is_known, objects.parent[firsts] if len(objects) else -1, -1)
    columns.add(0, parent=parents, name=_nulls(columns.length))
    return _changed(columns.listing(), name=Words(names, objects.name.words))


def _first_pictures(samples: Listing, shown: Ints) -> Listing:
    return _changed(samples, parent=_first(shown, len(samples)))


def _first(pairs: Ints, count: int) -> Ints:
    """The first row that is known for each of `count` owners, of (row, owner) pairs."""
    firsts = np.full(count, -1)
    known = pairs[pairs[:, 0] >= 0][::-1]
    firsts[known[:, 1]] = known[:, 0]
    return firsts


def _changed(listing: Listing, **changes: Any) -> Listing:
    values = {name: getattr(listing, name) for name in Listing.__slots__}
    return Listing(**(values | changes))
