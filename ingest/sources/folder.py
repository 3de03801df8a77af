"""Plain pictures: a folder, a tar, or lines of json.

    DIR          pictures at any depth; captions from its metadata.jsonl (Hugging Face's ImageFolder), if there is one
    FILE.tar     members that are pictures; read by offset, never unpacked
    FILE.jsonl   {file_name | file | image | path: relative to the file's folder,
                  text | caption | captions | prompt: str | [str]}

Every picture is a subject as a whole. A line that names no picture costs itself: it is a rejected record. A unit is a
run of pictures.
"""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from refloom.ingest import jsons, tar
from refloom.ingest.annotationfile import texts_of
from refloom.ingest.files import (
    PictureFile,
    find_prefix,
    is_junk,
    named_like_picture,
    occurrences,
    passed_over,
    picture_names,
    safe_name,
    stem,
    table_name,
    weigh,
)
from refloom.ingest.source import Item, Link, Picture, Plan, Record, UnitPlan
from refloom.schemas import headers, ids
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.fingerprint import of_json
from refloom.schemas.reasons import FAILED
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 1000
METADATA = "metadata.jsonl"
_NAMES = ("file_name", "file", "image", "path")
_TEXTS = ("text", "caption", "captions", "prompt")
_FORMS = {".tar": "tar", ".tgz": "tar", ".tar.gz": "tar", ".jsonl": "lines", ".ndjson": "lines"}
_Item = tuple[str, str, str | None, str]
"""Kind, id, reason and detail of what is no picture; the reason is None for what is sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPictures:
    """A folder, a tar or a JSONL of pictures.

    Attributes:
        path: the folder, tar (`.tar`) or JSONL (`.jsonl`, `.ndjson`).
        name: first part of the key.
        unit_size: pictures in a unit.
        limit: only the first pictures.
    """

    path: str
    name: str = "folder"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    kind: str = "folder"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the name of the folder, or the stem of the file."""
        return ids.unit_key(f"{self.name}.{stem(self.path)}")

    @property
    def _form(self) -> str:
        folder = Folder(self.path)
        if folder.is_local and os.path.isdir(folder.root):
            return "folder"
        return next((form for end, form in _FORMS.items() if self.path.lower().endswith(end)), "folder")

    def _base(self) -> Folder:
        """What the names of pictures are relative to; of a tar, the folder that it lies in."""
        return Folder(self.path) if self._form == "folder" else jsons.split(self.path)[0]

    def roots(self) -> dict[str, str]:
        """The folder that was given, or that the file lies in."""
        return {self.key: self._base().url}

    def plans(self) -> list[Plan]:
        """List the pictures and cut them into units.

        Raises:
            Refused: there are no pictures, or the tar is compressed.
        """
        form = self._form
        found = {"folder": _in_folder, "tar": _in_tar, "lines": _in_lines}[form](self.path)
        if not found.pictures:
            raise Refused(f"{self.path} is no folder, no .tar and no .jsonl with pictures in it{found.nothing}")
        pictures = found.pictures[: self.limit]
        counts = occurrences(_image_id(picture.name) for picture in pictures)
        others = Counter(kind for kind, *_ in found.items)
        units = []
        for number, start in enumerate(range(0, len(pictures), self.unit_size)):
            rows = pictures[start : start + self.unit_size]
            items = {"image": len(rows), "whole": len(rows), "caption": sum(len(row.texts) for row in rows)}
            if form == "tar":
                size, files = sum(row.place[1] for row in rows if row.place), None
            else:
                size, files = weigh(self._base(), [row.name for row in rows])
            slice_ = {
                "items": found.items if number == 0 else [],
                "pictures": [[row.name, row.texts, row.place, counts[start + index]] for index, row in enumerate(rows)],
            }
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task={"form": form},
                    items=items | (others if number == 0 else {}),
                    size=size,
                    identity=found.identity | {"files": files},
                    image_ids=tuple(dict.fromkeys(_image_id(row.name) for row in rows)),
                    payload=jsons.dumps(slice_, plain=False),
                )
            )
        config = {"source": self.kind, "unit_size": self.unit_size, "limit": self.limit}
        return [Plan(self.key, tuple(units), config, tuple(found.notes))]

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """What is no picture, then the pictures."""
        slice_ = jsons.loads(unit.payload)
        for kind, item, reason, detail in slice_["items"]:
            problem = Failed(reason, detail) if reason in FAILED else Rejected(reason, detail) if reason else None
            yield Item(kind, item, problem)
        base = self._base()
        if unit.task["form"] != "tar":
            for name, texts, _, occurrence in slice_["pictures"]:
                file = PictureFile(base, name, self.key)
                yield _picture(name, texts, occurrence, file.load, file.linker)
            return
        tar_name = posixpath.basename(self.path)
        with base.open(tar_name) as opened:
            for name, texts, (offset, size), occurrence in slice_["pictures"]:
                load = partial(_read_member, opened, tar_name, name, offset, size)
                yield _picture(name, texts, occurrence, load, partial(Link, self.key, tar_name, offset, size))


@dataclass(frozen=True, slots=True)
class _Named:
    """One picture as it is listed; `place` is its offset and size in a tar."""

    name: str
    texts: list[Any] = field(default_factory=list)
    place: tuple[int, int] | None = None


