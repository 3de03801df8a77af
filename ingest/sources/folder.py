"""Plain pictures: a folder, a tar, or lines of json.

    DIR          pictures at any depth
    FILE.tar     members that are pictures; read by offset, never unpacked
    FILE.jsonl   lines that name pictures and caption them, see `refloom.ingest.captionlines`; FILE.csv too

Captions of a folder or tar come from the metadata.jsonl, .csv or .parquet in any of its folders (Hugging Face's
ImageFolder), of which the nearest to a picture counts, and from the text and json beside each picture (kohya,
SimpleTuner, img2dataset, webdataset), see `ingest.companions`. Every picture is a subject as a whole. A line that names
no picture costs itself: it is a rejected record. A unit is a run of pictures.
"""

import io
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO

from refloom.ingest import captioned, captionlines, jsons, tar
from refloom.ingest.captioned import Found, Named
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
_FORMS = {".tar": "tar", ".tgz": "tar", ".tar.gz": "tar", ".jsonl": "lines", ".ndjson": "lines", ".csv": "lines"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPictures:
    """A folder, a tar, or lines that name pictures.

    Attributes:
        path: the folder, tar (`.tar`), JSONL (`.jsonl`, `.ndjson`) or CSV.
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
            raise Refused(
                f"{self.path} is no folder, no .tar, no .jsonl and no .csv with pictures in it{found.nothing}"
            )
        pictures = found.pictures[: self.limit]
        counts = occurrences(_image_id(picture.name) for picture in pictures)
        others = Counter(kind for kind, *_ in found.items)
        units = []
        for number, start in enumerate(range(0, len(pictures), self.unit_size)):
            rows = pictures[start : start + self.unit_size]
            items = {"image": len(rows), "whole": len(rows)}
            if not any(row.beside for row in rows):  # what lies beside pictures is read with them
                items["caption"] = sum(len(row.said.texts) for row in rows)
            if form == "tar":
                size, files = sum(row.place[1] for row in rows if row.place), None
            else:
                size, files = weigh(self._base(), [name for row in rows for name in (row.name, *row.beside)])
            slice_ = {
                "items": found.items if number == 0 else [],
                "pictures": [[row.payload(), counts[start + index]] for index, row in enumerate(rows)],
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

            def load(name: str, place: tuple[int, int] | None) -> bytes:
                return PictureFile(base, name, self.key).load()

            for payload, occurrence in slice_["pictures"]:
                named = Named.of(payload)
                file = PictureFile(base, named.name, self.key)
                picture = _picture(named.name, occurrence, file.load, file.linker)
                yield from captioned.records(picture, named.said, named.beside, load, lines=True)
            return
        tar_name = posixpath.basename(self.path)
        with base.open(tar_name) as opened:
            member = partial(_read_member, opened, tar_name)
            for payload, occurrence in slice_["pictures"]:
                named = Named.of(payload)
                assert named.place is not None
                link = partial(Link, self.key, tar_name, *named.place)
                picture = _picture(named.name, occurrence, partial(member, named.name, named.place), link)
                yield from captioned.records(picture, named.said, named.beside, member, lines=False)


def _in_folder(path: str) -> Found:
    folder = Folder(path)
    names, others = picture_names(folder)
    found = Found([Named(name) for name in names])
    taken = captioned.say(
        found,
        others,
        lambda name: captionlines.read(folder, name),
        lambda name: PictureFile(folder, name, "").load(),
    )
    found.notes += passed_over([name for name in others if name not in taken], path)
    if any(name.endswith(".tar") for name in others):
        found.nothing = ": it holds tars, so give them one by one"
    return found


def _in_lines(path: str) -> Found:
    folder, name = jsons.split(path)
    lines = captionlines.read(folder, name)
    pictures = [Named(picture, said) for _, picture, said in lines.pictures]
    find_prefix(folder, [picture.name for picture in pictures[:20]], [""], f"what the paths in {name} are relative to")
    nothing = f" (line 1: {lines.wrong[0][3]})" if lines.wrong else ""
    notes = [note for note in [lines.note(name)] if note]
    return Found(pictures, lines.wrong, notes, {"lines": lines.digest}, nothing)


def _in_tar(path: str) -> Found:
    folder, name = jsons.split(path)
    try:
        size, index = folder.size(name), tar.read_index(folder, name)
        if index.gzip:
            raise Refused(f"{path} is a gzip tar, of which no member can be read alone: unpack the gzip first")
        if not index.members:  # a pipe has none, and would keep whoever opens it waiting
            return Found([], nothing=f" ({index.problem or 'the tar is empty'})")
        with folder.open(name) as file:
            members = [(member, _is_picture(member, file)) for member in index.members if not is_junk(member.name)]
            found = Found([], [("tar", table_name(name), "io_error" if index.problem else None, index.problem or "")])
            _sort_members(found, members, partial(_read_member, file, name), path)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error
    found.identity |= {
        "size": size,
        "headers": of_json([[member.name, member.offset, member.size] for member in index.members]),
    }
    found.nothing = f" ({index.problem})" if index.problem else ""
    return found


def _sort_members(
    found: Found, members: list[tuple[tar.Member, bool]], load: Callable[[str, tuple[int, int]], bytes], path: str
) -> None:
    """Members that are pictures, what is said of these, and what is neither."""
    others: dict[str, tuple[int, int]] = {}
    for member, is_picture in members:
        try:
            if member.kind == "other":
                raise Rejected("unsafe_path", "a link, device or pipe")
            safe_name(ids.encode(member.name))
        except Rejected as problem:
            found.items.append(("member", table_name(member.name), problem.reason, problem.detail))
            continue
        name = posixpath.normpath(member.name)
        if is_picture:
            found.pictures.append(Named(name, place=(member.offset, member.size)))
        elif member.kind == "file":
            others.setdefault(name, (member.offset, member.size))

    def read(table: str) -> captionlines.Lines:
        try:
            return captionlines.parse(io.BytesIO(load(table, others[table])), table, f"{path}/{table}")
        except (Rejected, Failed) as problem:
            raise Refused(f"{table} in {path} cannot be read ({problem}): fetch the tar again") from problem

    taken = captioned.say(found, list(others), read, lambda name: load(name, others[name]), samples=True)
    for picture in found.pictures:
        picture.beside = {name: others[name] for name in picture.beside}
    found.notes += passed_over([name for name in others if name not in taken], path)


def _is_picture(member: tar.Member, file: IO[bytes]) -> bool:
    if member.kind != "file" or named_like_picture(member.name):
        return member.kind == "file"
    file.seek(member.offset)
    return headers.looks_like_picture(file.read(min(member.size, 16)))


def _read_member(file: IO[bytes], tar_name: str, name: str, place: tuple[int, int]) -> bytes:
    offset, size = place
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


def _picture(name: str, occurrence: int, load: Callable[[], bytes], link: Callable[[], Link] | None) -> Picture:
    return Picture(
        image_id=_image_id(name),
        file=table_name(name),
        load=load,
        link=link,
        whole=True,
        problem=Rejected("duplicate", "a picture of this name came before") if occurrence else None,
        occurrence=occurrence,
    )
