"""EasyRef json: a target picture, its texts, and the pictures or the faces that it is made from.

    [{target: path, text: str | [str], image_file: [path] | path},
     {target: path, text: str | [str], face: [[x1, y1, x2, y2, score], ...]}]        or lists of such lists

Every path is one picture and a subject as a whole, however many records name it; faces are objects on the target, in
its pixels. A record is a group. One that is not of this form is a rejected group, and nothing in it is taken. Many
records say the same of one target, so a caption item is a *distinct* text of a picture. A unit is a run of pictures in
order of first appearance, each target before its references, with the groups of the targets among them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from refloom.ingest import jsons
from refloom.ingest.annotationfile import as_float, is_text, json_stem, texts_of
from refloom.ingest.files import PictureFile, find_prefix, occurrences, safe_name, weigh
from refloom.ingest.source import Annotation, Group, Picture, Plan, Record, UnitPlan
from refloom.schemas import ids
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EasyRef:
    """EasyRef json beside a folder of pictures.

    Attributes:
        records: the json; plain or gzip.
        images: folder that its paths are relative to.
        name: first part of the key.
        unit_size: pictures in a unit.
        limit: only the first pictures, and the groups of the targets among them.
    """

    records: str
    images: str
    name: str = "easyref"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    kind: str = "easyref"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the stem of the json."""
        return ids.unit_key(f"{self.name}.{json_stem(self.records)}")

    def roots(self) -> dict[str, str]:
        """The folder of pictures."""
        return {self.key: self.images}

    def plans(self) -> list[Plan]:
        """Parse the json once, gather what its records say of each picture, and cut the pictures into units.

        Raises:
            Refused: the json is no list of records, or the pictures are not where it says.
        """
        document = jsons.load(self.records)
        if not isinstance(document.value, list) or not document.value:
            raise Refused(f"{self.records} is not a list of records with `target`: give the json of this format")
        foreign = not any(isinstance(record, dict) and "target" in record for record in document.value)
        notes = (f"no record of {self.records} has a `target`: is it of this format?",) if foreign else ()
        pictures, groups = _gather(document.value, json_stem(self.records))
        taken = pictures[: self.limit]
        folder = Folder(self.images)
        find_prefix(folder, [picture.path for picture in taken[:20]], [""], "--images")
        starts = range(0, max(1, len(taken)), self.unit_size)
        rows_of_groups: dict[int, list[Any]] = defaultdict(list)
        for group in groups:
            if self.limit is None or group.position < self.limit:
                rows_of_groups[min(group.position // self.unit_size, len(starts) - 1)].append(group.row(taken))
        units = []
        for number, start in enumerate(starts):
            rows = taken[start : start + self.unit_size]
            size, files = weigh(folder, [row.path for row in rows])
            items = {
                "image": len(rows),
                "whole": len(rows),
                "caption": sum(len(texts_of(row.texts)) for row in rows),
                "annotation": sum(len(row.faces) for row in rows),
                "group": len(rows_of_groups[number]),
            }
            slice_ = {
                "pictures": [[row.path, row.occurrence, texts_of(row.texts), row.faces] for row in rows],
                "groups": rows_of_groups[number],
            }
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task={},
                    items=items,
                    size=size,
                    identity={"records": document.sha256, "files": files},
                    image_ids=tuple(row.image_id for row in rows if not row.occurrence),
                    group_ids=tuple(row[0] for row in rows_of_groups[number]),
                    payload=jsons.dumps(slice_, plain=False),
                )
            )
        config = {"source": self.kind, "unit_size": self.unit_size, "limit": self.limit}
        return [Plan(self.key, tuple(units), config, notes)]

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """The pictures of one unit with their texts and faces, then the groups of its targets."""
        folder = Folder(self.images)
        slice_ = jsons.loads(unit.payload)
        for path, occurrence, texts, faces in slice_["pictures"]:
            identity = ids.image_id("easyref", path)
            file = PictureFile(folder, path, self.key)
            yield Picture(
                image_id=identity,
                file=path,
                load=file.load,
                link=file.link,
                captions=[(f"{identity}#caption{number}", text) for number, text in enumerate(texts)],
                annotations=_annotations(identity, faces),
                whole=True,
                problem=Rejected("duplicate", "a path of this name came before") if occurrence else None,
                occurrence=occurrence,
            )
        for group_id, members, target, texts, wrong in slice_["groups"]:
            problem = Rejected("bad_record", wrong) if wrong else None
            yield Group(group_id, "record", members, target, texts, problem)


