"""SA-1B: tars, or folders of what was in them.

    sa_<id>.jpg + sa_<id>.json, in any order, maybe below folders or behind "./"
    {image: {image_id, width, height, file_name}, annotations: [{id, segmentation: {size, counts}, bbox [x, y, w, h],
     area, predicted_iou, stability_score, crop_box, point_coords}]}

Boxes have width and height = max - min, one less than the pixels they cover. There are no classes and no captions,
faces are blurred. A unit is a tar: it is read by offset and never unpacked; a gzip tar is streamed. An unpacked folder
is cut into units, see `sa1bfolder`.
"""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

from refloom.ingest import jsons, naming, tar
from refloom.ingest.annotationfile import id_text
from refloom.ingest.files import is_junk, safe_name
from refloom.ingest.source import Annotation, Item, Link, Picture, Plan, Problem, Record, UnitPlan
from refloom.ingest.sources import sa1bfolder
from refloom.schemas import ids
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.fingerprint import of_json
from refloom.schemas.storage import Folder

LICENSE = "SA-1B Dataset Research License"
_PICTURES = (".jpg", ".jpeg", ".png")
_SIDES_PX_SHORT = 1.0
_PENDING_BYTES = 512 << 20
_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sa1b:
    """One or more SA-1B tars or unpacked folders.

    Attributes:
        tars: tar files, folders that hold them, or folders of pictures and records.
        name: first part of the keys.
        limit: only the first pictures of each tar.
        linked: pictures will be kept as links, which gzip tars cannot give.
        license: of the pictures; tars in this layout need not be SA-1B's.
    """

    tars: tuple[str, ...]
    name: str = "sa1b"
    limit: int | None = None
    linked: bool = False
    license: str = LICENSE
    kind: str = "sa1b"

    def roots(self) -> dict[str, str]:
        """The folder of each tar, or the unpacked folder itself."""
        return {
            self._key(path): path if is_unpacked else jsons.split(path)[0].url for path, is_unpacked in self._paths()
        }

    def _key(self, path: str) -> str:
        stem = re.sub(r"\.(tar|tgz|tar\.gz)$", "", posixpath.basename(path.rstrip("/")))
        return ids.unit_key(f"{self.name}.{stem}")

    def _paths(self) -> list[tuple[str, bool]]:
        """Tars, and unpacked folders (True), in the order given."""
        found = []
        for path in self.tars:
            folder = Folder(path)
            if not folder.exists():
                raise Refused(f"{path} does not exist: give SA-1B tars, or folders that hold them")
            if not (folder.folders() or folder.names() or (folder.is_local and os.path.isdir(path))):
                found.append((path, False))
                continue
            inside = _inside(path)
            if not inside:  # sa_000000/, sa_000001/ ...
                below = [posixpath.join(path, name) for name in folder.folders()]
                inside = [(one, True) for one in below if sa1bfolder.holds_pairs(Folder(one))]
            if not inside:
                raise Refused(
                    f"no .tar in {path}, and no picture with its json beside it: give SA-1B tars, folders that hold "
                    "them, or unpacked folders"
                )
            found += inside
        return found

    def plans(self) -> list[Plan]:
        """One pass over the headers of every tar.

        Raises:
            Refused: nothing there, two tars of one name, or a gzip tar under --link.
        """
        paths = self._paths()
        keys = [self._key(path) for path, _ in paths]
        twice = {key for key, count in Counter(keys).items() if count > 1}
        if twice:
            raise Refused(f"two tars or folders are called {sorted(twice)[0]}: ingest one with another --name")
        with ThreadPoolExecutor(_READERS) as pool:
            indexes = _readable([path for path, _ in paths], list(pool.map(_index, paths)))
        plans = []
        for (path, is_unpacked), key, (size, index) in zip(paths, keys, indexes, strict=True):
            if index.gzip and self.linked:
                raise Refused(
                    f"{path} is a gzip tar, into which nothing can point: unpack the gzip, or ingest without --link"
                )
            pairs, others = _pair(index)
            taken = pairs[: self.limit]
            cut = sa1bfolder.UNIT_PAIRS if is_unpacked else max(1, len(taken))
            config = {"source": self.kind, "limit": self.limit, "license": self.license}
            units = [
                self._unit(
                    f"{key}-{number:05d}" if is_unpacked else key,
                    {"path": path, "unpacked": True} if is_unpacked else {"path": path},
                    taken[start : start + cut],
                    [] if number else others,
                    index,
                    size * min(cut, len(taken)) // max(1, len(taken)),
                )
                for number, start in enumerate(range(0, max(1, len(taken)), cut))
            ]
            notes = sa1bfolder.notes(Folder(path)) if is_unpacked else ()
            plans.append(Plan(key, tuple(units), config, tuple(notes)))
        return plans

    def _unit(
        self, name: str, task: dict[str, Any], pairs: list["_Pair"], others: list[Any], index: tar.Index, size: int
    ) -> UnitPlan:
        is_unpacked = "unpacked" in task
        identity: dict[str, Any]
        table = {
            "pairs": [[pair.identity, pair.stem, pair.picture, pair.record, pair.occurrence] for pair in pairs],
            "others": others,
            "problem": index.problem,
            "gzip": index.gzip,
        }
        if is_unpacked:
            members = [entry for pair in pairs for entry in (pair.picture, pair.record) if entry is not None]
            identity = {"files": of_json([[entry[0], entry[2]] for entry in members])}
        else:
            listed = [[member.name, member.offset, member.size] for member in index.members]
            identity = {"size": size, "headers": of_json(listed)}
        return UnitPlan(
            name=name,
            task=task,
            items={"image": len(pairs), "member": len(others)} | ({} if is_unpacked else {"tar": 1}),
            size=size,
            identity=identity,
            image_ids=tuple(pair.identity for pair in pairs if not pair.occurrence),
            payload=jsons.dumps(table, plain=False),
        )

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """The tar itself, the members that are no pair, then the pictures in the order of the tar."""
        table = jsons.loads(unit.payload)
        folder, name = jsons.split(unit.task["path"])
        is_unpacked = "unpacked" in unit.task
        if not is_unpacked:
            yield Item("tar", name, Failed("io_error", table["problem"]) if table["problem"] else None)
        for member, reason, detail in table["others"]:
            yield Item("member", member, Rejected(reason, detail))

        def half() -> Problem:
            if table["problem"]:
                return Failed("io_error", f"{name} is damaged before the other half")
            return Rejected("incomplete_pair", "a picture without its record, or a record without its picture")

        pictures = self._unpacked(unit, table, half) if is_unpacked else self._pictures(unit, table, folder, name, half)
        for picture in pictures:
            picture.license = self.license
            yield picture

    def _unpacked(self, unit: UnitPlan, table: dict[str, Any], half: Callable[[], Problem]) -> Iterator[Picture]:
        folder = Folder(unit.task["path"])
        key = self._key(unit.task["path"])
        for identity, stem, picture, record, occurrence in table["pairs"]:
            name = picture[0] if picture else None
            load = sa1bfolder.loader(folder, name, half)
            load_record = sa1bfolder.loader(folder, record[0] if record else None, half)
            link = sa1bfolder.linker(folder, key, name)
            yield _picture(identity, stem, picture, occurrence, load, load_record, link)

    def _pictures(
        self, unit: UnitPlan, table: dict[str, Any], folder: Folder, name: str, half: Callable[[], Problem]
    ) -> Iterator[Picture]:
        if not table["pairs"]:
            return  # nothing is opened for them: it may be a pipe, or closed to this user
        if table["gzip"]:
            yield from _streamed(table["pairs"], folder, name, half)
            return
        with folder.open(name) as file:
            for identity, stem, picture, record, occurrence in table["pairs"]:
                load = _at_offset(file, name, picture, half)
                link = _linker(unit.name, name, picture)
                yield _picture(identity, stem, picture, occurrence, load, _at_offset(file, name, record, half), link)


