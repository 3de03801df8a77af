"""What is drawn: thumbnails for the grid, large pictures with everything on them. Pixels are JPEG, marks are SVG."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from refloom.schemas import boxes, pictures
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.masks import Mask
from refloom.schemas.pages.markup import Html, tag
from refloom.viewing.browse.library import Library, Row
from refloom.viewing.outlines import Drawing, View, cut, view_of, whole
from refloom.viewing.report.album import face_shot, object_shot, subject_marks
from refloom.viewing.tile import picture as shown

THUMBNAIL_PX = 240
LARGE_PX = 1000
SAMPLE_PX = 420
_POINT = re.compile(r"(-?[\d.]+) (-?[\d.]+)")
_MOST_MARKS = 60
"""Objects that a thumbnail shows, the largest first."""

Shot = Drawing | str


@dataclass(frozen=True, slots=True)
class Spot:
    """One thing on a large picture.

    Attributes:
        key: what the table beside it calls it: `o3`, `f0`.
        label: short text at its corner.
        kind: keep, reject, undecided or face.
        box: xyxy, pixels of the picture.
        mask: of the picture.
        points: x, y of landmarks.
        title: shown when pointed at.
    """

    key: str
    label: str
    kind: str
    box: list[float]
    mask: Mask | None = None
    points: tuple[tuple[float, float], ...] = ()
    title: str = ""


def kind_of(verdict: str) -> str:
    """keep, reject or undecided, of a verdict or reason."""
    return verdict if verdict in ("keep", "undecided") else "reject"


def spots(objects: Iterable[Row], faces: Iterable[Row]) -> list[Spot]:
    """All objects and faces of a picture, numbered as they are listed; large ones first, so that small ones are on top.

    Args:
        objects: as `Library.objects_on` gives them.
        faces: as `Library.faces_on` gives them.
    """
    found = []
    for number, row in enumerate(objects):
        name = row["phrase"] or row["category"] or row["kind"]
        mask = row["mask"]
        title = f"{number + 1} {name}: {row['verdict']}"
        found.append(Spot(f"o{number}", str(number + 1), kind_of(row["verdict"]), row["box"], mask, (), title))
    found = [spot for spot, row in zip(found, objects, strict=True) if row["kind"] != "whole" or row["mask"]]
    found.sort(key=lambda spot: -(spot.box[2] - spot.box[0]) * (spot.box[3] - spot.box[1]))
    for number, row in enumerate(faces):
        known = [tuple(point) for point in row["landmarks"] or [] if point is not None and np.isfinite(point).all()]
        points = tuple((float(x), float(y)) for x, y in known)
        found.append(Spot(f"f{number}", f"face {number + 1}", "face", row["box"], None, points, row["face_id"]))
    return found


def canvas(library: Library, row: int, found: list[Spot], side_px: int, *, labels: bool) -> Html:
    """A picture with things on it.

    Args:
        library, row: which picture.
        found: drawn in this order.
        side_px: its longer side.
        labels: with their labels.
    """
    pixels = library.pixels(row)
    if isinstance(pixels, str):
        return shown(pixels)
    view = view_of(whole(pixels), side_px)
    drawing = cut(pixels, view)
    height, width = pixels.shape[:2]
    size = {"width": drawing.width, "height": drawing.height}
    href = f"data:image/jpeg;base64,{base64.b64encode(drawing.jpeg).decode()}"
    marks = [_mark(spot, view, height, width, labels=labels) for spot in found]
    return tag(
        "svg",
        {"class": "shot", "viewBox": f"0 0 {drawing.width} {drawing.height}", "role": "img"},
        tag("image", {"href": href, **size}),
        tag("g", {"class": "marks"}, *marks),
    )


def _mark(spot: Spot, view: View, height: int, width: int, *, labels: bool) -> Html:
    path = outline(spot, view, height, width)
    x0, y0, x1, y1 = view.box(spot.box)
    box = {
        "class": "box masked" if path else "box",
        "x": x0,
        "y": y0,
        "width": max(x1 - x0, 1),
        "height": max(y1 - y0, 1),
    }
    parts = [tag("title", {}, spot.title)] if spot.title else []
    parts += [tag("path", {"class": "line", "d": path})] if path else []
    parts.append(tag("rect", box))
    parts += [tag("circle", {"cx": x, "cy": y, "r": 2.0}) for x, y in (view.point(*point) for point in spot.points)]
    if labels:
        wide = 7 + 6.6 * len(spot.label)
        left, top = min(max(x0, 0.0), max(view.width - wide, 0.0)), min(max(y0, 0.0), max(view.height - 15.0, 0.0))
        plate = {"class": "plate", "x": left, "y": top, "width": wide, "height": 15, "rx": 3}
        text = {"class": "plate", "x": left + wide / 2, "y": top + 11.2, "text-anchor": "middle"}
        parts += [tag("rect", plate), tag("text", text, spot.label)]
    return tag("g", {"class": f"mark {spot.kind}", "data-key": spot.key}, *parts)


def outline(spot: Spot, view: View, height: int, width: int) -> str:
    """The outline of a mask as SVG path, traced in the surroundings of its box only.

    Args:
        spot: with the mask.
        view: of the whole picture.
        height, width: of the picture.
    """
    if spot.mask is None:
        return ""
    x0, y0, x1, y1 = spot.box
    region = boxes.pad((x0 - 4, y0 - 4, x1 + 4, y1 + 4), width, height)
    scale_x, scale_y = view.scale
    sides = (region[2] - region[0]) * scale_x, (region[3] - region[1]) * scale_y
    part = View(region, max(1, round(sides[0])), max(1, round(sides[1])))
    stretch_x, stretch_y = sides[0] / part.width, sides[1] / part.height
    left, top = view.point(region[0], region[1])

    def moved(point: re.Match[str]) -> str:
        return f"{left + float(point[1]) * stretch_x:.1f} {top + float(point[2]) * stretch_y:.1f}"

    return _POINT.sub(moved, part.outline(spot.mask, height, width))


def thumbnail(library: Library, view: str, row: int) -> Html | None:
    """What the grid shows of a row of the index; None where its row is gone."""
    if view == "pictures":
        return canvas(library, row, spots(library.objects_on(row), [])[:_MOST_MARKS], THUMBNAIL_PX, labels=False)
    if view == "faces":
        identity, unit = library.identity(view, row), library.unit_of(view, row)
        face = library.one("faces", unit, identity, ["face_id", "box", "landmarks", "crop_box", "crop"])
        return shown(face_shot(face)) if face is not None else None
    if view == "groups":
        firsts = library.index.members[library.index.members[:, 1] == row, 0]
        known = firsts[firsts >= 0]
        return thumbnail(library, "objects", int(known[0])) if len(known) else None
    listing = library.index.listings[view]
    picture = int(listing.parent[row])
    if picture < 0:
        return None
    if view == "samples":
        return thumbnail(library, "pictures", picture)
    return shown(object_drawing(library, library.identity(view, row), picture))


def object_drawing(library: Library, identity: str, picture: int) -> Shot:
    """A cut of a picture around one of its objects, which is outlined."""
    pixels = library.pixels(picture)
    found = next((one for one in library.objects_on(picture) if one["object_id"] == identity), None)
    if isinstance(pixels, str) or found is None:
        return pixels if isinstance(pixels, str) else "not found"
    return object_shot(pixels, found)


def face_drawing(face: Row) -> Shot:
    """A face crop with its box and landmarks."""
    return face_shot(face)


def sample_drawings(row: Row) -> list[Shot]:
    """The pictures of a sample with its subjects, numbered as they are listed."""
    shots: list[Shot] = []
    for index, image in enumerate(row["images"]):
        try:
            pixels = pictures.decode(image["bytes"])
        except (Rejected, Failed) as problem:
            shots.append(problem.reason)
            continue
        view = view_of(whole(pixels), LARGE_PX if len(row["images"]) == 1 else SAMPLE_PX)
        shots.append(replace(cut(pixels, view), marks=tuple(subject_marks(row, index, pixels, view))))
    return shots
