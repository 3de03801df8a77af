"""COCO 2014 and 2017: instances and captions.

    {images: [{id, file_name, width, height, license, flickr_url, coco_url}], annotations: [{id, image_id, category_id,
     bbox [x, y, w, h], area, iscrowd, segmentation: polygons | {size, counts}}], categories: [{id, name}], licenses}
    captions: annotations: [{id, image_id, caption}]

Relatives are taken too: LVIS (no file_name), SA-Co (a record of a picture for each phrase, `text_input`), LIVECell (two
records of one file); panoptic json is refused. A unit is a run of images in the order of the file. Both json files are
parsed once, on the driver; a worker gets its slice.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refloom.ingest import crowds, jsons, naming, records
from refloom.ingest.annotationfile import (
    category_names,
    id_text,
    json_stem,
    license_names,
    object_of_lists,
    split_in,
    text_or_none,
)
from refloom.ingest.files import PictureFile, safe_name, total_bytes
from refloom.ingest.naming import Named
from refloom.ingest.references import References, exact, text
from refloom.ingest.source import Annotation, Item, Picture, Plan, Problem, Record, UnitPlan
from refloom.schemas import ids
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Coco:
    """COCO json beside a folder of pictures.

    Attributes:
        images: folder of pictures; the usual layouts below it are found.
        instances: annotation json; plain or gzip.
        captions: captions json of the same pictures.
        name: first part of the key.
        unit_size: pictures in a unit.
        limit: only the first pictures of the file.
        crowds: what becomes of annotations with `iscrowd`; see `refloom.ingest.crowds`.
    """

    images: str
    instances: str
    captions: str | None = None
    name: str = "coco"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    crowds: str = crowds.REJECT
    kind: str = "coco"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the stem of the annotation file."""
        return ids.unit_key(f"{self.name}.{json_stem(self.instances)}")

    def roots(self) -> dict[str, str]:
        """The folder of pictures."""
        return {self.key: self.images}

    def plans(self) -> list[Plan]:
        """Parse the json files and cut them into units.

        Raises:
            Refused: a file is not COCO json, or the pictures are not where it says.
        """
        document = jsons.load(self.instances)
        root = object_of_lists(document.value, self.instances, {"images": "pictures", "annotations": "annotations"})
        if not root["images"]:
            raise Refused(f"{self.instances} lists no images: nothing to ingest")
        if any(isinstance(item, dict) and "caption" in item for item in root["annotations"][:1]):
            raise Refused(
                f"{self.instances} holds captions: give it as --captions, and the instances json as --instances"
            )
        records.refuse_panoptic(root["annotations"], self.instances, "the instances json of the same pictures")
        categories = category_names(root, self.instances)
        captions = self._captions()
        images = root["images"][: self.limit]
        prefix, levels = self._place(images)

        names = _image_ids(root["images"])
        owner = References(
            (image.get("id"), row) for row, image in enumerate(root["images"]) if isinstance(image, dict)
        )
        joined = records.joined(images, levels)
        of_file: dict[int, list[int]] = defaultdict(list)  # the first record of a file to those that join it
        for row, first in joined.items():
            of_file[first].append(row)
        by_image, strays = _assign(root["annotations"], owner, joined)
        listed = captions.value["annotations"] if captions else []
        captions_by_image, stray_captions = _assign(listed, owner, joined)
        if listed and len(stray_captions) == len(listed):
            raise Refused(
                f"none of the {len(listed):,} captions in {self.captions} is of a picture in {self.instances}: "
                "give the captions of the same split"
            )

        shared = {
            "prefix": prefix,
            "levels": levels,
            "categories": categories,
            "licenses": license_names(root),
            "split": split_in(self.instances),
        }
        identity = {"instances": document.sha256, "captions": captions.sha256 if captions else None}
        plain = document.plain and (captions is None or captions.plain)
        seen = _Seen(levels)
        called = {
            row: naming.of_annotations([item for item, _ in by_image[row]])
            for row in range(len(images))
            if row in by_image
        }
        units = []
        for number, start in enumerate(range(0, len(images), self.unit_size)):
            rows = range(start, min(start + self.unit_size, len(images)))
            own_strays = [(item, seen.stray(item)) for item in strays] if number == 0 else []
            own_stray_captions = stray_captions if number == 0 else []
            slice_ = {
                "images": [
                    {
                        "record": images[row],
                        "identity": names[row],
                        "occurrence": seen.picture(images[row]),
                        "annotations": [
                            (item, list(name), 0 if own == row else 1 + of_file[row].index(own))
                            for (item, own), name in zip(by_image[row], called.get(row, ()), strict=True)
                        ],
                        "captions": [item for item, _ in captions_by_image[row]],
                        "joined": names[joined[row]] if row in joined else None,
                        "said": [records.said_of_annotations(images[one]) for one in (row, *of_file.get(row, ()))],
                    }
                    for row in rows
                ],
                "strays": own_strays,
                "stray_captions": own_stray_captions,
            }
            items = {
                "image": len(rows),
                "annotation": sum(len(by_image[row]) for row in rows) + len(own_strays),
                "caption": sum(len(captions_by_image[row]) for row in rows) + len(own_stray_captions),
            }
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task=shared,
                    items=items,
                    size=self._bytes(prefix, levels, [images[row] for row in rows]),
                    identity=identity,
                    image_ids=tuple(
                        dict.fromkeys(
                            names[row] for row in rows if _id_of(images[row]) is not None and row not in joined
                        )
                    ),
                    payload=jsons.dumps(slice_, plain=plain),
                )
            )
        config = {"source": self.kind, "unit_size": self.unit_size, "limit": self.limit, "prefix": prefix}
        pairs = (
            (item, name) for row, own in called.items() for (item, _), name in zip(by_image[row], own, strict=True)
        )
        notes = [*crowds.notes(root["annotations"], self.crowds), *naming.notes(pairs, "annotations", "picture")]
        return [Plan(self.key, tuple(units), config | crowds.setting(self.crowds), tuple(notes))]

    def _captions(self) -> jsons.Document | None:
        if self.captions is None:
            return None
        document = jsons.load(self.captions)
        root = object_of_lists(document.value, self.captions, {"annotations": "captions"})
        listed = root["annotations"]
        records.refuse_panoptic(listed, self.captions, "the captions json of the same pictures")
        if listed and not any(isinstance(item, dict) and "caption" in item for item in listed):
            raise Refused(f"{self.captions} holds no captions: give the captions json of the same pictures")
        return document

    def _place(self, images: list[Any]) -> tuple[str, int]:
        stem = json_stem(self.instances)
        year = re.search(r"(train|val|test)(20\d\d)", stem)
        guesses = ["", *([year.group(0)] if year else []), "images", *([f"images/{year.group(0)}"] if year else [])]
        return records.place(Folder(self.images), images[:50], guesses, "--images")

    def _bytes(self, prefix: str, levels: int, images: list[Any]) -> int:
        names = [records.file_name(image, levels) for image in images]
        return total_bytes(Folder(self.images).below(prefix), names)

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """Pictures of one unit with their annotations and captions, then what belongs to no picture."""
        folder = Folder(self.images)
        slice_ = jsons.loads(unit.payload)
        for item in slice_["strays"]:
            record, occurrence = item
            yield Item("annotation", f"coco#{id_text(record)}", _stray_problem(record), occurrence=occurrence)
        for record in slice_["stray_captions"]:
            yield Item("caption", f"coco#{id_text(record)}", _stray_problem(record))
        for entry in slice_["images"]:
            if entry["joined"] is not None:
                what = f"another record of this file came before: what lies on it is with {entry['joined']}"
                yield Item("image", entry["identity"], Rejected("duplicate", what), occurrence=1)
            else:
                yield self._picture(entry, unit.task, folder)

    def _picture(self, entry: dict[str, Any], task: dict[str, Any], folder: Folder) -> Picture:
        record, identity = entry["record"], entry["identity"]
        problem: Problem | None = None
        name = ""
        if _id_of(record) is None:
            problem, record = Rejected("bad_record", "the image record has no id"), {}
        else:
            try:
                name = safe_name(records.file_name(record, task["levels"]))
            except Rejected as rejected:
                problem = rejected
        if entry["occurrence"]:
            problem = Rejected("duplicate", "the id or file came before")
        file = PictureFile(folder, posixpath.join(task["prefix"], name), self.key)
        size = (record.get("width"), record.get("height"))
        return Picture(
            image_id=identity,
            file=name or str(records.file_name(record))[:200],
            load=file.load,
            link=file.link,
            declared_size=None if size == (None, None) else size,
            captions=[(f"{identity}#caption{id_text(item)}", _caption_text(item)) for item in entry["captions"]],
            annotations=[
                self._annotation(item, Named(*called), identity, task, entry["said"], place)
                for item, called, place in entry["annotations"]
            ],
            split=task["split"],
            license=task["licenses"].get(record.get("license")),
            source_url=text_or_none(record.get("flickr_url")) or text_or_none(record.get("coco_url")),
            problem=problem,
            occurrence=entry["occurrence"],
        )

    def _annotation(
        self,
        record: dict[str, Any],
        called: Named,
        owner: str,
        task: dict[str, Any],
        said: list[dict[str, Any]],
        place: int,
    ) -> Annotation:
        about = said[place]  # of several records of one file, its own
        box, area = records.in_pixels(record, about)
        category = task["categories"].get(record.get("category_id"))
        problem: Problem | None = None
        if called.occurrence:
            problem = Rejected("duplicate", "the same annotation came before, word for word")
        elif record.get("iscrowd") and self.crowds != crowds.KEEP:
            problem = Rejected("crowd")
        elif category is None:
            problem = Rejected("unknown_category", f"category_id {record.get('category_id')!r}"[:80])
        return Annotation(
            object_id=f"{owner}#{called.identity}",
            segmentation=record.get("segmentation"),
            bbox=box,
            area=area,
            declared_size=tuple(about["size"]) if len(said) > 1 and about["size"] else None,
            category=category,
            phrase=records.phrase_of(record, about),
            needs_mask=False,
            needs_box=False,
            source_fields={
                key: value
                for key, value in record.items()
                if key not in ("segmentation", "bbox", "image_id") and (key != "id" or exact(value) is not None)
            },
            problem=problem,
            occurrence=called.occurrence,
        )


