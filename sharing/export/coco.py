"""COCO: pictures with their own bytes, every object with its mask as it is stored, captions.

    images/           the source's own bytes
    instances.json    {info, licenses, categories, images, annotations}: segmentation is run lengths, iscrowd 0
    boxes.json        the same with objects that have a box and no mask, where the dataset holds both kinds
    captions.json     the captions of the source

Ids of pictures, annotations and categories are COCO's own where the dataset came from COCO; the others are counted on
behind them, and say what they are called in the dataset: `refloom_id`. An object without a class is called by its
phrase, else `object`, a face `face`; whole pictures are no objects here. Everything fits the upright picture.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from refloom.ingest.engine.pool import Status
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.sharing.export.folder import JsonList, Names, Place, Written, write_object
from refloom.sharing.export.reading import (
    Choice,
    Meter,
    ObjectRows,
    PictureBytes,
    Row,
    chosen_pictures,
    extension,
    image_rows,
    short,
)

_IMAGE_COLUMNS = ["image_id", "width", "height", "captions", "license", "source_url", "sha256", "link", "image"]
_NAME_COLUMNS = ["object_id", "image_id", "kind", "category", "phrase", "source_json"]
_OBJECT_COLUMNS = [*_NAME_COLUMNS, "box", "area", "mask", "confidence"]
_INFO = {"description": "exported by refloom", "version": "1.0"}


@dataclass(slots=True)
class _Ids:
    """Ids that are COCO's own where they can be, and unique always."""

    taken: set[Any] = field(default_factory=set)
    last: int = 0

    def see(self, own: Any) -> None:
        """An id that a source has; the count begins behind it."""
        if isinstance(own, int):
            self.last = max(self.last, own)

    def give(self, own: Any) -> Any:
        """The id itself if it is one and free, else the next number."""
        if own is None or own in self.taken:
            self.last += 1
            own = self.last
        self.taken.add(own)
        return own


@dataclass(slots=True)
class _Plan:
    """What is known after a look at the scalar columns."""

    pictures: int = 0
    image_ids: _Ids = field(default_factory=_Ids)
    object_ids: _Ids = field(default_factory=_Ids)
    categories: dict[str, int] = field(default_factory=dict)
    licenses: dict[str, int] = field(default_factory=dict)
    has_masks: bool = False


def write_coco(dataset: Dataset, place: Place, choice: Choice, show: Callable[[Status], None] | None = None) -> Written:
    """Write pictures, instances and captions; a picture is in memory at a time.

    Args:
        dataset: in any state.
        place: where.
        choice: what of it.
        show: told how far it is.
    """
    plan = _look(dataset, choice)
    meter = Meter(plan.pictures, show)
    names = Names()
    written: Written = Counter()
    bare = PictureBytes(choice, written)
    with JsonList() as images, JsonList() as masked, JsonList() as boxed, JsonList() as captions:
        for unit, image, rows in _pictures(dataset, choice, _IMAGE_COLUMNS, _OBJECT_COLUMNS):
            assert image is not None, unit
            try:
                data = bare.of(image["image_id"], dataset.checked_picture(image))
                name = names.take(_file_name(image, data))
                place.write(f"images/{name}", data)
            except (Rejected, Failed) as problem:
                word = "failed" if isinstance(problem, Failed) else "left out"
                written[f"{word}: picture, {problem.reason}"] += 1
                written[f"{word}: object, its picture is"] += len(rows)
                continue
            number = plan.image_ids.give(_coco_id(image["image_id"]))
            images.add(_image(image, number, name, plan))
            for row in rows:
                target = masked if row["mask"] is not None or not plan.has_masks else boxed
                target.add(_annotation(row, number, plan))
            for text in image["captions"] or []:
                captions.add({"id": captions.length + 1, "image_id": number, "caption": text})
            meter.step(len(data))
        head = {
            "info": _INFO,
            "licenses": [{"id": number, "name": name, "url": ""} for name, number in plan.licenses.items()],
        }
        categories = [{"id": number, "name": name} for name, number in sorted(plan.categories.items(), key=_by_number)]
        objects = head | {"categories": categories, "images": images}
        write_object(place, "instances.json", objects | {"annotations": masked})
        if boxed.length:
            write_object(place, "boxes.json", objects | {"annotations": boxed})
        write_object(place, "captions.json", head | {"images": images, "annotations": captions})
        written |= {"pictures": images.length, "objects": masked.length, "captions": captions.length}
        written |= {"objects without a mask": boxed.length}
    meter.finish()
    return +written