@dataclass(slots=True)
class _Pair:
    """A picture and its record; [name, offset, size, whole] each, or None."""

    stem: str
    picture: list[Any] | None = None
    record: list[Any] | None = None
    occurrence: int = 0
    identity: str = ""


def _inside(path: str) -> list[tuple[str, bool]]:
    """The tars directly in a folder, or the folder itself where it is an unpacked one."""
    folder = Folder(path)
    names = [name for name in folder.names() if name.endswith((".tar", ".tar.gz", ".tgz")) and not is_junk(name)]
    if names:
        return [(posixpath.join(path, name), False) for name in names]
    return [(path, True)] if sa1bfolder.holds_pairs(folder) else []


def _index(place: tuple[str, bool]) -> tuple[int, tar.Index | OSError]:
    """Bytes and headers of a tar, or why it cannot be read at all; of an unpacked one its files."""
    path, is_unpacked = place
    if is_unpacked:
        return sa1bfolder.index(Folder(path))
    folder, name = jsons.split(path)
    size = 0
    try:
        size = folder.size(name)
        return size, tar.read_index(folder, name)
    except OSError as error:
        return size, error


def _readable(paths: list[str], indexes: list[tuple[int, tar.Index | OSError]]) -> list[tuple[int, tar.Index]]:
    """A tar that cannot be read costs itself: it has no members, and says why.

    Raises:
        Refused: none of them can be read.
    """
    errors = [(path, index) for path, (_, index) in zip(paths, indexes, strict=True) if isinstance(index, OSError)]
    if errors and len(errors) == len(paths):
        path, error = errors[0]
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error
    return [
        (
            size,
            tar.Index((), False, f"cannot be read ({type(index).__name__})") if isinstance(index, OSError) else index,
        )
        for size, index in indexes
    ]


