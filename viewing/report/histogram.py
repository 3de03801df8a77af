"""Charts as inline SVG: colours are classes of the style sheet, hover texts are `title` elements."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from refloom.curation.annotate.quality import ramp as ramp_score
from refloom.schemas import wording
from refloom.schemas.pages.axis import ticks
from refloom.schemas.pages.markup import Html, tag
from refloom.viewing.report.distribution import Histogram

_WIDTH, _HEIGHT = 300, 154
_LEFT, _RIGHT, _TOP, _BOTTOM = 4, 296, 26, 112
_BROKEN = 3.0
"""A bin that is this many times as high as the next is cut off, or nothing else could be seen."""
_RAMP_POINTS = 80

Score = dict[str, Any]


def stacked(parts: Sequence[tuple[str, str, int]], total: int) -> Html:
    """One horizontal bar.

    Args:
        parts: class, title and count of each part, from left to right.
        total: what the whole width stands for.
    """
    shapes = []
    x = 0.0
    for kind, title, number in parts:
        width = 1000 * number / max(total, 1)
        shapes.append(
            tag("rect", {"class": kind, "x": x, "y": 0, "width": width, "height": 16}, tag("title", {}, title))
        )
        x += width
    return tag(
        "svg",
        {"class": "bar", "viewBox": "0 0 1000 16", "preserveAspectRatio": "none", "role": "img"},
        tag("title", {}, "; ".join(title for _, title, _ in parts)) if not shapes else None,
        *shapes,
    )


def score_chart(name: str, score: Score, levels: Sequence[int]) -> Html:
    """The histogram of a score with thresholds, ramp, axis and a strip of its quantiles.

    Args:
        name: of the score, for readers that see no picture.
        score: as in the figures, with a histogram.
        levels: percent of its quantiles.
    """
    drawn = score["histogram"]
    shape = Histogram(drawn["edges"], drawn["is_log"], drawn["counts"])
    return tag(
        "svg",
        {"class": "chart", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": f"histogram of {name}"},
        *_outside(shape, score["thresholds"]),
        *_bins(shape),
        *_ramp(shape, score["ramp"]),
        *_axis(shape),
        *_thresholds(shape, score["thresholds"]),
        *_quantile_strip(shape, dict(zip(levels, score["quantiles"], strict=True))),
    )


def _x(shape: Histogram, value: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * shape.place(value)


def _bins(shape: Histogram) -> list[Html]:
    """Stacked bars, and over each bin a field as high as the chart to point at."""
    totals = np.sum(list(shape.counts.values()), axis=0)
    highest = int(totals.max())
    second = int(np.sort(totals)[-2]) if len(totals) > 1 else highest
    top = highest if second == 0 or highest <= _BROKEN * second else round(1.5 * second)
    high = _BOTTOM - _TOP
    out = []
    width = (_RIGHT - _LEFT) / len(totals)
    for index, total in enumerate(totals.tolist()):
        x = _LEFT + index * width
        y = float(_BOTTOM)
        for series, counts in shape.counts.items():
            size = high * counts[index] / top
            if counts[index]:
                size = max(size, 0.8)  # one of ten thousand is still to be seen
                shown = min(size, y - _TOP)
                y -= shown
                box = {"class": series, "x": x + 0.4, "y": y, "width": width - 0.8, "height": shown}
                out.append(tag("rect", box))
        if total > top:
            out.append(tag("path", {"class": "break", "d": f"M{x - 1:.1f} {_TOP + 9}l{width + 2:.1f} -4"}))
            at_end = x > (_LEFT + _RIGHT) / 2
            spot = {"class": "small", "x": x - 3 if at_end else x + width + 3, "y": _TOP + 8}
            out.append(tag("text", spot | {"text-anchor": "end" if at_end else None}, wording.count(total)))
        out.append(_field(shape, index, x, width))
    return out


def _field(shape: Histogram, index: int, x: float, width: float) -> Html:
    counts = [(name, values[index]) for name, values in shape.counts.items() if values[index]]
    low, high = wording.value(shape.edges[index]), wording.value(shape.edges[index + 1])
    ends = {0: f"up to {high}", len(shape.edges) - 2: f"{low} and more"}
    said = ", ".join(f"{wording.count(number)} {name}" for name, number in counts) or "none"
    title = tag("title", {}, f"{ends.get(index, f'{low} to {high}')}: {said}")
    return tag("rect", {"class": "field", "x": x, "y": _TOP, "width": width, "height": _BOTTOM - _TOP}, title)


def _outside(shape: Histogram, thresholds: list[Score]) -> list[Html]:
    """A wash over what a threshold leaves out."""
    out = []
    for threshold in thresholds:
        x = _x(shape, threshold["bound"])
        start, end = (_LEFT, x) if threshold["keeps_above"] else (x, _RIGHT)
        box = {"class": "outside", "x": start, "y": _TOP, "width": max(end - start, 0.0), "height": _BOTTOM - _TOP}
        out.append(tag("rect", box))
    return out


def threshold_words(threshold: Score) -> str:
    """A bound with its setting, and whom it is for where that is not everyone."""
    note = f" ({threshold['note']})" if threshold["note"] else ""
    return f"{threshold['setting']} = {threshold['bound']:g}{note}"


def _thresholds(shape: Histogram, thresholds: list[Score]) -> list[Html]:
    out = []
    for place, threshold in enumerate(thresholds):
        x = _x(shape, threshold["bound"])
        sign = "≥" if threshold["keeps_above"] else "≤"
        title = threshold_words(threshold)
        towards_end = x < (_LEFT + _RIGHT) / 2
        y = _TOP - 4 - 11 * (place % 2 if len(thresholds) > 1 else 0)
        out.append(
            tag(
                "g",
                {"class": "threshold"},
                tag("title", {}, title),
                tag("line", {"x1": x, "x2": x, "y1": y - 7, "y2": _BOTTOM}),
                tag(
                    "text",
                    {"x": x + (3 if towards_end else -3), "y": y, "text-anchor": None if towards_end else "end"},
                    f"{sign} {wording.short(threshold['bound'])}",
                ),
            )
        )
    return out


def _ramp(shape: Histogram, points: list[list[float]] | None) -> list[Html]:
    """What a value is worth for the quality: 0 at the bottom, 1 at the top."""
    if not points:
        return []
    places = np.linspace(0, 1, _RAMP_POINTS + 1)
    low, high = shape.edges[0], shape.edges[-1]
    values = np.geomspace(low, high, len(places)) if shape.is_log else low + places * (high - low)
    worth = ramp_score(values, tuple((float(value), float(score)) for value, score in points))
    line = " ".join(
        f"{_LEFT + (_RIGHT - _LEFT) * place:.1f},{_BOTTOM - (_BOTTOM - _TOP) * score:.1f}"
        for place, score in zip(places, worth, strict=True)
    )
    written = ", ".join(f"{value:g} → {score:g}" for value, score in points)
    return [tag("polyline", {"class": "ramp", "points": line}, tag("title", {}, f"worth for the quality: {written}"))]


def _axis(shape: Histogram) -> list[Html]:
    out = [tag("line", {"class": "axis", "x1": _LEFT, "x2": _RIGHT, "y1": _BOTTOM, "y2": _BOTTOM})]
    for tick in ticks(shape.edges[0], shape.edges[-1], shape.is_log):
        x = _x(shape, tick)
        anchor = "start" if x < _LEFT + 12 else "end" if x > _RIGHT - 12 else "middle"
        out.append(tag("line", {"class": "axis", "x1": x, "x2": x, "y1": _BOTTOM, "y2": _BOTTOM + 3}))
        out.append(
            tag("text", {"class": "tick", "x": x, "y": _BOTTOM + 14, "text-anchor": anchor}, wording.short(tick))
        )
    return out


def _quantile_strip(shape: Histogram, quantiles: dict[int, float]) -> list[Html]:
    """A thin line from 5 to 95 %, a thick one from 25 to 75 %, a dot at the median."""
    x = {level: _x(shape, value) for level, value in quantiles.items()}
    y = _HEIGHT - 14
    said = ", ".join(f"{level} %: {wording.value(value)}" for level, value in quantiles.items())
    return [
        tag(
            "g",
            {"class": "quantiles"},
            tag("title", {}, said),
            tag("rect", {"class": "field", "x": _LEFT, "y": y - 8, "width": _RIGHT - _LEFT, "height": 16}),
            tag("line", {"x1": x[5], "x2": x[95], "y1": y, "y2": y}),
            tag("line", {"class": "middle", "x1": x[25], "x2": max(x[75], x[25] + 1), "y1": y, "y2": y}),
            tag("circle", {"cx": x[50], "cy": y, "r": 3.5}),
        )
    ]
