"""One picture of a contact sheet as HTML: thumbnail, marks over it, a line of text below, more when pointed at."""

import base64
from collections.abc import Iterable

from refloom.schemas.pages.markup import Child, Html, tag
from refloom.viewing.outlines import Drawing, Mark

_COLOURS = 8
_POINT_PX = 2.0


def tile(shot: Drawing | str | None, caption: Child, detail: str, *, kind: str = "", badge: Child = None) -> Html:
    """A tile.

    Args:
        shot: the thumbnail, or the word for why there is none.
        caption: below it.
        detail: lines of text, shown when pointed at.
        kind: further classes: kept, rejected, wide ...
        badge: a short value at the right of the caption.
    """
    return tag(
        "figure",
        {"class": f"tile {kind}".strip(), "title": detail},
        picture(shot),
        tag(
            "figcaption",
            {},
            tag("span", {"class": "name"}, caption),
            tag("span", {"class": "badge"}, badge) if badge is not None else None,
        ),
    )


def picture(shot: Drawing | str | None) -> Html:
    """A thumbnail with its marks, or a grey field that says why there is none."""
    if not isinstance(shot, Drawing):
        return tag("div", {"class": "shot missing"}, tag("span", {}, shot or "not found"))
    data = base64.b64encode(shot.jpeg).decode()
    size = {"width": shot.width, "height": shot.height}
    return tag(
        "svg",
        {"class": "shot", "viewBox": f"0 0 {shot.width} {shot.height}", "role": "img"},
        tag("image", {"href": f"data:image/jpeg;base64,{data}", **size}),
        tag("g", {"class": "marks"}, *(_mark(mark, shot) for mark in shot.marks)) if shot.marks else None,
    )


def _mark(mark: Mark, shot: Drawing) -> Html:
    parts: list[Html] = []
    if mark.title:
        parts.append(tag("title", {}, mark.title))
    if mark.outline and not mark.label:
        around = f"M0 0H{shot.width}V{shot.height}H0Z"
        parts.append(tag("path", {"class": "dim", "d": around + mark.outline}))
    if mark.outline:
        parts.append(tag("path", {"class": "line", "d": mark.outline}))
    if mark.box is not None:
        x0, y0, x1, y1 = mark.box
        place = {"x": x0, "y": y0, "width": max(x1 - x0, 0.0), "height": max(y1 - y0, 0.0)}
        parts.append(tag("rect", {"class": "box", **place}))
    parts += [tag("circle", {"cx": x, "cy": y, "r": _POINT_PX}) for x, y in mark.points]
    if mark.label and mark.box is not None:
        parts += _label(mark, shot)
    return tag("g", {"class": f"mark s{mark.group % _COLOURS}" if mark.label else "mark"}, *parts)


def _label(mark: Mark, shot: Drawing) -> list[Html]:
    """The number of a subject in the corner of its box, inside the picture."""
    assert mark.box is not None
    width, height = 6 + 6 * len(mark.label), 12
    x = min(max(mark.box[0], 0), shot.width - width)
    y = min(max(mark.box[1], 0), shot.height - height)
    return [
        tag("rect", {"class": "plate", "x": x, "y": y, "width": width, "height": height, "rx": 2}),
        tag("text", {"class": "plate", "x": x + width / 2, "y": y + 9.5, "text-anchor": "middle"}, mark.label),
    ]


def sheet(tiles: Iterable[Html], kind: str = "") -> Html:
    """Tiles side by side."""
    return tag("div", {"class": f"sheet {kind}".strip()}, *tiles)