def _pair(index: tar.Index) -> tuple[list[_Pair], list[tuple[str, str, str]]]:
    """Match pictures with records by stem, in the order of the first member of each; and what is neither."""
    pairs: dict[str, _Pair] = {}
    extra: list[_Pair] = []
    again: Counter[str] = Counter()
    others: list[tuple[str, str, str]] = []
    for member in index.members:
        if member.kind == "folder" or is_junk(member.name):
            continue
        if member.kind == "other":
            others.append((member.name, "unsafe_path", "a link, device or pipe"))
            continue
        try:
            stem, extension = posixpath.splitext(posixpath.basename(safe_name(member.name)))
        except Rejected as problem:
            others.append((member.name, problem.reason, problem.detail))
            continue
        slot = "picture" if extension.lower() in _PICTURES else "record" if extension.lower() == ".json" else None
        if slot is None:
            others.append((member.name, "bad_record", "neither a picture nor a json record"))
            continue
        pair = pairs.setdefault(stem, _Pair(stem))
        entry = [member.name, member.offset, member.size, member.whole]
        if getattr(pair, slot) is None:
            setattr(pair, slot, entry)
        elif slot == "picture":
            again[stem] += 1
            extra.append(_Pair(stem, picture=entry, occurrence=again[stem]))
        else:
            others.append((member.name, "duplicate", "a record of this name came before"))
    found = [*pairs.values(), *extra]
    # `sa_1` and `1` make one id, as do the two ways to write an accent
    for pair, name in zip(found, naming.of_names([pair.stem for pair in found], image_id), strict=True):
        pair.identity = name.identity
    return found, others


def image_id(stem: str) -> str:
    """`sa_223751` to `sa1b/223751`; another stem as it is."""
    number = re.fullmatch(r"sa_(\d+)", stem)
    return ids.image_id("sa1b", number.group(1) if number else stem)


def _at_offset(
    file: IO[bytes], tar_name: str, entry: list[Any] | None, half: Callable[[], Problem]
) -> Callable[[], bytes]:
    def load() -> bytes:
        if entry is None:
            raise half()
        member, offset, size, whole = entry
        if not whole:
            raise Failed("io_error", f"{tar_name} ends inside {member}")
        if size > tar.MAX_MEMBER_BYTES:
            raise Rejected("not_an_image", f"a member of {size} bytes")
        file.seek(offset)
        data = file.read(size)
        if len(data) < size:
            raise Failed("io_error", f"{tar_name} ends inside {member}")
        return data

    return load


def _linker(root: str, tar_name: str, entry: list[Any] | None) -> Callable[[], Link] | None:
    return None if entry is None else lambda: Link(root, tar_name, entry[1], entry[2])


