"""A takedown list: which pictures, groups and samples its ids reach, and what groups are called without them.

A picture that goes takes everything along that says its id: objects, faces, scores. A group is named after its smallest
member, so a group that loses it has to get another name; so have clusters of `splits`.
"""

import codecs
import hashlib
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.ids import image_of
from refloom.schemas.takedownlist import COLUMNS, TakedownList, digest_of, file_key, file_of, loose
from refloom.schemas.wording import some

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(slots=True)
class Reached:
    """What one entry of a list names.

    Attributes:
        entry: as it was given.
        kinds: what it is the name of: picture, object, face, track, video, url, sha256, file, group, sample.
        images, groups, samples: their ids.
        gone: it was taken down before.
    """

    entry: str
    kinds: list[str] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    samples: set[str] = field(default_factory=set)
    gone: bool = False

    @property
    def known(self) -> bool:
        """Whether it names anything."""
        return bool(self.kinds) or self.gone

    def add(self, kind: str, image_id: str | None = None) -> None:
        """One more thing that it names, and the picture that goes for it."""
        if kind not in self.kinds:
            self.kinds.append(kind)
        if image_id is not None:
            self.images.add(image_id)


@dataclass(frozen=True, slots=True)
class Takedown:
    """What is left out, resolved against a dataset.

    Attributes:
        ids: number of ids asked for.
        images: ids of the pictures that go.
        groups: ids of groups that go, whatever is left of them.
        samples: ids of samples that go; their pictures stay where other samples show them.
        renamed: id of a group that loses members to its new id.
        dissolved: ids of those of them that keep fewer than two.
        clusters: id of a cluster of `splits` to its new id.
        videos: ids of videos of which nothing is left.
        unknown: ids that the dataset does not hold.
        reached: what each entry names, in their order.
        twins: pictures that go because they have the very bytes of one that is named.
        near: pictures that stay and are near copies of one that goes, as `duplicates` has them.
    """

    ids: int = 0
    images: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()
    renamed: dict[str, str] = field(default_factory=dict)
    dissolved: frozenset[str] = frozenset()
    clusters: dict[str, str] = field(default_factory=dict)
    videos: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    reached: tuple[Reached, ...] = ()
    twins: tuple[str, ...] = ()
    near: tuple[str, ...] = ()


def read(path: str, what: str = "the takedown list") -> tuple[str, ...]:
    """Entries of a file: one a line; empty lines and what follows ` #` or stands behind a leading `#` is a comment.

    A `#` inside an id (`easyref/a.json#3`) is part of it. UTF-8, or UTF-16 where a byte order mark says so.

    Raises:
        Refused: no such file, or not text.
    """
    try:
        data = Path(path).read_bytes()
        encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "utf-8")
        lines = data.decode(encoding).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{what} {path} cannot be read ({error}): give a text file, an id a line") from error
    ids = (
        "" if line.startswith("#") else line.split(" #")[0].split("\t#")[0].strip().strip("\ufeff") for line in lines
    )
    return tuple(dict.fromkeys(name for name in ids if name))


def resolve(
    dataset: Dataset, ids: Sequence[str], listed: TakedownList | None = None, *, again: bool = False
) -> Takedown:
    """What a list of ids reaches.

    Args:
        dataset: that is published, or loses rows.
        ids: image ids, source URLs, file names (or ends of paths) and sha256: those pictures; ids of objects and faces:
            the pictures they lie on; track ids: the pictures that show it; video ids: all frames; ids of `groups` and
            `source_groups`: the group and its members' pictures; sample ids: the sample. One id may be several of
            these. Where nothing has the very letters of an entry, upper and lower case are not told apart.
        listed: the dataset's own list, whose entries count as known.
        again: what of that list is still there, in any table, goes as well.
    """
    listed = listed or TakedownList()
    if not ids and not again:
        return Takedown()
    entries = [Reached(name) for name in dict.fromkeys(ids)]
    search = _Search(entries)
    digests: dict[str, str] = {}
    held: set[str] = set()
    for unit in dataset.units():
        rows = dataset.read("images", COLUMNS, unit=unit)
        for row in rows.filter(search.hits(rows)).to_pylist():
            search.picture(row)
        if again:
            held.update(rows.filter(listed.reach(rows))["image_id"].to_pylist())
    search.tracks(dataset)
    search.lists(dataset)
    search.settle()
    images = held.union(listed.images if again else (), *(one.images for one in entries))
    groups: set[str] = set().union(*(one.groups for one in entries))
    samples: set[str] = set().union(*(one.samples for one in entries))
    gone = {loose(name) for name in (*listed.entries, *listed.images)}
    for one in entries:
        one.gone = not one.known and loose(one.entry) in gone
    for unit in dataset.units():
        rows = dataset.read("images", ["image_id", "sha256"], unit=unit)
        mine = rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(sorted(images), pa.string())))
        digests.update(zip(mine["image_id"].to_pylist(), mine["sha256"].to_pylist(), strict=True))
    twins = _twins(dataset, images, set(digests.values()))
    images |= twins
    if again:
        samples |= set(listed.samples)
    left = _left(dataset, images)
    return Takedown(
        ids=len(dict.fromkeys([*ids, *(listed.entries if again else ())])),
        images=frozenset(images),
        groups=frozenset(groups),
        samples=frozenset(samples),
        renamed={name: _anew(name, members) for name, members in left.items() if members},
        dissolved=frozenset(name for name, members in left.items() if len(members) < 2),
        clusters=_clusters(dataset, images),
        videos=_emptied(dataset, images),
        unknown=tuple(one.entry for one in entries if not one.known),
        reached=tuple(entries),
        twins=tuple(sorted(twins)),
        near=_near(dataset, images),
    )


