"""The COCO 2017 tree: `coco/{train2017,val2017}/*.jpg` and `coco/annotations/{instances,captions}_*.json`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from refloom.ingest.sampledata import captions, casting, categories, photos, segmentations
from refloom.ingest.sampledata.captions import Seen
from refloom.ingest.sampledata.casting import Brief, Still
from refloom.ingest.sampledata.identities import Identities
from refloom.ingest.sampledata.segmentations import Visible
from refloom.schemas.storage import Folder

BRIEF = Brief(
    code=1,
    sizes=((640, 480), (640, 480), (480, 640), (640, 427), (427, 640), (500, 375), (612, 612)),
    fewest=1,
    most=4,
    view_share=0.2,
    real_share=0.4,
    crowd_share=0.12,
)
SPLITS = ("train2017", "val2017")
_EVERY_NTH_IS_VAL = 6
_LEAST_AREA_PX = 150
_AT_TABLE = ("at a table", "at a wooden table")
_INFO = {
    "description": "Made by `refloom sample-data` from photographs inside installed packages",
    "url": "",
    "version": "1.0",
    "year": 2017,
    "contributor": "refloom",
    "date_created": "",
}


def is_val(index: int) -> bool:
    """Whether picture `index` belongs to val2017; the second is the first that does."""
    return index % _EVERY_NTH_IS_VAL == 1


@dataclass(slots=True)
class _Split:
    """What the two json files of a split will hold."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)


def write(out: Folder, seed: int, count: int, identities: Identities) -> list[str]:
    """Write the tree.

    Args:
        out: folder of all trees.
        seed: of the whole.
        count: pictures, both splits together.
        identities: takes who is where.

    Returns:
        Names of the splits that have pictures.
    """
    splits = {name: _Split() for name in SPLITS}
    for index in range(count):
        name = SPLITS[is_val(index)]
        still = casting.still(BRIEF, seed, index, held_out=is_val(index))
        number = index + 1
        file_name = f"{number:012d}.jpg"
        out.write(f"coco/{name}/{file_name}", still.jpeg)
        split = splits[name]
        split.images.append(_image(number, file_name, still))
        shown = list(_shown(still))
        for annotation, subject in _annotations(number, shown):
            split.annotations.append(annotation)
            if subject is not None:
                identities.objects[f"coco/{number:012d}#{annotation['id']}"] = subject
        rng = np.random.default_rng([seed, BRIEF.code, index, 1])
        seen = _seen(shown)
        split.captions += [
            {"image_id": number, "id": number * 10 + position, "caption": text}
            for position, text in enumerate(captions.write(rng, seen, _words(still)))
        ]
    for name, split in splits.items():
        if split.images:
            head = {"info": _INFO, "licenses": photos.licenses(), "images": split.images}
            instances = head | {"annotations": split.annotations, "categories": categories.coco()}
            out.write(f"coco/annotations/instances_{name}.json", orjson.dumps(instances))
            out.write(f"coco/annotations/captions_{name}.json", orjson.dumps(head | {"annotations": split.captions}))
    return [name for name, split in splits.items() if split.images]


def _words(still: Still) -> tuple[tuple[str, ...], ...]:
    """What captions call the place: people sit at a table, not on it."""
    floor, *rest = still.backdrop.words
    seated = still.backdrop.table_y is not None and any(subject.kind == "person" for subject in still.picture.cast)
    return (_AT_TABLE if seated else floor, *rest)


def _image(number: int, file_name: str, still: Still) -> dict[str, Any]:
    used = set(still.backdrop.photos) | {subject.photo for subject in still.picture.cast if subject.photo}
    height, width = still.picture.owner.shape
    return {
        "license": photos.license_id(used),
        "file_name": file_name,
        "coco_url": "",
        "height": height,
        "width": width,
        "date_captured": "2017-01-01 00:00:00",
        "flickr_url": "",
        "id": number,
    }


@dataclass(frozen=True, slots=True)
class _Shown:
    """Something annotated: its kind, identity (None for a crowd), and pixels."""

    kind: str
    subject: int | None
    pixels: Visible
    members: int = 1


def _shown(still: Still) -> Iterator[_Shown]:
    """Subjects that show enough pixels, then the crowd."""
    picture = still.picture
    for index, subject in enumerate(picture.cast):
        if index in picture.crowd:
            continue
        pixels = segmentations.visible(picture.owner == index)
        if pixels is not None and pixels.area >= _LEAST_AREA_PX:
            yield _Shown(subject.kind, subject.number, pixels)
    if picture.crowd:
        members = sorted(picture.crowd)
        pixels = segmentations.visible(np.isin(picture.owner, members))
        if pixels is not None and pixels.area >= _LEAST_AREA_PX:
            yield _Shown(picture.cast[members[0]].kind, None, pixels, len(members))


def _annotations(number: int, shown: list[_Shown]) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Annotations of one picture with the identity of each."""
    single = [one for one in shown if one.subject is not None]
    written = segmentations.for_coco([one.pixels for one in single])
    written += [
        (segmentations.uncompressed(one.pixels), float(one.pixels.area), one.pixels.xywh)
        for one in shown
        if one.subject is None
    ]
    for position, (one, (segmentation, area, bbox)) in enumerate(zip(shown, written, strict=True)):
        yield (
            {
                "segmentation": segmentation,
                "area": area,
                "iscrowd": int(one.subject is None),
                "image_id": number,
                "bbox": bbox,
                "category_id": categories.of(one.kind, "coco"),
                "id": number * 100 + position,
            },
            one.subject,
        )


def _seen(shown: list[_Shown]) -> list[Seen]:
    """For the captions: kinds with their counts, the largest first."""
    single = sorted((one for one in shown if one.subject is not None), key=lambda one: -one.pixels.area)
    counts = Counter(one.kind for one in single)
    crowds = [Seen(one.kind, one.members, crowd=True) for one in shown if one.subject is None]
    return [*(Seen(kind, count) for kind, count in counts.items()), *crowds]
