"""One row drawn as a PNG: a picture or sample with masks, boxes, faces and phrases, a group as a contact sheet."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from refloom.schemas import masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.ids import image_of
from refloom.viewing.browse.inspection import Found, Row
from refloom.viewing.outlines import View, around, view_of, whole
from refloom.viewing.rows import fetch, units_of_pictures

_SIDE_PX = 960
_CELL_PX = 300
_MOST_CELLS = 12
_COLUMNS = 4
_GAP_PX = 8
_TEXT_PX = 14
_COLOURS = ("#35c9e8", "#ffb000", "#2fd38a", "#ff7a6b", "#b79cff", "#f2e34c", "#ff8fd0", "#b8c4c1")
_FACE = "#ff5fc0"
_FILL = 0.35

_TABLES = {
    "objects": ["object_id", "image_id", "kind", "category", "phrase", "box", "mask"],
    "masks": ["object_id", "image_id", "box", "mask"],
}
"""What is read of objects; masks that a model made win."""

Pixels = npt.NDArray[np.uint8]
Thing = tuple[str, Row]
"""A label, and a row with `box`, and maybe `mask`, `face` or `landmarks`."""


def draw(dataset: Dataset, found: Found | None) -> bytes:
    """The PNG of a row; rows that lie on a picture are drawn on it, others as the text of their id.

    Args:
        dataset: where its pictures are.
        found: the row.
    """
    shots = _shots(dataset, found) if found is not None else []
    sheet = _side_by_side(shots or [_words("nothing to draw")])
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _shots(dataset: Dataset, found: Found) -> list[Image.Image]:
    row = found.row
    if found.table == "samples":
        return _sample(row)
    if found.table == "groups":
        return _members(dataset, found.unit, row["members"])
    if found.table == "source_groups":
        return _members(dataset, found.unit, [f"{member}#whole" for member in row["members"]])
    if found.table == "faces":
        crop = _decode(row["crop"]["bytes"]) if row["crop"] else "no crop"
        shot = _words(crop) if isinstance(crop, str) else _on(crop, view_of(whole(crop), _CELL_PX), [])
        return [shot, _picture(dataset, found.unit, row["image_id"], only=row["face_id"])]
    image_id = row.get("image_id") or image_of(str(row.get("object_id") or row.get("id") or ""))
    only = row.get("object_id")
    return [_picture(dataset, found.unit, image_id, only=only)] if image_id else []


def _sample(row: Row) -> list[Image.Image]:
    shots = []
    for index, image in enumerate(row["images"][:_MOST_CELLS]):
        pixels = _decode(image["bytes"])
        things: list[Thing] = []
        for number, subject in enumerate(row["subjects"]):
            name = subject["phrase"] or subject["category"] or subject["kind"]
            mine = [one for one in subject["appearances"] if one["picture"] == index]
            things += [(f"{number + 1} {name}", one | {"colour": number}) for one in mine]
        side = _SIDE_PX if len(row["images"]) == 1 else _CELL_PX * 2
        shots.append(_words(pixels) if isinstance(pixels, str) else _on(pixels, view_of(whole(pixels), side), things))
    return shots


def _members(dataset: Dataset, unit: str, members: Sequence[str]) -> list[Image.Image]:
    places = np.unique(np.linspace(0, max(len(members) - 1, 0), _MOST_CELLS).round().astype(int)).tolist()
    shown = [members[place] for place in places if members]
    return [_picture(dataset, unit, image_of(member), only=member, side=_CELL_PX) for member in shown]


def _picture(
    dataset: Dataset, unit: str, image_id: str, *, only: str | None = None, side: int = _SIDE_PX
) -> Image.Image:
    """A picture with its objects and faces, or only one of them, close by, if the cell is small."""
    units = [unit, *(other for other in dataset.units() if other != unit)]
    place = next(iter(units_of_pictures(dataset, {image_id}, units)), None)
    columns = ["image_id", "link", "image", "sha256"]
    image = next(fetch(dataset, "images", {place: {image_id}}, columns), None) if place else None
    if image is None or place is None:
        return _words(f"{image_id} is not there")
    try:
        pixels = pictures.decode(dataset.checked_picture(image))
    except (Rejected, Failed) as problem:
        return _words(problem.reason)
    things = _things(dataset, place, image_id)
    if only is not None:
        things = [(label, row | {"colour": 0}) for label, row in things if row["id"] == only]
    is_close = side == _CELL_PX and len(things) == 1 and things[0][1]["kind"] != "whole"
    region = around(things[0][1]["box"], pixels.shape[1], pixels.shape[0]) if is_close else whole(pixels)
    return _on(pixels, view_of(region, side), [thing for thing in things if thing[1]["kind"] != "whole"])


def _things(dataset: Dataset, unit: str, image_id: str) -> list[Thing]:
    """Objects of a picture with effective masks and phrases, the largest first, then its faces."""
    found: dict[str, Row] = {}
    for table, columns in _TABLES.items():
        for batch in dataset.batches(table, columns, unit=unit):
            for at in [n for n, name in enumerate(batch.column("image_id").to_pylist()) if name == image_id]:
                (row,) = batch.slice(at, 1).to_pylist()
                found[row["object_id"]] = {"kind": "object"} | found.get(row["object_id"], {}) | row
    for row in fetch(dataset, "phrases", {unit: set(found)}, ["object_id", "phrase"]):
        found[row["object_id"]]["phrase"] = row["phrase"]
    things = [
        (row.get("phrase") or row.get("category") or "", row | {"id": identity, "colour": number})
        for number, (identity, row) in enumerate(found.items())
    ]
    things.sort(key=lambda thing: -_area(thing[1]["box"]))
    faces = [
        row
        for batch in dataset.batches("faces", ["face_id", "image_id", "box", "landmarks", "det_score"], unit=unit)
        for row in batch.to_pylist()
        if row["image_id"] == image_id
    ]
    return things + [("face", row | {"id": row["face_id"], "kind": "face"}) for row in faces]


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


# -- pixels --------------------------------------------------------------------------------------------------------


def _decode(data: bytes) -> Pixels | str:
    try:
        return pictures.decode(data)
    except (Rejected, Failed) as problem:
        return problem.reason


def _on(pixels: Pixels, view: View, things: list[Thing]) -> Image.Image:
    """A view of a picture with things on it: masks filled, boxes, landmarks, labels."""
    x0, y0, x1, y1 = view.region
    size = (view.width, view.height)
    canvas = np.asarray(Image.fromarray(pixels[y0:y1, x0:x1]).resize(size, Image.Resampling.LANCZOS), np.float32)
    for _, row in things:
        if row.get("mask") is not None:
            canvas = _filled(canvas, view, row["mask"], pixels.shape[:2], _colour(row))
    image = Image.fromarray(canvas.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for label, row in things:
        _frame(pen, view, label, row)
    return image


def _filled(canvas: Any, view: View, mask: Any, shape: tuple[int, ...], colour: str) -> Any:
    if list(mask["size"]) != list(shape):
        return canvas
    inside = Image.fromarray(masks.decode_box(mask, view.region) * np.uint8(255))
    share = np.asarray(inside.resize((view.width, view.height), Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    paint = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float32)
    return canvas * (1 - _FILL * share) + paint * _FILL * share


def _colour(row: Row) -> str:
    return _FACE if row.get("kind") == "face" else _COLOURS[row.get("colour", 0) % len(_COLOURS)]


def _frame(pen: ImageDraw.ImageDraw, view: View, label: str, row: Row) -> None:
    colour = _colour(row)
    x0, y0, x1, y1 = view.box(row["box"])
    if x1 > x0 and y1 > y0:
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=2)
    face = row.get("face") or (row if row.get("landmarks") else None)
    if face is not None:
        left, top, right, bottom = view.box(face["box"])
        if right > left and bottom > top:
            pen.rectangle((left, top, right, bottom), outline=_FACE, width=2)
        for point in face["landmarks"] or []:
            if point is not None and np.isfinite(point).all():
                x, y = view.point(*point)
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_FACE, outline="black")
    if label:
        font = ImageFont.load_default(_TEXT_PX)
        text = label.encode("latin-1", "replace").decode("latin-1")  # what the font has
        width = pen.textlength(text, font)
        left, top = min(max(x0, 0), max(view.width - width - 8, 0)), min(max(y0, 0), max(view.height - 20, 0))
        pen.rectangle((left, top, left + width + 8, top + 20), fill=colour)
        pen.text((left + 4, top + 1), text, fill="#10201d", font=font)


def _words(text: str) -> Image.Image:
    image = Image.new("RGB", (_CELL_PX, _CELL_PX // 2), "#e6e9e7")
    safe = text.encode("latin-1", "replace").decode("latin-1")
    ImageDraw.Draw(image).text((12, 12), safe, fill="#5d6865", font=ImageFont.load_default(_TEXT_PX))
    return image


def _side_by_side(shots: list[Image.Image]) -> Image.Image:
    """Rows of pictures on white."""
    rows = [shots[start : start + _COLUMNS] for start in range(0, len(shots), _COLUMNS)]
    widths = [sum(shot.width for shot in row) + _GAP_PX * (len(row) + 1) for row in rows]
    heights = [max(shot.height for shot in row) for row in rows]
    sheet = Image.new("RGB", (max(widths), sum(heights) + _GAP_PX * (len(rows) + 1)), "white")
    top = _GAP_PX
    for row, height in zip(rows, heights, strict=True):
        left = _GAP_PX
        for shot in row:
            sheet.paste(shot, (left, top))
            left += shot.width + _GAP_PX
        top += height + _GAP_PX
    return sheet
