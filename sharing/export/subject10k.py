"""MIP-Adapter's subject_dataset_10k: pictures of two or more named objects, with one label map each.

    images/<id>.png    upright pixels, lossless
    masks/<id>.png     label map: 0 is background, the others count objects; 8-bit grey
    jsons/<id>.json    {text, original_size [W, H], final_masks: [{value, label, box [x1, y1, x2, y2], logit}, ...]}

The first entry of final_masks is the background, without a box. An object's label is the most frequent one in its box
that is not the smallest, so a label map cannot say everything: where objects overlap the smaller one is in front, and
an object that cannot be read back that way is left out. `logit` is the confidence; 1 where people drew the object. The
json says further `license`, `source_url`, `image_id` and object ids, which the loader passes over.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import orjson

from refloom.ingest.engine.pool import Status
from refloom.ingest.sources.subject10k import object_mask
from refloom.schemas import boxes, masks
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Rejected
from refloom.schemas.masks import Mask
from refloom.sharing.export.folder import Names, Place, Written, flat
from refloom.sharing.export.reading import Choice, PictureBytes, Row, samples, short, source_urls, upright_png

_MAX_LABELS = 255
_LEAST_OBJECTS = 2
_PNG_LEVEL = 6

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Thing:
    """An object on one picture.

    Attributes:
        label: its name.
        mask: of the upright picture.
        box: xyxy, pixels.
        confidence: in its mask or box; None where people drew it.
        object_id: of the dataset.
        mentions: (caption, start, end) where the picture's captions name it.
    """

    label: str
    mask: Mask
    box: tuple[float, float, float, float]
    confidence: float | None
    object_id: str | None
    mentions: tuple[tuple[int, int, int], ...]


def write_subject10k(
    dataset: Dataset, place: Place, choice: Choice, show: Callable[[Status], None] | None = None
) -> Written:
    """Write every picture of the samples that shows two or more named objects with masks.

    Args:
        dataset: with samples.
        place: where.
        choice: what of it.
        show: told how far it is.
    """
    written: Written = Counter()
    urls = source_urls(dataset)
    names, done, bare = Names(), set[str](), PictureBytes(choice, written)
    for row in samples(dataset, choice, show):
        for index, picture in enumerate(row["pictures"]):
            if picture["image_id"] in done:
                continue
            done.add(picture["image_id"])
            found = things(row, index)
            if len(found) < _LEAST_OBJECTS:
                written["left out: picture, fewer than two named objects with masks"] += 1
                continue
            labels, shown = draw(found, picture["height"], picture["width"])
            written["left out: object, no label map can tell it from others"] += len(found) - len(shown)
            if len(shown) < _LEAST_OBJECTS:
                written["left out: picture, fewer than two objects that a label map can hold"] += 1
                continue
            try:
                png = upright_png(bare.of(picture["image_id"], row["images"][index]["bytes"]))
            except Rejected as problem:
                written[f"left out: picture, {problem.reason}"] += 1
                continue
            name = names.take(_name(picture))
            record = describe(picture, shown, urls.get(picture["image_id"]))
            place.write(f"images/{name}.png", png)
            place.write(f"masks/{name}.png", _label_png(labels))
            place.write(f"jsons/{name}.json", orjson.dumps(record))
            written["pictures"] += 1
            written["objects"] += len(shown)
    return +written


def _name(picture: Row) -> str:
    """SA-1B's pictures are called `sa_<number>` here, by which they are known to be SA-1B's; others by their ids."""
    source, _, rest = picture["image_id"].partition("/")
    if source == "sa1b" and rest.isdigit():
        return f"sa_{rest}"
    return flat(rest if source == "subject10k" else picture["image_id"])


def things(row: Row, index: int) -> list[Thing]:
    """The named objects with masks on one picture of a sample.

    Args:
        row: of `samples`.
        index: of the picture.
    """
    found = []
    for subject in row["subjects"]:
        label = subject["phrase"] or subject["category"]
        for appearance in subject["appearances"]:
            if appearance["picture"] != index or appearance["mask"] is None or not label:
                continue
            mentions = [entry for entry in subject["mentions"] or [] if entry["picture"] == index]
            found.append(
                Thing(
                    label=label,
                    mask=appearance["mask"],
                    box=tuple(appearance["box"]),
                    confidence=appearance["confidence"],
                    object_id=appearance["object_id"],
                    mentions=tuple((entry["caption"], entry["start"], entry["end"]) for entry in mentions),
                )
            )
    return found[:_MAX_LABELS]


def draw(found: list[Thing], height: int, width: int) -> tuple[Labels, list[tuple[Thing, list[float]]]]:
    """A label map of those objects that can be read back from it, and the boxes to read them by.

    Args:
        found: objects of one picture.
        height, width: of the picture.

    Returns:
        (h, w) labels, 0 for background; objects in the order of their labels, each with its box.
    """
    left = [thing for thing in found if thing.mask["size"] == [height, width]]
    while True:
        labels = np.zeros((height, width), np.uint8)
        areas = masks.areas([thing.mask for thing in left])
        for place in np.argsort(-areas, kind="stable").tolist():  # the smaller one is in front
            _paint(labels, left[place].mask, place + 1)
        boxes_found = [_readable(labels, number + 1, thing) for number, thing in enumerate(left)]
        shown = [(thing, box) for thing, box in zip(left, boxes_found, strict=True) if box is not None]
        if len(shown) == len(left):
            return labels, shown
        left = [thing for thing, _ in shown]


def _paint(labels: Labels, mask: Mask, value: int) -> None:
    tight = masks.tight_boxes([mask])[0]
    if tight[2] <= tight[0]:
        return
    x0, y0, x1, y1 = window = boxes.pad(tight, labels.shape[1], labels.shape[0])
    labels[y0:y1, x0:x1][masks.decode_box(mask, window) != 0] = value


def _readable(labels: Labels, value: int, thing: Thing) -> list[float] | None:
    """A box by which the loader finds all visible pixels of a label: the object's own, or one that holds its mask."""
    height, width = labels.shape
    rows, columns = np.flatnonzero((labels == value).any(axis=1)), np.flatnonzero((labels == value).any(axis=0))
    if not len(rows):
        return None
    visible = masks.encode(labels == value)
    seen = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    own = [float(edge) for edge in thing.box]
    hull = [min(own[0], seen[0]), min(own[1], seen[1]), max(own[2], seen[2]), max(own[3], seen[3])]
    wider = [max(seen[0] - 1, 0), max(seen[1] - 1, 0), min(seen[2] + 1, width), min(seen[3] + 1, height)]
    for box in (own, hull, wider):
        candidate = [short(float(edge)) for edge in box]
        try:
            if object_mask(labels, candidate) == visible:
                return candidate
        except Rejected:
            continue
    return None


