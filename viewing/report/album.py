"""The drawings of everything a choice wants shown: which rows and pictures that needs, read once and drawn."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refloom.curation.annotate.settings import Quality
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.ids import image_of
from refloom.viewing.outlines import Drawing, Mark, Pixels, View, around, cut, view_of, whole
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.report.threshold import quality_settings
from refloom.viewing.rows import fetch, search_order, units_of_pictures

SIDE_PX = 160
LARGE_PX = 340
SAMPLE_SIDE_PX = 270
_FACE_PX = 128
MEMBERS = 8
"""Of a group that are shown, evenly spaced."""
SAMPLE_PICTURES = 8

LEAK = "leak"
"""How a pair came about whose other side is in an evaluation set."""

_OBJECT_COLUMNS = ("object_id", "image_id", "kind", "category", "phrase", "box", "mask")
_IMAGE_COLUMNS = ("image_id", "frame_index", "width", "height", "captions", "link", "image", "sha256")
_SAMPLE_COLUMNS = ("sample_id", "kind", "why", "scores", "target", "pictures", "subjects", "images")
_FACE_COLUMNS = ("face_id", "box", "landmarks", "crop_box", "crop")

Shot = Drawing | str
"""A drawing, or in a few words why there is none."""


@dataclass(frozen=True, slots=True)
class Album:
    """Everything drawn.

    Attributes:
        objects, pictures, faces: id to its thumbnail.
        samples: sample id to its pictures, the first `SAMPLE_PICTURES` of them.
        object_rows: id to its row, with the effective mask, box and phrase.
        picture_rows: id to its row, without bytes.
        group_rows: id to its row, with `shown`, the members that are drawn.
        sample_rows: id to its row, without bytes.
        quality: the settings that most objects were scored with; None before that.
    """

    objects: dict[str, Shot] = field(default_factory=dict)
    pictures: dict[str, Shot] = field(default_factory=dict)
    faces: dict[str, Shot] = field(default_factory=dict)
    samples: dict[str, list[Shot]] = field(default_factory=dict)
    object_rows: dict[str, Row] = field(default_factory=dict)
    picture_rows: dict[str, Row] = field(default_factory=dict)
    group_rows: dict[str, Row] = field(default_factory=dict)
    sample_rows: dict[str, Row] = field(default_factory=dict)
    quality: Quality | None = None


def fill(dataset: Dataset, choice: Choice) -> Album:
    """Draw what was chosen. What cannot be drawn (a linked file that is gone) is said in words instead."""
    album = Album(quality=quality_settings(dataset))
    _read_groups(dataset, choice, album)
    objects, faces, bare = (_by_unit(rows) for rows in (choice.objects(), choice.faces, choice.pictures))
    for unit, ids in _places(dataset, choice, album).items():
        for name in ids:  # an id of an object has a #, one of a face an @, one of a picture neither
            (objects if "#" in name else faces if "@" in name else bare)[unit].add(name)
    _read_objects(dataset, objects, album)
    wanted = _by_unit(())
    for unit, ids in [*objects.items(), *bare.items()]:
        wanted[unit] |= {image_of(name) for name in ids}
    _draw_pictures(dataset, wanted, {name for ids in bare.values() for name in ids}, album)
    for row in fetch(dataset, "faces", faces, _FACE_COLUMNS):
        album.faces[row["face_id"]] = face_shot(row)
    samples = _by_unit(row for rows in choice.samples.values() for row in rows)
    for row in fetch(dataset, "samples", samples, _SAMPLE_COLUMNS):
        album.samples[row["sample_id"]] = _sample(row)
        album.sample_rows[row["sample_id"]] = row | {"images": None}
    return album


def _by_unit(rows: Iterable[Row]) -> defaultdict[str, set[str]]:
    units: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        units[row["unit"]].add(row["id"])
    return units


def _read_groups(dataset: Dataset, choice: Choice, album: Album) -> None:
    chosen = choice.every_group()
    units = {row["id"]: row["unit"] for row in chosen}
    for row in fetch(dataset, "groups", _by_unit(chosen), ["group_id", "members", "units", "video_id"]):
        places = np.unique(np.linspace(0, len(row["members"]) - 1, MEMBERS).round().astype(int))
        shown = [row["members"][place] for place in places] if row["members"] else []
        album.group_rows[row["group_id"]] = row | {"shown": shown, "unit": units[row["group_id"]]}


def _places(dataset: Dataset, choice: Choice, album: Album) -> dict[str, set[str]]:
    """Unit to what it holds of the shown members of groups and of the two sides of pairs: they may lie in any unit."""
    groups = album.group_rows.values()
    # what an evaluation set holds is not in the dataset
    stay = {row["of"] for row in choice.pairs if row["by"] != LEAK}
    names = {member for row in groups for member in row["shown"]} | {row["id"] for row in choice.pairs} | stay
    first = [unit for row in groups for unit in (row["unit"], *(row["units"] or ()))]
    first += [row["unit"] for row in choice.pairs]
    found = units_of_pictures(dataset, {image_of(name) for name in names}, search_order(dataset, first))
    unit_of = {image_id: unit for unit, image_ids in found.items() for image_id in image_ids}
    places: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if image_of(name) in unit_of:
            places[unit_of[image_of(name)]].add(name)
    return places


def _read_objects(dataset: Dataset, wanted: dict[str, set[str]], album: Album) -> None:
    """Rows of objects; masks and phrases that a model made win over the source's."""
    for row in fetch(dataset, "objects", wanted, _OBJECT_COLUMNS):
        album.object_rows[row["object_id"]] = row
    for row in fetch(dataset, "masks", wanted, ["object_id", "image_id", "box", "mask"]):
        empty = {"kind": "object", "category": None, "phrase": None}
        album.object_rows[row["object_id"]] = empty | album.object_rows.get(row["object_id"], {}) | row
    for row in fetch(dataset, "phrases", wanted, ["object_id", "phrase"]):
        if row["object_id"] in album.object_rows:
            album.object_rows[row["object_id"]]["phrase"] = row["phrase"]