def _streamed(pairs: list[list[Any]], folder: Folder, name: str, half: Callable[[], Problem]) -> Iterator[Picture]:
    """Pictures of a gzip tar in the order of the pairs; members wait in memory for their turn, up to a bound."""
    arrived: dict[int, bytes] = {}
    waiting = 0
    wanted = {entry[1] for _, _, picture, record, _ in pairs for entry in (picture, record) if entry is not None}
    members = tar.stream(folder, name, wanted)

    def fetch(entry: list[Any]) -> bytes:
        nonlocal waiting
        while entry[1] not in arrived:
            try:
                _, offset, data = next(members)
            except StopIteration:
                raise Failed("io_error", f"{name} ends before or inside {entry[0]}") from None
            arrived[offset] = data
            waiting += len(data)
            if waiting > _PENDING_BYTES:
                raise Failed(
                    "out_of_memory", f"pictures and records of {name} lie too far apart to stream: unpack the gzip"
                )
        waiting -= len(arrived[entry[1]])
        return arrived.pop(entry[1])

    for identity, stem, picture, record, occurrence in pairs:
        yield _picture(
            identity, stem, picture, occurrence, _fetcher(fetch, picture, half), _fetcher(fetch, record, half), None
        )
        for entry in (picture, record):  # what a refused picture left behind
            if entry is not None:
                wanted.discard(entry[1])
                waiting -= len(arrived.pop(entry[1], b""))


def _fetcher(
    fetch: Callable[[list[Any]], bytes], entry: list[Any] | None, half: Callable[[], Problem]
) -> Callable[[], bytes]:
    def load() -> bytes:
        if entry is None:
            raise half()
        return fetch(entry)

    return load


def _picture(
    identity: str,
    stem: str,
    entry: list[Any] | None,
    occurrence: int,
    load: Callable[[], bytes],
    load_record: Callable[[], bytes],
    link: Callable[[], Link] | None,
) -> Picture:
    """One picture; its record is read now, its bytes when they are asked for."""
    file = posixpath.normpath(entry[0]) if entry else f"{stem}.jpg"
    picture = Picture(identity, file, load, link, faces_blurred=True, occurrence=occurrence)
    if occurrence:
        picture.problem = Rejected("duplicate", "a picture of this name came before")
    else:
        try:
            if entry is None:
                load()
            _describe(picture, _record(load_record, posixpath.basename(file)))
        except (Rejected, Failed) as problem:
            picture.problem = problem
    return picture


def _record(load: Callable[[], bytes], picture_name: str) -> dict[str, Any]:
    try:
        value = jsons.loads(load())
    except ValueError as error:
        raise Rejected("bad_record", f"the record is not json ({error})"[:200]) from error
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("image"), dict)
        or not isinstance(value.get("annotations"), list)
    ):
        raise Rejected("bad_record", "the record has no `image` or no `annotations`")
    named = value["image"].get("file_name")
    if named is not None and posixpath.basename(str(named)) != picture_name:
        raise Rejected("incomplete_pair", f"the record is of {named!r}"[:200])
    return value


def _describe(picture: Picture, record: dict[str, Any]) -> None:
    size = (record["image"].get("width"), record["image"].get("height"))
    picture.declared_size = None if size == (None, None) else size
    seen: dict[str, int] = {}
    for item in record["annotations"]:
        identity = id_text(item)
        picture.annotations.append(_annotation(item, ids.object_id(picture.image_id, identity), seen.get(identity, 0)))
        seen[identity] = seen.get(identity, 0) + 1


def _annotation(item: Any, object_id: str, occurrence: int) -> Annotation:
    if not isinstance(item, dict) or "id" not in item:
        return Annotation(object_id, problem=Rejected("bad_record", "the annotation has no id"), occurrence=occurrence)
    problem: Problem | None = Rejected("duplicate", "the annotation id came before") if occurrence else None
    return Annotation(
        object_id,
        segmentation=item.get("segmentation"),
        bbox=item.get("bbox"),
        box_px_short=_SIDES_PX_SHORT,
        area=item.get("area"),
        predicted_iou=item.get("predicted_iou"),
        stability_score=item.get("stability_score"),
        source_fields={key: item[key] for key in ("id", "point_coords", "crop_box") if key in item},
        problem=problem,
        occurrence=occurrence,
    )
