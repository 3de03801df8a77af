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

from refloom.ingest import jsons, records
from refloom.ingest.annotationfile import (
    category_key,
    category_names,
    id_text,
    is_id,
    json_stem,
    license_names,
    object_of_lists,
    split_in,
    text_or_none,
)
from refloom.ingest.files import PictureFile, safe_name, total_bytes
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
    """

    images: str
    instances: str
    captions: str | None = None
    name: str = "coco"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
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

        owner: dict[Any, int] = {}
        for index, image in enumerate(images):
            if isinstance(image, dict) and is_id(image.get("id")) and image["id"] is not None:
                owner.setdefault(image["id"], index)
        beyond = {
            image.get("id")
            for image in root["images"][len(images) :]
            if isinstance(image, dict) and is_id(image.get("id"))
        }
        joined = records.joined(images, levels)
        for row, first in joined.items():
            owner[images[row]["id"]] = first
        siblings: dict[int, list[Any]] = defaultdict(list)
        for row, first in joined.items():
            siblings[first].append(images[row])
        by_image, strays = _assign(root["annotations"], owner, beyond)
        listed = captions.value["annotations"] if captions else []
        captions_by_image, stray_captions = _assign(listed, owner, beyond)
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
            # a file that gives masks to nobody is a set of boxes; one that gives them to some has lost the others
            "masks": any(isinstance(item, dict) and item.get("segmentation") for item in root["annotations"]),
        }
        identity = {"instances": document.sha256, "captions": captions.sha256 if captions else None}
        plain = document.plain and (captions is None or captions.plain)
        seen = _Seen()
        units = []
        for number, start in enumerate(range(0, len(images), self.unit_size)):
            rows = range(start, min(start + self.unit_size, len(images)))
            own_strays = [(item, seen.annotation(item)) for item in strays] if number == 0 else []
            own_stray_captions = stray_captions if number == 0 else []
            slice_ = {
                "images": [
                    {
                        "record": images[row],
                        "occurrence": seen.picture(images[row]),
                        "annotations": [(item, seen.annotation(item)) for item in by_image[row]],
                        "captions": captions_by_image[row],
                        "joined": image_id(images[joined[row]]) if row in joined else None,
                        "said": records.said_of_annotations([images[row], *siblings[row]]),
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
                    image_ids=tuple(image_id(images[row]) for row in rows if isinstance(images[row], dict)),
                    payload=jsons.dumps(slice_, plain=plain),
                )
            )
        config = {"source": self.kind, "unit_size": self.unit_size, "limit": self.limit, "prefix": prefix}
        return [Plan(self.key, tuple(units), config)]

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
                yield Item("image", image_id(entry["record"]), Rejected("duplicate", what), occurrence=1)
            else:
                yield self._picture(entry, unit.task, folder)

    def _picture(self, entry: dict[str, Any], task: dict[str, Any], folder: Folder) -> Picture:
        record = entry["record"]
        identity = image_id(record)
        problem: Problem | None = None
        name = ""
        if not isinstance(record, dict) or not is_id(record.get("id")) or record["id"] is None:
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
                self._annotation(item, occurrence, identity, task, entry["said"])
                for item, occurrence in entry["annotations"]
            ],
            split=task["split"],
            license=task["licenses"].get(str(record.get("license"))),
            source_url=text_or_none(record.get("flickr_url")) or text_or_none(record.get("coco_url")),
            problem=problem,
            occurrence=entry["occurrence"],
        )

    def _annotation(
        self, record: dict[str, Any], occurrence: int, owner: str, task: dict[str, Any], said: dict[str, Any]
    ) -> Annotation:
        about = said.get(str(record.get("image_id")), {})  # of several records of one file, its own
        box, area = records.in_pixels(record, about)
        category = record.get("category_id")
        # ids stay what they are: the text "18" is not the number 18
        category_name = task["categories"].get(category_key(category))
        problem: Problem | None = None
        if "id" not in record or not is_id(record["id"]):
            problem = Rejected("bad_record", "the annotation has no id")
        elif occurrence:
            problem = Rejected("duplicate", "the annotation id came before")
        elif record.get("iscrowd"):
            problem = Rejected("crowd")
        elif category_name is None:
            problem = Rejected("unknown_category", f"category_id {category!r}"[:80])
        return Annotation(
            object_id=ids.object_id(owner, id_text(record)),
            segmentation=record.get("segmentation"),
            bbox=box,
            area=area,
            declared_size=tuple(about["size"]) if len(said) > 1 and about.get("size") else None,
            category=category_name,
            phrase=records.phrase_of(record, about),
            needs_mask=task["masks"],
            source_fields={
                key: value for key, value in record.items() if key not in ("segmentation", "bbox", "image_id")
            },
            problem=problem,
            occurrence=occurrence,
        )


class _Seen:
    """Counts ids as they come, so that the second picture or annotation of one id is known as such."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Any], int] = defaultdict(int)

    def _count(self, kind: str, value: Any) -> int:
        if not is_id(value) or value is None:
            return 0
        self._counts[kind, value] += 1
        return self._counts[kind, value] - 1

    def picture(self, record: Any) -> int:
        if not isinstance(record, dict):
            return 0
        return max(self._count("image", record.get("id")), self._count("file", records.file_key(record)))

    def annotation(self, record: Any) -> int:
        return self._count("annotation", record.get("id")) if isinstance(record, dict) else 0


def _assign(items: list[Any], owner: dict[Any, int], beyond: set[Any]) -> tuple[dict[int, list[Any]], list[Any]]:
    """Items by the row of the image they name, and those that name none; images beyond the limit are left out."""
    by_image: dict[int, list[Any]] = defaultdict(list)
    strays = []
    for item in items:
        image = item.get("image_id") if isinstance(item, dict) else None
        if isinstance(item, dict) and is_id(image) and image in owner:
            by_image[owner[image]].append(item)
        elif not (isinstance(item, dict) and is_id(image) and image is not None and image in beyond):
            strays.append(item)
    return by_image, strays


def _stray_problem(record: Any) -> Rejected:
    if not isinstance(record, dict):
        return Rejected("bad_record", f"the annotation is {type(record).__name__}, not an object")
    return Rejected("no_image", f"image_id {record.get('image_id')!r}"[:80])


def _caption_text(record: dict[str, Any]) -> Any:
    return record.get("caption")


def image_id(record: Any) -> str:
    """COCO ids are numbers of 12 digits, the same in 2014 and 2017; other ids stay as they are."""
    text = id_text(record)
    return ids.image_id("coco", text.zfill(12) if text.isascii() and text.isdigit() else text)