def describe(picture: Row, shown: list[tuple[Thing, list[float]]], url: str | None) -> dict[str, Any]:
    """The json of a picture.

    Args:
        picture: of a sample.
        shown: objects in the order of their labels, each with its box.
        url: its source_url.
    """
    captions = picture["captions"] or []
    named = Counter(caption for thing, _ in shown for caption in {mention[0] for mention in thing.mentions})
    best = max(range(len(captions)), key=lambda number: (named[number], -number), default=None)
    height, width = picture["original_size"] or (picture["height"], picture["width"])
    entries: list[dict[str, Any]] = [{"value": 0, "label": "background"}]
    for value, (thing, box) in enumerate(shown, 1):
        logit = 1.0 if thing.confidence is None else short(thing.confidence)
        entries.append({"value": value, "label": thing.label, "logit": logit, "box": box, "object_id": thing.object_id})
    entries[1:] = sorted(entries[1:], key=lambda entry: -entry["logit"])
    return {
        "text": "" if best is None else captions[best],
        "original_size": [width, height],
        "final_masks": entries,
        "caption_from": picture["caption_from"],
        "license": picture["license"],
        "source_url": url,
        "image_id": picture["image_id"],
    }


def _label_png(labels: Labels) -> bytes:
    _, encoded = cv2.imencode(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    return bytes(encoded)