def _by_number(entry: tuple[str, int]) -> int:
    return entry[1]


def _pictures(dataset: Dataset, choice: Choice, image_columns: list[str], object_columns: list[str]) -> Any:
    """Unit, row of `images` and rows of its objects, for every picture that is chosen."""
    left = choice.limit
    for unit in dataset.units():
        stream = ObjectRows(dataset, unit, object_columns, kept=choice.kept)
        for image_id, image in image_rows(dataset, unit, image_columns, chosen_pictures(dataset, unit, choice.split)):
            rows = [row for row in stream.take(image_id) if row["kind"] != "whole"]
            if image is None:
                continue
            if left == 0:
                return
            left = None if left is None else left - 1
            yield unit, image, rows
        stream.finish()


def _look(dataset: Dataset, choice: Choice) -> _Plan:
    """Categories, licenses and the largest ids."""
    plan = _Plan()
    own: dict[str, Any] = {}
    for _, image, rows in _pictures(dataset, choice, ["image_id", "license"], [*_NAME_COLUMNS, "area"]):
        plan.pictures += 1
        plan.image_ids.see(_coco_id(image["image_id"]))
        if image["license"] is not None:
            plan.licenses.setdefault(image["license"], len(plan.licenses) + 1)
        for row in rows:
            fields = _coco_fields(row)
            plan.object_ids.see(fields.get("id"))
            plan.has_masks |= row["area"] is not None
            name = _category(row)
            if own.setdefault(name, fields.get("category_id")) is None:
                own[name] = fields.get("category_id")
    ids = _Ids()
    for number in own.values():
        ids.see(number)
    plan.categories = {name: ids.give(number) for name, number in own.items()}
    return plan


def _coco_id(image_id: str) -> int | str | None:
    """The id that COCO gave a picture of COCO; None where several sets of one numbering are in the dataset."""
    source, _, rest = image_id.partition("/")
    if source != "coco" or "/" in rest:
        return None
    return int(rest) if rest.isascii() and rest.isdigit() else rest


def _coco_fields(row: Row) -> dict[str, Any]:
    """What COCO says of an annotation of COCO."""
    if not row["object_id"].startswith("coco/") or not row["source_json"]:
        return {}
    fields: dict[str, Any] = orjson.loads(row["source_json"])
    return fields


def _category(row: Row) -> str:
    name: str = row["category"] or row["phrase"] or ("face" if row["kind"] == "face" else "object")
    return name


def _file_name(image: Row, data: bytes) -> str:
    image_id: str = image["image_id"]
    if image_id.startswith("coco/"):
        path: str = image["image"]["path"] if image["image"] is not None else image["link"]["file"]
        name, slash, _ = image_id.removeprefix("coco/").partition("/")
        return f"{name}/{path}" if slash else path
    return image_id + extension(data)


def _image(image: Row, number: Any, name: str, plan: _Plan) -> dict[str, Any]:
    record = {"id": number, "file_name": name, "width": image["width"], "height": image["height"]}
    if image["license"] is not None:
        record["license"] = plan.licenses[image["license"]]
    if image["source_url"] is not None:
        record["flickr_url" if "flickr" in image["source_url"] else "coco_url"] = image["source_url"]
    if _coco_id(image["image_id"]) is None:
        record["refloom_id"] = image["image_id"]
    return record


def _annotation(row: Row, image: Any, plan: _Plan) -> dict[str, Any]:
    fields = _coco_fields(row)
    x0, y0, x1, y1 = (float(edge) for edge in row["box"])
    width, height = _side(x0, x1), _side(y0, y1)
    area = row["area"] if row["area"] is not None else width * height
    record = {"area": area, "iscrowd": 0} | fields
    record |= {"id": plan.object_ids.give(fields.get("id")), "category_id": plan.categories[_category(row)]}
    if not fields:
        record["refloom_id"] = row["object_id"]
        if row["confidence"] is not None:
            record["score"] = short(row["confidence"])
    if row["mask"] is not None:
        record["segmentation"] = row["mask"]
    return record | {"image_id": image, "bbox": [short(x0), short(y0), width, height]}


def _side(start: float, end: float) -> float:
    """The side of a box with as few decimals as give its end back."""
    for decimals in range(1, 8):
        side = round(end - start, decimals)
        if side > 0 and np.float32(short(start) + side) == np.float32(end):
            return side
    return end - start
