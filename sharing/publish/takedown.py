"""A takedown list: which pictures, groups and samples its ids reach, and what groups are called without them.

A picture that goes takes everything along that says its id: objects, faces, scores. A group is named after its smallest
member, so a group that loses it has to get another name; so have clusters of `splits`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.ids import image_of


@dataclass(frozen=True, slots=True)
class Takedown:
    """What is left out, resolved against a dataset.

    Attributes:
        ids: number of ids asked for.
        images: ids of the pictures that go.
        groups: ids of groups that go, whatever is left of them.
        samples: ids of samples that go; their pictures stay where other samples show them.
        renamed: id of a group that loses members to its new id.
        clusters: id of a cluster of `splits` to its new id.
        unknown: ids that the dataset does not hold.
    """

    ids: int = 0
    images: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()
    renamed: dict[str, str] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def read(path: str) -> tuple[str, ...]:
    """Ids of a file: one a line; empty lines and what follows ` #` or stands behind a leading `#` is a comment.

    A `#` inside an id (`easyref/a.json#3`) is part of it.

    Raises:
        Refused: no such file, or not text.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the takedown list {path} cannot be read: {error}") from error
    ids = ("" if line.startswith("#") else line.split(" #")[0].split("\t#")[0].strip() for line in lines)
    return tuple(dict.fromkeys(name for name in ids if name))


def resolve(dataset: Dataset, ids: Sequence[str]) -> Takedown:
    """What a list of ids reaches.

    Args:
        dataset: that is published.
        ids: image ids and source URLs: those pictures; video ids: all frames; ids of `groups` and `source_groups`: the
            group and its members' pictures; sample ids: the sample. One id may be several of these.
    """
    if not ids:
        return Takedown()
    wanted = pa.array(sorted(set(ids)), pa.string())
    known: set[str] = set()
    images: set[str] = set()
    for unit in dataset.units():
        rows = dataset.read("images", ["image_id", "video_id", "source_url"], unit=unit)
        for column in ("image_id", "video_id", "source_url"):
            found = rows.filter(pc.is_in(rows[column], wanted))
            images.update(found["image_id"].to_pylist())
            known.update(found[column].to_pylist())
    groups: set[str] = set()
    for table in ("groups", "source_groups"):
        rows = dataset.read(table, ["group_id", "members"])
        found = rows.filter(pc.is_in(rows["group_id"], wanted))
        groups.update(found["group_id"].to_pylist())
        images.update(image_of(member) for members in found["members"].to_pylist() for member in members)
    samples = dataset.read("samples", ["sample_id"])["sample_id"]
    gone = set(samples.filter(pc.is_in(samples, wanted)).to_pylist())
    known |= groups | gone
    return Takedown(
        ids=len(wanted),
        images=frozenset(images),
        groups=frozenset(groups),
        samples=frozenset(gone),
        renamed=_renamed(dataset, images),
        clusters=_clusters(dataset, images),
        unknown=tuple(name for name in dict.fromkeys(ids) if name not in known),
    )


def remaining(members: Iterable[str], images: frozenset[str] | set[str]) -> list[str]:
    """Members of a group, object or image ids, whose pictures stay."""
    return [member for member in members if image_of(member) not in images]


def _renamed(dataset: Dataset, images: set[str]) -> dict[str, str]:
    """New ids of groups that lose a member: kind, smallest member left, and a hash of all that are left.

    The hash keeps groups apart that had different first members and now share one.
    """
    renamed = {}
    for batch in dataset.batches("groups", ["group_id", "kind", "members"]):
        touched = reach(batch.column("members"), images)
        for row in batch.filter(touched).to_pylist():
            left = remaining(row["members"], images)
            if left and row["kind"] != "track":  # a track is named after itself
                mark = hashlib.sha256("\n".join(left).encode()).hexdigest()[:8]
                renamed[row["group_id"]] = f"{row['kind']}/{min(left)}~{mark}"
    return renamed


def _clusters(dataset: Dataset, images: set[str]) -> dict[str, str]:
    """Clusters that are named after a picture that goes, by their smallest picture that stays."""
    gone = pa.array(sorted(images), pa.string())
    renamed: dict[str, str] = {}
    for batch in dataset.batches("splits", ["image_id", "cluster"]):
        named = batch.filter(pc.and_(pc.is_in(batch.column("cluster"), gone), pc.invert(_in(batch, gone))))
        for row in named.to_pylist():
            renamed[row["cluster"]] = min(row["image_id"], renamed.get(row["cluster"], row["image_id"]))
    return renamed


def _in(batch: pa.RecordBatch, gone: pa.Array) -> pa.Array:
    return pc.is_in(batch.column("image_id"), gone)


def images_of(ids: pa.Array) -> pa.Array:
    """Image ids inside object, face and image ids (N,)."""
    return pc.replace_substring_regex(ids, "[#@].*$", "")


def reach(lists: pa.Array, images: frozenset[str] | set[str]) -> pa.Array:
    """Which of N lists of image, object or face ids name one of the pictures: booleans (N,)."""
    gone = pa.array(sorted(images), pa.string())
    hit = pc.is_in(images_of(lists.flatten()), gone)
    rows = pc.unique(pc.list_parent_indices(lists).filter(hit))
    return pc.is_in(pa.array(range(len(lists)), rows.type), rows)
