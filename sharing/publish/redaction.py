"""What of each row may be published: takedowns, sources, embeddings and links. Rows in, fewer rows out.

Whole batches are filtered; only rows that a takedown touches are taken apart.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import tables
from refloom.sharing.publish.addresses import PICTURES_FIELD
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.takedown import Takedown, images_of, reach, remaining

Row = dict[str, Any]

_PICTURE_OF = {"phrases": "object_id", "selection": "object_id", "duplicates": "id"}
"""Tables without `image_id`: the column whose ids begin with one."""
ID_COLUMNS = {
    "source_groups": ["group_id", "members"],
    "groups": ["group_id", "members"],
    "matches": ["group_id", "members"],
    "samples": ["sample_id", "pictures.list.element.image_id", "subjects.list.element.subject_id"],
    "splits": ["image_id", "cluster"],
    "phrases": ["object_id"],
    "selection": ["object_id"],
    "duplicates": ["id", "of"],
    "choices": ["sample_id"],
}
"""Columns that say whether a takedown reaches a row; `image_id` alone for tables that are not named."""
_SPREAD = (
    "min_similarity",
    "mean_similarity",
    "max_similarity",
    "frame_gap",
    "area_ratio",
    "pose_change",
    "head_turn",
    "sharpness_ratio",
)
_FEWEST = 2
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
        elif table == "choices" and self.takedown.renamed:
            batch = _mapped(batch, "sample_id", self._group_samples)
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
        if table == "choices" and takedown.renamed:
            other = pc.is_in(batch.column("sample_id"), pa.array(sorted(self._group_samples), pa.string()))
        return hit, other

    @property
    def _group_samples(self) -> dict[str, str]:
        return {f"group/{old}": f"group/{new}" for old, new in self.takedown.renamed.items()}

    def _called_anew(self, batch: pa.RecordBatch) -> pa.Array:
        """Samples one of whose subjects is a group that gets another name: booleans (N,)."""
        subjects = batch.column("subjects")
        names = subjects.flatten().field("subject_id")
        hit = pc.is_in(names, pa.array(sorted(self.takedown.renamed), pa.string()))
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


def smaller_group(row: Row, takedown: Takedown) -> Row | None:
    """A group without some members, or None if too few are left; its spread is not known any more and is null."""
    members = remaining(row["members"], takedown.images)
    if len(members) < _FEWEST:
        return None
    group_id = takedown.renamed.get(row["group_id"], row["group_id"])
    return row | {"group_id": group_id, "members": members, **dict.fromkeys(row.keys() & set(_SPREAD))}


def smaller_source_group(row: Row, takedown: Takedown) -> Row | None:
    """A source's group without some pictures, or None if too few are left."""
    members = remaining(row["members"], takedown.images)
    target = row["target"] if row["target"] in members else None
    return row | {"members": members, "target": target} if len(members) >= _FEWEST else None


def smaller_sample(row: Row, takedown: Takedown, said: str = _SAID[TAKEN_DOWN]) -> Row | None:
    """A sample without some pictures and what is seen on them, or None if too little is left by its kind's rule.

    An image sample has one picture; a video sample needs two with a track seen on both, a group sample two with its
    subject. Numbers that only a model could tell again become null.
    """
    stay = [index for index, one in enumerate(row["pictures"]) if one["image_id"] not in takedown.images]
    lost = len(row["pictures"]) - len(stay)
    if lost and (row["kind"] == "image" or len(stay) < _FEWEST):
        return None
    renumbered = {old: new for new, old in enumerate(stay)}
    subjects = [made for one in row["subjects"] if (made := _smaller_subject(one, renumbered, takedown)) is not None]
    old_group = row["sample_id"].removeprefix("group/")
    group = takedown.renamed.get(old_group, old_group)
    if not lost:
        sample_id = f"group/{group}" if row["kind"] == "group" else row["sample_id"]
        return row | {"sample_id": sample_id, "subjects": subjects}
    several = {one["subject_id"] for one in subjects if len(one["appearances"]) >= _FEWEST}
    if not several or (row["kind"] == "group" and group not in several):
        return None
    qualities = [one["quality"] for subject in subjects for one in subject["appearances"]]
    known = [quality for quality in qualities if quality is not None]
    smaller = row | {
        "sample_id": f"group/{group}" if row["kind"] == "group" else row["sample_id"],
        "why": f"{row['why']}; {lost} of its pictures {said}",
        "scores": {"mip_s": None, "min_quality": min(known) if known else None},
        "pictures": [row["pictures"][index] for index in stay],
        "subjects": subjects,
    }
    for column in row.keys() & {PICTURES_FIELD, "images"}:
        smaller[column] = [row[column][index] for index in stay]
    return smaller


def _smaller_subject(subject: Row, renumbered: dict[int, int], takedown: Takedown) -> Row | None:
    places = [place for place, one in enumerate(subject["appearances"]) if one["picture"] in renumbered]
    if not places:
        return None
    similarity = subject["similarity"]
    if similarity is not None:
        pairs = itertools.combinations(range(len(subject["appearances"])), 2)
        of_pair = dict(zip(pairs, similarity, strict=True))
        similarity = [of_pair[pair] for pair in itertools.combinations(places, 2)] or None
    return subject | {
        "subject_id": takedown.renamed.get(subject["subject_id"], subject["subject_id"]),
        "mentions": [
            one | {"picture": renumbered[one["picture"]]} for one in subject["mentions"] if one["picture"] in renumbered
        ],
        "appearances": [
            subject["appearances"][place] | {"picture": renumbered[subject["appearances"][place]["picture"]]}
            for place in places
        ],
        "similarity": similarity,
    }


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
        return pc.replace_substring_regex(batch.column("sample_id"), "^(image|video|group/[a-z]+)/", "")
    return batch.column(_PICTURE_OF.get(table, "image_id"))


def _nulled(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    position = batch.schema.get_field_index(name)
    if position < 0:
        return batch
    field_of = batch.schema.field(position)
    return batch.set_column(position, field_of, pa.nulls(batch.num_rows, field_of.type))


def _mapped(batch: pa.RecordBatch, name: str, new: dict[str, str]) -> pa.RecordBatch:
    position = batch.schema.get_field_index(name)
    values = [new.get(value, value) for value in batch.column(position).to_pylist()]
    return batch.set_column(position, batch.schema.field(position), pa.array(values, pa.string()))
