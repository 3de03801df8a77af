"""One folder of pictures per subject: DreamBooth, Concept101, a folder of people.

    <folder>/<picture>, maybe deeper    prompts_and_classes.txt (DreamBooth): lines `subject_name,class`

Captions come from ImageFolder's tables and from what lies beside pictures, as for `folder`. Every picture is a subject
as a whole, and every folder a group. A unit is a run of whole folders.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refloom.ingest import captioned, captionlines, jsons
from refloom.ingest.annotationfile import is_text
from refloom.ingest.captioned import Found, Named
from refloom.ingest.files import PictureFile, occurrences, passed_over, picture_names, stem, table_name, weigh
from refloom.ingest.source import Group, Item, Picture, Plan, Record, UnitPlan
from refloom.schemas import ids
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder
from refloom.schemas.wording import some

DEFAULT_UNIT_SIZE = 1000
CLASSES_FILE = "prompts_and_classes.txt"
_CLASSES_HEADER = "subject_name,class"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """A folder of subject folders.

    Attributes:
        directory: holds one folder per subject; those whose name begins with `_` or `.` are passed over.
        phrase_from_folder: the folder's name is the subject's phrase (`duck_toy` is a `duck toy`, `dog6` a `dog`).
        name: first part of the key.
        unit_size: a unit takes whole folders until it holds this many pictures.
        limit: only the first pictures.
    """

    directory: str
    phrase_from_folder: bool = False
    name: str = "subjects"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    kind: str = "subjects"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the name of the folder."""
        return ids.unit_key(f"{self.name}.{stem(self.directory)}")

    def roots(self) -> dict[str, str]:
        """The folder that was given."""
        return {self.key: self.directory}

    def plans(self) -> list[Plan]:
        """List the folders and pack them into units.

        Raises:
            Refused: there is no folder with a picture in it.
        """
        folder = Folder(self.directory)
        classes, digest, notes = _classes(folder)
        subjects, found = self._subjects(folder)
        named = {picture.name: picture for picture in found.pictures}
        others = Counter(kind for kind, *_ in found.items)
        counts = iter(occurrences(_image_id(path) for _, paths in subjects for path in paths))
        repeats = occurrences(ids.encode(title) for title, _ in subjects)
        entries = [
            {
                "folder": title,
                "category": classes.get(title),
                "occurrence": repeat,
                "pictures": [[named[path].payload(), next(counts)] for path in paths],
            }
            for (title, paths), repeat in zip(subjects, repeats, strict=True)
        ]
        units = []
        for number, packed in enumerate(self._packed(entries)):
            paths = [payload[0] for entry in packed for payload, _ in entry["pictures"]]
            size, files = weigh(folder, [name for path in paths for name in (path, *named[path].beside)])
            items = {"image": len(paths), "whole": len(paths), "group": len(packed)}
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task={"items": found.items if number == 0 else []},
                    items=items | (others if number == 0 else {}),
                    size=size,
                    identity={"files": files, "classes": digest} | found.identity,
                    image_ids=tuple(dict.fromkeys(_image_id(path) for path in paths)),
                    group_ids=tuple(ids.image_id("subjects", entry["folder"]) for entry in packed),
                    payload=jsons.dumps(packed, plain=False),
                )
            )
        config = {
            "source": self.kind,
            "unit_size": self.unit_size,
            "limit": self.limit,
            "phrase_from_folder": self.phrase_from_folder,
        }
        return [Plan(self.key, tuple(units), config, (*notes, *found.notes))]

    def _subjects(self, folder: Folder) -> tuple[list[tuple[str, list[str]]], Found]:
        """Each subject's folder and the pictures in it, up to the limit; and what is said of them and of the rest."""
        subjects, hidden, empty, others = [], [], [], []
        found = Found([])
        left = self.limit
        for title in folder.folders():
            if title.startswith(("_", ".")):
                hidden.append(table_name(title))
                continue
            if left is not None and left <= 0:
                break
            pictures, rest = picture_names(folder, title)
            others += rest
            found.pictures += [Named(picture) for picture in pictures]
            if pictures:
                subjects.append((title, pictures[:left]))
                left = None if left is None else left - len(pictures)
            else:
                empty.append(table_name(title))
        loose, files = picture_names(folder, recursive=False)
        if not subjects:
            raise Refused(
                f"{self.directory} has no folder with pictures in it: give a folder of subject folders, "
                "or use `refloom ingest folder` for pictures that are in no groups"
            )
        notes = [f"folders that begin with _ or . were passed over: {some(hidden)}"] if hidden else []
        notes += [f"folders without a picture were passed over: {some(empty)}"] if empty else []
        nested = [title for title, pictures in subjects if all(path.count("/") > 1 for path in pictures)]
        if nested:
            notes.append(
                f"{len(nested)} of {len(subjects)} folders hold pictures in subfolders only, each was taken as one "
                f"subject: if every subfolder is a subject, give {self.directory}/{table_name(nested[0])}"
            )
        notes += [f"{len(loose):,} pictures lie in no subject's folder and were passed over"] if loose else []
        others += [name for name in files if name != CLASSES_FILE]
        taken = captioned.say(
            found,
            others,
            lambda name: captionlines.read(folder, name),
            lambda name: PictureFile(folder, name, "").load(),
        )
        found.notes = notes + found.notes + passed_over([name for name in others if name not in taken], self.directory)
        return subjects, found

    def _packed(self, entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        units: list[list[dict[str, Any]]] = []
        filled = self.unit_size
        for entry in entries:
            if filled >= self.unit_size:
                units.append([])
                filled = 0
            units[-1].append(entry)
            filled += len(entry["pictures"])
        return units

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """The pictures of each folder, then the group that they are."""
        folder = Folder(self.directory)
        for kind, item, reason, detail in unit.task["items"]:
            yield Item(kind, item, Rejected(reason, detail))

        def load(name: str, place: tuple[int, int] | None) -> bytes:
            return PictureFile(folder, name, self.key).load()

        for entry in jsons.loads(unit.payload):
            phrase = _phrase(entry["folder"]) if self.phrase_from_folder else None
            for payload, occurrence in entry["pictures"]:
                named = Named.of(payload)
                file = PictureFile(folder, named.name, self.key)
                picture = Picture(
                    image_id=_image_id(named.name),
                    file=table_name(named.name),
                    load=file.load,
                    link=file.linker,
                    whole=True,
                    whole_category=entry["category"],
                    whole_phrase=phrase,
                    problem=Rejected("duplicate", "a picture of this name came before") if occurrence else None,
                    occurrence=occurrence,
                )
                yield from captioned.records(picture, named.said, named.beside, load, lines=True)
            yield Group(
                group_id=ids.image_id("subjects", entry["folder"]),
                kind="folder",
                members=list(dict.fromkeys(_image_id(payload[0]) for payload, _ in entry["pictures"])),
                problem=Rejected("duplicate", "a folder of this name came before") if entry["occurrence"] else None,
            )


def _image_id(path: str) -> str:
    return ids.image_id("subjects", *path.split("/"))


def _classes(folder: Folder) -> tuple[dict[str, str], str | None, list[str]]:
    """Class by folder from DreamBooth's file, its sha256, and a note if it has no such section."""
    try:
        data = folder.read(CLASSES_FILE)
    except OSError:
        return {}, None, []
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    digest = hashlib.sha256(data).hexdigest()
    if _CLASSES_HEADER not in lines:
        return {}, digest, [f"{CLASSES_FILE} has no line `{_CLASSES_HEADER}`: the subjects have no category"]
    classes = {}
    for line in lines[lines.index(_CLASSES_HEADER) + 1 :]:
        title, comma, category = line.partition(",")
        if not comma:
            break
        classes[title.strip()] = category.strip()
    return {title: category for title, category in classes.items() if category}, digest, []


def _phrase(folder: str) -> str | None:
    """`duck_toy` to `duck toy`, `dog6` to `dog`; None where nothing is left."""
    words = re.sub(r"[\s\d]+$", "", folder.replace("_", " ")).strip()
    return words if is_text(words) else None