@dataclass(slots=True)
class _Found:
    """What lies in a folder, tar or JSONL; `nothing` says why there might be no pictures."""

    pictures: list[_Named]
    items: list[_Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identity: dict[str, Any] = field(default_factory=dict)
    nothing: str = ""


def _in_folder(path: str) -> _Found:
    folder = Folder(path)
    names, others = picture_names(folder)
    found = _Found([])
    texts: dict[str, list[Any]] = {}
    if METADATA in others:
        others.remove(METADATA)
        lines, found.items, digest = _lines(folder, METADATA)
        found.identity = {"lines": digest}
        known = {_image_id(name) for name in names}
        for number, line in lines:
            identity, item = _image_id(line.name), f"{METADATA}#{number}"
            if identity not in known:
                found.items.append(("record", item, "no_image", f"{line.name!r} is not in the folder"[:200]))
            elif identity in texts:
                found.items.append(("record", item, "duplicate", "a line of this picture came before"))
            else:
                texts[identity] = line.texts
    found.pictures = [_Named(name, texts.get(_image_id(name), [])) for name in names]
    found.notes = passed_over(others, path)
    return found


def _in_lines(path: str) -> _Found:
    folder, name = jsons.split(path)
    lines, items, digest = _lines(folder, name)
    pictures = [picture for _, picture in lines]
    find_prefix(folder, [picture.name for picture in pictures[:20]], [""], f"what the paths in {name} are relative to")
    nothing = f" (line 1: {items[0][3]})" if items else ""
    return _Found(pictures, items, identity={"lines": digest}, nothing=nothing)


def _lines(folder: Folder, name: str) -> tuple[list[tuple[int, _Named]], list[_Item], str]:
    """Numbered lines that name a picture, those that do not as rejected records, and the file's sha256."""
    digest = hashlib.sha256()
    lines: list[tuple[int, _Named]] = []
    wrong: list[_Item] = []
    try:
        with folder.open(name) as file:
            for number, line in enumerate(jsons.lines(file), 1):
                digest.update(line)
                try:
                    lines += [(number, _named(line))] if line.strip() else []
                except Rejected as problem:
                    wrong.append(("record", f"{table_name(name)}#{number}", problem.reason, problem.detail))
    except OSError as error:
        raise Refused(f"{folder.url}/{name} cannot be read: {error.strerror or error}") from error
    return lines, wrong, digest.hexdigest()


def _named(line: bytes) -> _Named:
    if len(line) > jsons.MAX_LINE_BYTES:
        raise Rejected("bad_record", f"the line has more than {jsons.MAX_LINE_BYTES} bytes")
    try:
        record = jsons.loads(line)
    except ValueError as error:
        raise Rejected("bad_record", f"the line is not json ({error})"[:200]) from error
    if not isinstance(record, dict):
        raise Rejected("bad_record", f"the line is {type(record).__name__}, not an object")
    key = next((key for key in _NAMES if key in record), None)
    if key is None:
        raise Rejected("bad_record", f"the line has none of {', '.join(_NAMES)}")
    texts = [text for kind in _TEXTS for text in texts_of(record.get(kind))]
    return _Named(safe_name(record[key]), texts_of(texts))


def _in_tar(path: str) -> _Found:
    folder, name = jsons.split(path)
    try:
        size, index = folder.size(name), tar.read_index(folder, name)
        if index.gzip:
            raise Refused(f"{path} is a gzip tar, of which no member can be read alone: unpack the gzip first")
        if not index.members:  # a pipe has none, and would keep whoever opens it waiting
            return _Found([], nothing=f" ({index.problem or 'the tar is empty'})")
        with folder.open(name) as file:
            members = [(member, _is_picture(member, file)) for member in index.members if not is_junk(member.name)]
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error
    found = _Found([], [("tar", table_name(name), "io_error" if index.problem else None, index.problem or "")])
    found.identity["size"] = size
    others = []
    for member, is_picture in members:
        try:
            if member.kind == "other":
                raise Rejected("unsafe_path", "a link, device or pipe")
            safe_name(ids.encode(member.name))
        except Rejected as problem:
            found.items.append(("member", table_name(member.name), problem.reason, problem.detail))
            continue
        if is_picture:
            found.pictures.append(_Named(posixpath.normpath(member.name), place=(member.offset, member.size)))
        elif member.kind == "file":
            others.append(member.name)
    found.notes = passed_over(others, path)
    found.identity["headers"] = of_json([[member.name, member.offset, member.size] for member in index.members])
    found.nothing = f" ({index.problem})" if index.problem else ""
    return found


def _is_picture(member: tar.Member, file: IO[bytes]) -> bool:
    if member.kind != "file" or named_like_picture(member.name):
        return member.kind == "file"
    file.seek(member.offset)
    return headers.looks_like_picture(file.read(min(member.size, 16)))


def _read_member(file: IO[bytes], tar_name: str, name: str, offset: int, size: int) -> bytes:
    if size > tar.MAX_MEMBER_BYTES:
        raise Rejected("not_an_image", f"a member of {size} bytes")
    try:
        file.seek(offset)
        data = file.read(size)
    except OSError as error:
        raise Failed("io_error", f"{tar_name}: {type(error).__name__}") from error
    if len(data) < size:
        raise Failed("io_error", f"{tar_name} ends inside {name}")
    return data


def _image_id(name: str) -> str:
    return ids.image_id("folder", *name.split("/"))


def _picture(
    name: str, texts: list[Any], occurrence: int, load: Callable[[], bytes], link: Callable[[], Link] | None
) -> Picture:
    identity = _image_id(name)
    return Picture(
        image_id=identity,
        file=table_name(name),
        load=load,
        link=link,
        captions=[(f"{identity}#caption{number}", text) for number, text in enumerate(texts)],
        whole=True,
        problem=Rejected("duplicate", "a picture of this name came before") if occurrence else None,
        occurrence=occurrence,
    )
