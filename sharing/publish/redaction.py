"""What of each row may be published: takedowns, sources, embeddings and links. Rows in, fewer rows out.

Whole batches are filtered; only rows that a takedown touches are taken apart.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import tables
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.smaller import smaller_choice, smaller_group, smaller_sample, smaller_source_group
from refloom.sharing.publish.takedown import Takedown, images_of, reach

Row = dict[str, Any]

_PICTURE_OF = {"phrases": "object_id", "selection": "object_id", "duplicates": "id"}
"""Tables without `image_id`: the column whose ids begin with one."""
_NAMED = ("subject_id", "identity", "look")
"""What of a subject may be the id of a group."""
_OF_FACES = ("embedding", "pose", "sharpness")
"""What a model says of a face in a sample, which is published where identity embeddings are."""
ID_COLUMNS = {
    "source_groups": ["group_id", "members"],
    "groups": ["group_id", "members"],
    "matches": ["group_id", "members"],
    "samples": [
        "sample_id",
        "pictures.list.element.image_id",
        *(f"subjects.list.element.{name}" for name in _NAMED),
    ],
    "splits": ["image_id", "cluster"],
    "phrases": ["object_id"],
    "selection": ["object_id"],
    "duplicates": ["id", "of"],
    "choices": ["sample_id", "references"],
}
"""Columns that say whether a takedown reaches a row; `image_id` alone for tables that are not named."""
TAKEN_DOWN = "taken_down"
_SAID = {TAKEN_DOWN: "taken down", "left_out": "left out", "duplicate": "held by another dataset"}
"""Reason for which pictures go to how a sample that stays says it."""


@dataclass(slots=True)
class Redaction:
    """Applies settings and a takedown to rows, and counts what it does.

    Attributes:
        options: settings.
        takedown: resolved.
        counts: `<table> dropped`, `<table> shrunk` and `<table> of other sources` to rows.
        word: why most pictures go, a word of the ledger.
        reasons: image id to another such word.
    """

    options: Publish
    takedown: Takedown
    counts: Counter[str] = field(default_factory=Counter)
    word: str = TAKEN_DOWN
    reasons: Mapping[str, str] = field(default_factory=dict)

    def reason(self, image_id: str) -> str:
        """Why a picture goes, a word of the ledger."""
        return self.reasons.get(image_id, self.word)

    def apply(self, table: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that may be published, as they may be.

        Args:
            table: whose rows.
            batch: any of its columns, and maybe `_pictures`.
        """
        if self.options.only_sources:
            before = batch.num_rows
            batch = batch.filter(self._of_sources(table, batch))
            self.counts[f"{table} of other sources"] += before - batch.num_rows
        if self.takedown.ids:
            batch = self.taken_down(table, batch)
        if table == "images":
            batch = _nulled(batch, "link")
        if table == "faces" and not self.options.face_embeddings:
            batch = _nulled(batch, "embedding")
        if table == "samples" and not self.options.face_embeddings:
            batch = _without_faces(batch)
        if table == "labels":
            batch = _nulled(batch, "labeller")
        return batch

    # -- sources -------------------------------------------------------------------------------------------------

    def _of_sources(self, table: str, batch: pa.RecordBatch) -> pa.Array:
        """Rows all of whose pictures are of the wanted sources: an id begins with its source."""
        wanted = pa.array(self.options.only_sources, pa.string())
        lists = _lists(table, batch)
        ids = lists.flatten() if lists is not None else _ids(table, batch)
        inside = pc.is_in(pc.replace_substring_regex(ids, "/.*$", ""), wanted)
        if lists is None:
            return inside
        outside = pc.unique(pc.list_parent_indices(lists).filter(pc.invert(inside)))
        return pc.invert(pc.is_in(pa.array(range(batch.num_rows), outside.type), outside))

    # -- takedown ------------------------------------------------------------------------------------------------

    def taken_down(self, table: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch without what is taken down, whatever the settings are."""
        before = batch.num_rows
        away, touched = self.hits(table, batch)
        batch, touched = batch.filter(pc.invert(away)), touched.filter(pc.invert(away))
        if table == "splits" and self.takedown.clusters:
            batch = _mapped(batch, "cluster", self.takedown.clusters)
        elif pc.any(touched).as_py():
            batch = self._shrunk(table, batch, touched)
        self.counts[f"{table} dropped"] += before - batch.num_rows
        return batch

    def hits(self, table: str, batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
        """Rows that go, and rows that stay smaller or with other words: booleans (N,) each.

        Args:
            table: whose rows.
            batch: at least its columns of ids: see `ID_COLUMNS`.
        """
        takedown = self.takedown
        lists = _lists(table, batch)
        if lists is not None:
            named = takedown.samples if table == "samples" else takedown.groups
            key = batch.column(tables.TABLES[table].key)
            touched = reach(lists, takedown.images)
            away = pc.is_in(key, pa.array(sorted(named), pa.string()))
            if table == "samples":  # of one picture nothing is left; and one may be called after one it does not show
                away = pc.or_(away, pc.and_(touched, pc.starts_with(key, "image/")))
                touched = pc.or_(touched, self._called_anew(batch))
            return away, touched
        gone = pa.array(sorted(takedown.images), pa.string())
        hit = pc.is_in(images_of(_ids(table, batch)), gone)
        if table == "choices":
            hit = pc.or_(hit, self._chosen(batch))
        if table == "duplicates":
            hit = pc.or_(hit, pc.is_in(images_of(batch.column("of")), gone))
        other = pa.array([False] * batch.num_rows, pa.bool_())
        if table == "splits" and takedown.clusters:
            other = pc.is_in(batch.column("cluster"), pa.array(sorted(takedown.clusters), pa.string()))
        if table == "choices":
            groups = pa.array(sorted(f"group/{name}" for name in takedown.renamed), pa.string())
            other = pc.or_(
                pc.is_in(batch.column("sample_id"), groups), reach(batch.column("references"), takedown.images)
            )
        return hit, other

    def _called_anew(self, batch: pa.RecordBatch) -> pa.Array:
        """Samples one of whose subjects is, or is in, a group that gets another name: booleans (N,)."""
        subjects = batch.column("subjects")
        each = subjects.flatten()
        renamed = pa.array(sorted(self.takedown.renamed), pa.string())
        held = [each.field(name) for name in _NAMED if each.type.get_field_index(name) >= 0]  # old ones name none
        hit = functools.reduce(pc.or_, (pc.is_in(names, renamed) for names in held))
        rows = pc.unique(pc.list_parent_indices(subjects).filter(hit))
        return pc.is_in(pa.array(range(batch.num_rows), rows.type), rows)

    def _chosen(self, batch: pa.RecordBatch) -> pa.Array:
        """Rows of `choices` on samples and groups that go, and on videos that lose a frame."""
        names = batch.column("sample_id")
        away = {*self.takedown.samples, *(f"group/{name}" for name in self.takedown.groups)}
        videos = {f"video/{image_id.rpartition('/')[0]}" for image_id in self.takedown.images}
        of_video = pc.replace_substring_regex(names, "/[0-9]+$", "")
        return pc.or_(
            pc.is_in(names, pa.array(sorted(away), pa.string())),
            pc.is_in(of_video, pa.array(sorted(videos), pa.string())),
        )

    def _shrunk(self, table: str, batch: pa.RecordBatch, touched: pa.Array) -> pa.RecordBatch:
        shrink: Callable[[Row], Row | None] = {
            "samples": lambda row: smaller_sample(row, self.takedown, _SAID[self.word]),
            "groups": lambda row: smaller_group(row, self.takedown),
            "matches": lambda row: smaller_group(row, self.takedown),
            "source_groups": lambda row: smaller_source_group(row, self.takedown),
            "choices": lambda row: smaller_choice(row, self.takedown),
        }[table]
        pieces = []
        for position, changed in enumerate(touched.to_pylist()):
            one = batch.slice(position, 1)
            if changed:
                row = shrink(one.to_pylist()[0])
                one = pa.RecordBatch.from_pylist([row] if row else [], batch.schema)
                self.counts[f"{table} shrunk"] += row is not None
            pieces.append(one)
        table_of = pa.Table.from_batches(pieces, batch.schema).combine_chunks()
        return table_of.to_batches()[0] if table_of.num_rows else batch.slice(0, 0)


def _lists(table: str, batch: pa.RecordBatch) -> pa.Array | None:
    """The ids that a row of groups or samples is made of, as lists; None for tables with one picture a row."""
    if table in ("groups", "matches", "source_groups"):
        return batch.column("members")
    if table != "samples":
        return None
    pictures = batch.column("pictures")
    ids = pictures.flatten().field("image_id")
    return pa.ListArray.from_arrays(_offsets(pictures), ids)


def _offsets(lists: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    ends = pc.cumulative_sum(lengths)
    return pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])


def _ids(table: str, batch: pa.RecordBatch) -> pa.Array:
    """Ids that begin with the id of a row's picture; of `choices` with that of a video or of a group's first member."""
    if table == "choices":
        return pc.replace_substring_regex(batch.column("sample_id"), "^(image|video|cross|group/[a-z]+)/", "")
    return batch.column(_PICTURE_OF.get(table, "image_id"))


def _nulled(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    position = batch.schema.get_field_index(name)
    if position < 0:
        return batch
    field_of = batch.schema.field(position)
    return batch.set_column(position, field_of, pa.nulls(batch.num_rows, field_of.type))


def _without_faces(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Samples without what a model says of the faces in them."""
    position = batch.schema.get_field_index("subjects")
    if position < 0:
        return batch
    subjects = batch.column(position)
    for name in _OF_FACES:
        subjects = _emptied(subjects, ("appearances", "face", name))
    return batch.set_column(position, batch.schema.field(position), subjects)


def _emptied(values: pa.Array, path: tuple[str, ...]) -> pa.Array:
    """An array with a field of structs, in structs and lists of them, as nulls; as it is where there is none."""
    if not path:
        return pa.nulls(len(values), values.type)
    if pa.types.is_list(values.type):
        inner = _emptied(values.flatten(), path)
        return pa.ListArray.from_arrays(_offsets(values), inner, type=values.type, mask=values.is_null())
    fields = [values.type.field(place) for place in range(values.type.num_fields)]
    parts = [
        _emptied(values.field(place), path[1:]) if one.name == path[0] else values.field(place)
        for place, one in enumerate(fields)
    ]
    return pa.StructArray.from_arrays(parts, fields=fields, mask=values.is_null())


def _mapped(batch: pa.RecordBatch, name: str, new: dict[str, str]) -> pa.RecordBatch:
    position = batch.schema.get_field_index(name)
    values = [new.get(value, value) for value in batch.column(position).to_pylist()]
    return batch.set_column(position, batch.schema.field(position), pa.array(values, pa.string()))