def _draw_pictures(dataset: Dataset, wanted: dict[str, set[str]], bare: set[str], album: Album) -> None:
    """Decode each picture once and draw what is wanted of it: its objects, and itself where it is in `bare`."""
    by_picture: dict[str, list[Row]] = defaultdict(list)
    for row in album.object_rows.values():
        by_picture[row["image_id"]].append(row)
    for image in fetch(dataset, "images", wanted, _IMAGE_COLUMNS):
        image_id = image["image_id"]
        pixels = _decode(dataset, image)
        album.picture_rows[image_id] = image | {"image": None, "link": None}
        if image_id in bare:
            drawn = pixels if isinstance(pixels, str) else cut(pixels, view_of(whole(pixels), SIDE_PX))
            album.pictures[image_id] = drawn
        for row in by_picture[image_id]:
            album.objects[row["object_id"]] = pixels if isinstance(pixels, str) else object_shot(pixels, row)


def _decode(dataset: Dataset, image: Row) -> Pixels | str:
    """The pixels of a picture, or the word for why there are none."""
    try:
        return pictures.decode(dataset.checked_picture(image))
    except (Rejected, Failed) as problem:
        return problem.reason


def object_shot(pixels: Pixels, row: Row) -> Drawing:
    """An object with its mask outlined, or its box where it has no mask."""
    height, width = pixels.shape[:2]
    is_whole = row["kind"] == "whole"
    view = view_of(whole(pixels) if is_whole else around(row["box"], width, height), SIDE_PX)
    outline = view.outline(row["mask"], height, width)
    box = None if outline or is_whole else view.box(row["box"])
    return replace(cut(pixels, view), marks=() if is_whole and not outline else (Mark(outline, box),))


def face_shot(row: Row) -> Shot:
    """A face crop with its box and landmarks."""
    try:
        pixels = pictures.decode(row["crop"]["bytes"])
    except (Rejected, Failed) as problem:
        return problem.reason
    view = view_of(whole(pixels), _FACE_PX)
    x0, y0, x1, y1 = row["crop_box"]
    in_crop = View((0, 0, 1, 1), view.width, view.height)  # crop coordinates as shares of its square
    side_x, side_y = max(x1 - x0, 1e-6), max(y1 - y0, 1e-6)

    def place(x: float, y: float) -> tuple[float, float]:
        return in_crop.point((x - x0) / side_x, (y - y0) / side_y)

    known = [point for point in row["landmarks"] or [] if point is not None and np.isfinite(point).all()]
    left, top, right, bottom = row["box"]
    mark = Mark(box=(*place(left, top), *place(right, bottom)), points=tuple(place(*point) for point in known))
    return replace(cut(pixels, view), marks=(mark,))


def _sample(row: Row) -> list[Shot]:
    """The first pictures of a sample with the boxes and masks of its subjects, numbered as they are listed."""
    side = LARGE_PX if len(row["pictures"]) == 1 else SAMPLE_SIDE_PX
    shots: list[Shot] = []
    for index, image in enumerate(row["images"][:SAMPLE_PICTURES]):
        try:
            pixels = pictures.decode(image["bytes"])
        except (Rejected, Failed) as problem:
            shots.append(problem.reason)
            continue
        view = view_of(whole(pixels), side)
        shots.append(replace(cut(pixels, view), marks=tuple(subject_marks(row, index, pixels, view))))
    return shots


def subject_marks(row: Row, picture: int, pixels: Pixels, view: View) -> list[Mark]:
    """Boxes, masks and faces of the subjects on one picture of a sample."""
    height, width = pixels.shape[:2]
    marks = []
    for number, subject in enumerate(row["subjects"]):
        for appearance in subject["appearances"]:
            if appearance["picture"] != picture:
                continue
            marks.append(
                Mark(
                    outline=view.outline(appearance["mask"], height, width),
                    box=view.box(appearance["box"]),
                    label=str(number + 1),
                    group=number,
                    title=subject_name(subject),
                )
            )
    return marks


def subject_name(subject: dict[str, Any]) -> str:
    """What to call a subject of a sample: its phrase, its category, or what kind of thing it is."""
    fallback = {"whole": "unnamed picture", "face": "face"}.get(subject["kind"], "unnamed object")
    person = "person" if subject.get("role") == "person" else None
    return subject["phrase"] or subject["category"] or person or fallback