class _Seen:
    """Counts ids as they come, so that the second picture of one id or file is known as such."""

    def __init__(self, levels: int) -> None:
        self._levels = levels
        self._counts: dict[tuple[str, Any], int] = defaultdict(int)
        self._late: dict[Any, int] = {}  # id to how often the file of its first record came before

    def _count(self, kind: str, value: Any) -> int:
        key = exact(value)
        if key is None:
            return 0
        self._counts[kind, key] += 1
        return self._counts[kind, key] - 1

    def picture(self, record: Any) -> int:
        if not isinstance(record, dict):
            return 0
        before = self._count("image", record.get("id"))
        if before == 0:  # a record that is refused for its id takes no file from another
            before = self._count("file", records.file_key(record, self._levels))
            self._late[_id_of(record)] = before
            return before
        return before + self._late[_id_of(record)]

    def stray(self, record: Any) -> int:
        return self._count("stray", record.get("id")) if isinstance(record, dict) else 0


def _assign(
    items: list[Any], owner: References[int], joined: dict[int, int]
) -> tuple[dict[int, list[tuple[Any, int]]], list[Any]]:
    """Items by the row of the image they go to, each with the row of the one they name; and those that name none."""
    by_image: dict[int, list[tuple[Any, int]]] = defaultdict(list)
    strays = []
    for item in items:
        row = owner.get(item.get("image_id")) if isinstance(item, dict) else None
        if row is None:
            strays.append(item)
        else:
            by_image[joined.get(row, row)].append((item, row))
    return by_image, strays