def refuse_unknown(url: str, taken: Takedown, *, ignore: bool) -> None:
    """Nobody should believe that a picture is gone because its name was misspelt.

    Raises:
        Refused: entries name nothing, and nobody asked to go on without them.
    """
    if taken.unknown and not ignore:
        raise Refused(
            f"{url} holds nothing of the name of {some(list(taken.unknown))}, of {taken.ids:,} entries of the takedown "
            "list; nothing was done: correct the list, or give --ignore-unknown if these are not meant to be there"
        )


class _Search:
    """Finds what entries name, first by their very letters, then without regard to case."""

    def __init__(self, entries: list[Reached]) -> None:
        self._entries = entries
        self._found: dict[str, list[tuple[str, bool, str | None, str | None]]] = {one.entry: [] for one in entries}
        self._by: dict[str, list[str]] = {}
        for one in entries:
            for form in {loose(one.entry), loose(image_of(one.entry)), digest_of(one.entry) or ""}:
                self._by.setdefault(form, []).append(one.entry)
        self._wanted = pa.array(sorted(_forms([*self._by, *(one.entry for one in entries)])), pa.string())
        self._files: dict[str, list[str]] = {}
        for one in entries:
            if _is_file(one.entry):
                base = posixpath.basename(file_key(one.entry))
                for form in {base, loose(posixpath.basename(one.entry.replace("\\", "/"))), *_stems(base)}:
                    self._files.setdefault(form, []).append(one.entry)

    def hits(self, rows: pa.Table) -> pa.ChunkedArray:
        """Rows of `images` that may be named, booleans (N,)."""
        wanted, files = self._wanted, pa.array(sorted(_forms(self._files)), pa.string())
        found = pc.is_in(pc.utf8_lower(rows["image_id"]), value_set=wanted)
        for column in ("video_id", "source_url", "sha256"):
            found = pc.or_(found, pc.is_in(pc.utf8_lower(rows[column]), value_set=wanted))
        paths = pc.coalesce(pc.struct_field(rows["image"], "path"), pc.struct_field(rows["link"], "file"))
        for column in (rows["image_id"], paths):
            base = pc.utf8_lower(pc.replace_substring_regex(column, "^.*/", ""))
            found = pc.or_(found, pc.is_in(base, value_set=files))
        return found

    def picture(self, row: dict[str, Any]) -> None:
        """Note what a row of `images` is called by."""
        image_id = row["image_id"]
        for kind, value in (("picture", image_id), ("video", row["video_id"]), ("url", row["source_url"])):
            for entry in self._by.get(loose(value), []) if value else []:
                if loose(entry) == loose(value):
                    self._note(entry, kind, entry == value, image_id)
                elif kind == "picture":  # an object or a face on it
                    self._note(entry, "face" if "@" in entry else "object", image_of(entry) == value, image_id)
                elif kind == "video":
                    self._note(entry, "track?", False, image_id)
        for entry in self._by.get(row["sha256"], []):
            self._note(entry, "sha256", True, image_id)
        path = file_of(row)
        for base in {posixpath.basename(loose(path or "")), posixpath.basename(loose(image_id))}:
            for entry in self._files.get(base, []):
                self._file(entry, path, image_id)

    def _file(self, entry: str, path: str | None, image_id: str) -> None:
        wanted = entry.replace("\\", "/")
        known = path if path and posixpath.splitext(path)[1].casefold() != ".tar" else None
        own = image_id.partition("/")[2]
        if known and _ends(known, wanted):
            self._note(entry, "file", True, image_id)
            return
        likes = known is not None and _ends(loose(known), loose(wanted))
        likes |= known is None and posixpath.basename(loose(own)) in _stems(file_key(wanted))
        if likes or _ends(loose(own), file_key(wanted)):
            self._note(entry, "file", False, image_id)

    def _note(self, entry: str, kind: str, exact: bool, image_id: str | None, name: str | None = None) -> None:
        self._found[entry].append((kind, exact, image_id, name))

    def tracks(self, dataset: Dataset) -> None:
        """Tracks that entries name, in the objects that show them."""
        if not any("#" in one.entry for one in self._entries):
            return
        for batch in dataset.batches("objects", ["image_id", "track_id"]):
            hits = pc.is_in(pc.utf8_lower(batch.column("track_id")), value_set=self._wanted)
            for row in batch.filter(hits).to_pylist():
                for entry in self._same(row["track_id"]):
                    self._note(entry, "track", entry == row["track_id"], row["image_id"])

    def lists(self, dataset: Dataset) -> None:
        """Groups with their members, and samples, that entries name."""
        for table in ("groups", "source_groups"):
            rows = dataset.read(table, ["group_id", "members"])
            for row in rows.filter(pc.is_in(pc.utf8_lower(rows["group_id"]), value_set=self._wanted)).to_pylist():
                for entry in self._same(row["group_id"]):
                    for member in row["members"]:
                        self._note(entry, "group", entry == row["group_id"], image_of(member), row["group_id"])
        samples = dataset.read("samples", ["sample_id"])["sample_id"]
        for name in samples.filter(pc.is_in(pc.utf8_lower(samples), value_set=self._wanted)).to_pylist():
            for entry in self._same(name):
                self._note(entry, "sample", entry == name, None, name)

    def _same(self, name: str) -> Iterator[str]:
        return (entry for entry in self._by.get(loose(name), []) if loose(entry) == loose(name))

    def settle(self) -> None:
        """Keep the best of what was found: very letters before others, whole names before what they lie on or in."""
        for one in self._entries:
            found = self._found[one.entry]
            whole = [hit for hit in found if hit[0] not in ("object", "face", "track?", "file")]
            best = whole or [hit for hit in found if hit[0] != "file"] or found
            for kind, _, image_id, name in [hit for hit in best if hit[1]] or best:
                one.add("track" if kind == "track?" else kind, image_id)
                if name is not None:
                    (one.groups if kind == "group" else one.samples).add(name)