@dataclass(slots=True)
class _Picture:
    """What all records together say of one path."""

    path: str
    image_id: str
    occurrence: int
    texts: list[Any] = field(default_factory=list)
    faces: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Group:
    """One record: where its pictures stand, the target first, or what is wrong with it.

    The position of a record that is wrong is the number of pictures before it.
    """

    group_id: str
    position: int
    references: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    wrong: str | None = None

    def row(self, taken: list[_Picture]) -> list[Any]:
        """Id, members, target, texts and what is wrong; members beyond the limit are left out."""
        if self.wrong is not None:
            return [self.group_id, [], None, None, self.wrong]
        places = [place for place in (*self.references, self.position) if place < len(taken)]
        members = list(dict.fromkeys(taken[place].image_id for place in places))
        return [self.group_id, members, taken[self.position].image_id, self.texts, None]


def _gather(records: list[Any], stem: str) -> tuple[list[_Picture], list[_Group]]:
    """Pictures in order of first appearance, and the groups of the records."""
    pictures: list[_Picture] = []
    places: dict[str, int] = {}
    seen: Counter[str] = Counter()
    groups = []

    def place(path: str) -> int:
        if path not in places:
            identity = ids.image_id("easyref", path)
            places[path] = len(pictures)
            pictures.append(_Picture(path, identity, seen[identity]))
            seen[identity] += 1
        return places[path]

    for index, record in enumerate(records):
        group_id = f"easyref/{ids.encode(stem)}#{index}"
        try:
            target, references, texts, faces = _parse(record)
        except Rejected as problem:
            wrong = problem.detail if problem.reason == "bad_record" else str(problem)
            groups.append(_Group(group_id, len(pictures), wrong=wrong))
            continue
        position = place(target)
        pictures[position].texts += texts
        pictures[position].faces += faces
        sound = [text for text in texts_of(texts) if is_text(text)]
        groups.append(_Group(group_id, position, [place(path) for path in references], sound))
    return pictures, groups


def _parse(record: Any) -> tuple[str, list[str], list[Any], list[list[Any]]]:
    """Target, references, texts and face boxes of one record.

    Raises:
        Rejected: it is not of the format, or a path leaves the folder.
    """
    if not isinstance(record, dict):
        raise Rejected("bad_record", f"the record is {type(record).__name__}, not an object")
    if record.get("target") is None:
        raise Rejected("bad_record", "the record has no target")
    text, files, face = record.get("text"), record.get("image_file"), record.get("face")
    if not isinstance(text, str | list | None):
        raise Rejected("bad_record", f"text is {type(text).__name__}, neither text nor a list")
    if not isinstance(files, str | list | None):
        raise Rejected("bad_record", f"image_file is {type(files).__name__}, neither text nor a list")
    if files is None and face is None:
        raise Rejected("bad_record", "the record has neither image_file nor face")
    paths = [] if files is None else files if isinstance(files, list) else [files]
    boxes = [] if face is None else _boxes(face)
    texts = text if isinstance(text, list) else [] if text is None else [text]
    return safe_name(record["target"]), [safe_name(path) for path in paths], texts, boxes


def _boxes(face: Any) -> list[list[Any]]:
    """The boxes of a list of boxes (what the published loader reads) or of a list of lists of boxes (its README)."""
    boxes: list[Any] = []
    for entry in face if isinstance(face, list) else []:
        is_deeper = isinstance(entry, list) and any(isinstance(value, list) for value in entry)
        boxes += entry if is_deeper else [entry]
    if not boxes or any(
        not isinstance(box, list) or not box or any(isinstance(value, list) for value in box) for box in boxes
    ):
        raise Rejected("bad_record", "face is neither [[x1, y1, x2, y2, score], ...] nor one level deeper")
    return boxes


def _annotations(image: str, faces: list[list[Any]]) -> list[Annotation]:
    """Faces of one picture; the second of two equal ones, from another record of this target, is a duplicate."""
    numbers: dict[str, int] = {}
    annotations = []
    for box, occurrence in zip(faces, occurrences(map(repr, faces)), strict=True):
        number = numbers.setdefault(repr(box), len(numbers))
        annotations.append(
            Annotation(
                object_id=ids.object_id(image, f"face{number}"),
                bbox=[as_float(value) for value in box[:4]],
                box_is_xyxy=True,
                kind="face",
                confidence=as_float(box[4]) if len(box) > 4 else None,
                needs_mask=False,
                problem=Rejected("duplicate", "another record has this face") if occurrence else None,
                occurrence=occurrence,
            )
        )
    return annotations