def _stray_problem(record: Any) -> Rejected:
    if not isinstance(record, dict):
        return Rejected("bad_record", f"the annotation is {type(record).__name__}, not an object")
    return Rejected("no_image", f"image_id {record.get('image_id')!r}"[:80])


def _caption_text(record: dict[str, Any]) -> Any:
    return record.get("caption")


def _id_of(record: Any) -> Any:
    """The id of an image record as a key; None where it has none."""
    return exact(record.get("id")) if isinstance(record, dict) else None


def _image_ids(images: list[Any]) -> list[str]:
    """An image id for each record, the same for records of one id and different for all others.

    COCO ids are numbers of 12 digits, the same in 2014 and 2017; other ids stay as they are. Where a text of digits and
    a number, or two texts, would be one id, numbers come first and the text stays as it is written.
    """
    claims = {}
    for row, record in enumerate(images):
        written = text(record.get("id")) if isinstance(record, dict) else None
        if written is not None:
            padded = written.zfill(12) if written.isascii() and written.isdigit() else written
            claims[row] = (_id_of(record), [ids.image_id("coco", padded), ids.image_id("coco", written)])
    order = sorted(claims, key=lambda row: type(images[row]["id"]) is str)
    found = {
        row: name.identity for row, name in zip(order, naming.distinct([claims[row] for row in order]), strict=True)
    }
    return [found.get(row) or ids.image_id("coco", id_text(record)) for row, record in enumerate(images)]
