"""The takedown list that stays with a dataset, and what of a row it reaches: pictures that may never come back.

    takedown.json   version, entries as they were given; images (id to sha256), places, urls, files, samples that they
                    name; unknown: entries that the dataset did not hold when they came; before and renamed
                    while rows are removed

Later ingests compare every picture with it by id, bytes, video, address and file name; compose compares samples. What
removes rows is `refloom.sharing.publish.removal`.
"""

import json
import posixpath
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.ids import encode, image_of
from refloom.schemas.storage import Folder

PATH = "takedown.json"
COLUMNS = ["image_id", "video_id", "source_url", "sha256", "image.path", "link.file"]
"""Of `images`: what a list is compared with."""
_VERSION = 1
_MAPPINGS = ("images", "before", "renamed")
_TEXTS = ("entries", "places", "urls", "files", "samples", "unknown")


def loose(text: str) -> str:
    """A text without regard to case and to how its letters are composed."""
    return unicodedata.normalize("NFC", text).casefold()


@dataclass(slots=True)
class _Seen:
    """What the entries that no row had matched are compared with, whatever their case."""

    ids: frozenset[str]
    above: frozenset[str]
    files: frozenset[str]
    exact: frozenset[str]


@dataclass(frozen=True)
class TakedownList:
    """What a dataset may not hold.

    Attributes:
        entries: as they were given, in order.
        images: id of a picture that was removed to the sha256 of its bytes.
        places: ids of videos and groups; pictures whose ids begin with one lie in it.
        urls: addresses, exactly.
        files: file names, or ends of paths.
        samples: ids of samples whose pictures stay.
        unknown: entries that matched nothing; they match whatever they can.
        before: fingerprints before a removal that is under way, `<directory>/<unit>` or `<table>/*`; empty if none is.
        renamed: and the new names of groups and clusters that lose what they are named after.
    """

    entries: tuple[str, ...] = ()
    images: dict[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    before: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Folder) -> "TakedownList":
        """The list of a dataset; an empty one if it has none.

        Raises:
            Refused: the file is damaged: without it nobody knows what has to stay out.
        """
        try:
            value = json.loads(folder.read(PATH))
        except FileNotFoundError:
            return cls()
        except ValueError as error:
            raise Refused(f"{folder.url}/{PATH} is not json ({error}): {_REMEDY}") from error
        texts = {name: value.get(name) for name in _TEXTS} if isinstance(value, dict) else {}
        mappings = {name: value.get(name) for name in _MAPPINGS} if texts else {}
        sound = (
            bool(texts)
            and value.get("version") == _VERSION
            and all(isinstance(one, list) and all(isinstance(text, str) for text in one) for one in texts.values())
            and all(
                isinstance(one, dict) and all(isinstance(text, str) for text in one.values())
                for one in mappings.values()
            )
        )
        if not sound:
            raise Refused(f"{folder.url}/{PATH} is not what `refloom takedown` writes: {_REMEDY}")
        fields: dict[str, Any] = {name: tuple(value[name]) for name in _TEXTS} | mappings
        return cls(**fields)

    def save(self, folder: Folder) -> None:
        """Write it into a dataset."""
        value: dict[str, Any] = {name: list(getattr(self, name)) for name in _TEXTS}
        value |= {"version": _VERSION, **{name: getattr(self, name) for name in _MAPPINGS}}
        folder.write(PATH, strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n")

    def __bool__(self) -> bool:
        return bool(self.entries or self.images or self.samples or self.unknown)

    @cached_property
    def _digests(self) -> frozenset[str]:
        return frozenset({*self.images.values(), *(one for name in self.unknown if (one := digest_of(name)))})

    @cached_property
    def _exact(self) -> _Seen:
        return _Seen(
            frozenset(self.images),
            frozenset(self.places),
            frozenset(form for name in self.files for form in (loose(name), file_key(name))),
            frozenset(self.urls),
        )

    @cached_property
    def _loose(self) -> _Seen:
        names = [loose(name) for name in self.unknown]
        ids = frozenset({*names, *(image_of(name) for name in names)})
        files = frozenset({*names, *(file_key(name) for name in self.unknown)})
        return _Seen(ids, ids, files, frozenset(names))

    def holds(
        self,
        image_id: str,
        *,
        video_id: str | None = None,
        source_url: str | None = None,
        file: str | None = None,
        sha256: str | None = None,
    ) -> bool:
        """Whether a picture is on the list, by anything that is known of it."""
        if not self:
            return False
        if sha256 is not None and sha256 in self._digests:
            return True
        exact, rest = self._exact, self._loose
        if image_id in exact.ids or video_id in exact.above or source_url in exact.exact:
            return True
        if exact.above and any(name in exact.above for name in _parents(image_id)):
            return True
        if (exact.files or rest.files) and any(
            end in exact.files or end in rest.files for end in _ends(file, image_id)
        ):
            return True
        if not self.unknown:
            return False
        return any(name in rest.above for name in _parents(loose(image_id))) or any(
            value is not None and loose(value) in rest.exact for value in (source_url, video_id)
        )

    def reach(self, rows: pa.Table) -> pa.ChunkedArray:
        """Which of N rows of `images` are on the list, booleans (N,).

        Args:
            rows: with the columns `COLUMNS`.
        """
        if self.files or self.unknown or self.places:
            hits = [self.holds(**one) for one in pictures_of(rows)]
            return pa.chunked_array([pa.array(hits, pa.bool_())])
        wanted = (
            ("image_id", sorted(self.images)),
            ("sha256", sorted(self._digests)),
            ("video_id", self.places),
            ("source_url", self.urls),
        )
        found = pa.chunked_array([pa.array([False] * len(rows), pa.bool_())])
        for column, values in wanted:
            found = pc.or_(found, pc.is_in(rows[column], value_set=pa.array(values, pa.string())))
        return found


_REMEDY = "put its last sound copy back; without it pictures that were taken down could come in again"


def digest_of(entry: str) -> str | None:
    """The sha256 that an entry is, in lower case; None if it is none."""
    text = entry.casefold().removeprefix("sha256:").strip()
    return text if len(text) == 64 and all(one in "0123456789abcdef" for one in text) else None


def pictures_of(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of `images` with the columns `COLUMNS` as arguments of `TakedownList.holds`."""
    for row in rows.to_pylist():
        yield {
            "image_id": row["image_id"],
            "video_id": row["video_id"],
            "source_url": row["source_url"],
            "file": file_of(row),
            "sha256": row["sha256"],
        }


def file_of(row: dict[str, Any]) -> str | None:
    """The file that a row of `images` came from, as far as it says."""
    name: str | None = (row.get("image") or {}).get("path") or (row.get("link") or {}).get("file")
    return name


def _ends(file: str | None, image_id: str) -> Iterator[str]:
    """Every end of a file's path, and of the path that ids of files hold, in the form of `loose`."""
    for path in (file, image_id.partition("/")[2]):
        parts = loose(path).split("/") if path else []
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
    if file and posixpath.splitext(file)[1].casefold() == ".tar":  # a link; its member is called like the picture
        stem = posixpath.basename(image_id)
        yield from (f"{prefix}{loose(stem)}{end}" for prefix in ("", "sa_") for end in (".jpg", ".jpeg", ".png"))


def _parents(image_id: str) -> Iterator[str]:
    """An id and the ids of what it lies in."""
    parts = image_id.split("/")
    yield from ("/".join(parts[:stop]) for stop in range(len(parts), 1, -1))


def file_key(entry: str) -> str:
    """An entry as the end of a path, in the form that ids of files have."""
    return loose("/".join(encode(part) for part in entry.replace("\\", "/").split("/")))


def refuse_unfinished(folder: Folder) -> TakedownList:
    """The list of a dataset, whose removals are all done.

    Raises:
        Refused: a removal was stopped half way.
    """
    found = TakedownList.load(folder)
    if found.before:
        raise Refused(
            f"a takedown of {folder.url} was stopped half way: finish it with `refloom takedown {folder.url}`"
        )
    return found


def refuse_listed(dataset: Dataset) -> TakedownList:
    """The list of a dataset, none of whose pictures is on it: for what gives rows on to people and trainers.

    Raises:
        Refused: rows are on the list, for example after files of another copy were put back.
    """
    found = refuse_unfinished(dataset.folder)
    if not found:
        return found
    held: list[str] = []
    for unit in dataset.units():
        rows = dataset.read("images", COLUMNS, unit=unit)
        held += rows.filter(found.reach(rows))["image_id"].to_pylist()
    ids = pa.array(sorted(found.images), pa.string())
    for batch in dataset.batches("samples", ["sample_id", "pictures.list.element.image_id"]):
        own = batch.column("pictures").flatten().field("image_id")
        held += own.filter(pc.is_in(own, value_set=ids)).to_pylist()
        names = batch.column("sample_id")
        held += names.filter(pc.is_in(names, value_set=pa.array(found.samples, pa.string()))).to_pylist()
    if held:
        raise Refused(
            f"{dataset.url} holds {len(set(held)):,} things that are on its takedown list, e.g. {held[0]}: "
            f"take them out with `refloom takedown {dataset.url}`"
        )
    return found