def _forms(texts: Iterable[str]) -> set[str]:
    """Texts in every form that a column in lower case may have them in."""
    return {
        form
        for text in texts
        for form in (loose(text), *(unicodedata.normalize(name, text).lower() for name in ("NFC", "NFD")))
    }


def _is_file(entry: str) -> bool:
    """Whether an entry may be the name of a file: it has an extension and is no URL."""
    end = posixpath.splitext(entry)[1]
    return "://" not in entry and 1 < len(end) <= 6 and end[1:].isalnum()


def _stems(file: str) -> set[str]:
    """What ids call a file whose source names pictures by number: `sa_1.jpg` is 1."""
    stem = posixpath.splitext(posixpath.basename(file))[0]
    return {stem, stem.removeprefix("sa_")} - {""}


def _ends(path: str, end: str) -> bool:
    return path == end or path.endswith(f"/{end.lstrip('/')}")


def _twins(dataset: Dataset, images: set[str], digests: set[str]) -> set[str]:
    """Other pictures of the same bytes."""
    found: set[str] = set()
    wanted = pa.array(sorted(digests), pa.string())
    for unit in dataset.units() if digests else ():
        rows = dataset.read("images", ["image_id", "sha256"], unit=unit)
        found.update(rows.filter(pc.is_in(rows["sha256"], value_set=wanted))["image_id"].to_pylist())
    return found - images


def _near(dataset: Dataset, images: set[str]) -> tuple[str, ...]:
    """Pictures that stay beside those that go, though one is a copy of the other."""
    gone = pa.array(sorted(images), pa.string())
    found: set[str] = set()
    for batch in dataset.batches("duplicates", ["id", "kind", "of"]):
        batch = batch.filter(pc.equal(batch.column("kind"), "image"))
        first, second = (pc.is_in(batch.column(name), value_set=gone) for name in ("id", "of"))
        found.update(batch.filter(pc.and_not(second, first)).column("id").to_pylist())
        found.update(batch.filter(pc.and_not(first, second)).column("of").to_pylist())
    return tuple(sorted(found))


def remaining(members: Iterable[str], images: frozenset[str] | set[str]) -> list[str]:
    """Members of a group, object or image ids, whose pictures stay."""
    return [member for member in members if image_of(member) not in images]


def _left(dataset: Dataset, images: set[str]) -> dict[str, list[str]]:
    """Groups that lose a member, by id, to the members that are left; not tracks, which are named after themselves."""
    found: dict[str, list[str]] = {}
    for table in ("matches", "groups"):  # of one in both, `groups` says what it is called
        for batch in dataset.batches(table, ["group_id", "kind", "members"]):
            touched = reach(batch.column("members"), images)
            for row in batch.filter(touched).to_pylist():
                if row["kind"] != "track":
                    found[row["group_id"]] = remaining(row["members"], images)
    return found


def _anew(group_id: str, left: list[str]) -> str:
    """The id of a group that loses a member: kind, smallest member left, and a hash of all that are left.

    The hash keeps groups apart that had different first members and now share one.
    """
    mark = hashlib.sha256("\n".join(left).encode()).hexdigest()[:8]
    return f"{group_id.partition('/')[0]}/{min(left)}~{mark}"


def _emptied(dataset: Dataset, images: set[str]) -> frozenset[str]:
    """Videos of which no picture is left."""
    touched = {image_id.rpartition("/")[0] for image_id in images}
    for unit in dataset.units() if touched else ():
        rows = dataset.read("images", ["image_id", "video_id"], unit=unit).to_pylist()
        touched -= {row["video_id"] for row in rows if row["image_id"] not in images}
    return frozenset(touched)


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
