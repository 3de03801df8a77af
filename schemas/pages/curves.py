"""Curves of a run as inline SVG; colours are classes of the style sheet, hover texts are `title` elements."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from refloom.schemas import wording
from refloom.schemas.pages.axis import ticks
from refloom.schemas.pages.markup import Html, tag

POINTS = 240
"""That a curve has at most; more of them are averaged."""

_WIDTH, _HEIGHT = 320, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 312, 10, 144
_FIELDS = 60
_OUTSIDE = 1.0
"""Percent of the values at either end that may lie outside; they are drawn at the edge."""
_SMOOTH = 12
"""The smooth curve is a mean over so many times fewer points."""

Floats = npt.NDArray[np.float64]
Place = Callable[[float, float], tuple[float, float]]


def curve(name: str, steps: Sequence[float], values: Sequence[float | None], *, smooth: bool = False) -> Html | None:
    """A curve over steps.

    Args:
        name: of the values, for readers that see no picture.
        steps: (N,), rising.
        values: (N,); None and what is not finite is left out.
        smooth: draw a moving mean over it, and the values themselves faint.

    Returns:
        The chart, or None if there is no value.
    """
    x, y = thinned(steps, values)
    if not len(x):
        return None
    low, high = _range(y)
    first, last = _ends(float(x[0]), float(x[-1]))

    def place(step: float, value: float) -> tuple[float, float]:
        across = _LEFT + (_RIGHT - _LEFT) * (step - first) / (last - first)
        return across, _BOTTOM - (_BOTTOM - _TOP) * (min(max(value, low), high) - low) / (high - low)

    def line(kind: str, heights: Floats) -> Html:
        points = [place(*one) for one in zip(x.tolist(), heights.tolist(), strict=True)]
        if len(points) == 1:
            return tag("circle", {"class": f"dot {kind}", "cx": points[0][0], "cy": points[0][1], "r": 2.5})
        return tag("polyline", {"class": f"line {kind}", "points": " ".join(f"{a:.1f},{b:.1f}" for a, b in points)})

    smoothed = smooth and len(x) > 2 * _SMOOTH
    return tag(
        "svg",
        {"class": "chart curve", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": f"{name} by step"},
        *_grid(low, high, place, first),
        *_steps(first, last),
        line("faint" if smoothed else "plain", y),
        line("plain", moving_mean(y)) if smoothed else None,
        *_fields(x, y, place),
    )


def thinned(steps: Sequence[float], values: Sequence[float | None]) -> tuple[Floats, Floats]:
    """At most `POINTS` means of neighbouring points, of those that are finite."""
    x = np.array(steps, np.float64)
    y = np.array([math.nan if value is None else value for value in values], np.float64)
    known = np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) <= POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), POINTS)
    return np.array([x[part[-1]] for part in parts]), np.array([y[part].mean() for part in parts])


def moving_mean(values: Floats) -> Floats:
    """Means over neighbours at either side, fewer at the ends."""
    reach = max(1, len(values) // _SMOOTH // 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    start, end = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    means: Floats = (sums[end] - sums[start]) / (end - start)
    return means


def _range(values: Floats) -> tuple[float, float]:
    low, high = (float(edge) for edge in np.percentile(values, [_OUTSIDE, 100 - _OUTSIDE]))
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    above = float(values.min()) >= 0
    return (max(low - margin, 0.0) if above else low - margin), high + margin


def _ends(first: float, last: float) -> tuple[float, float]:
    return (first, last) if last > first else (first - 1, last + 1)


def _grid(low: float, high: float, place: Place, first: float) -> list[Html]:
    out = []
    for tick in ticks(low, high, False, most=4):
        y = place(first, tick)[1]
        out.append(tag("line", {"class": "grid", "x1": _LEFT, "x2": _RIGHT, "y1": y, "y2": y}))
        out.append(tag("text", {"x": _LEFT - 5, "y": y + 3, "text-anchor": "end"}, wording.short(tick)))
    return out


def _steps(first: float, last: float) -> list[Html]:
    out = [tag("line", {"class": "axis", "x1": _LEFT, "x2": _RIGHT, "y1": _BOTTOM, "y2": _BOTTOM})]
    for tick in ticks(first, last, False, most=4):
        if tick != round(tick):
            continue
        x = _LEFT + (_RIGHT - _LEFT) * (tick - first) / (last - first)
        anchor = "end" if x > _RIGHT - 12 else "middle"
        out.append(tag("line", {"class": "axis", "x1": x, "x2": x, "y1": _BOTTOM, "y2": _BOTTOM + 3}))
        out.append(tag("text", {"x": x, "y": _BOTTOM + 14, "text-anchor": anchor}, wording.short(tick)))
    return out


def _fields(x: Floats, y: Floats, place: Place) -> list[Html]:
    """Fields as high as the chart to point at."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _FIELDS)).round().astype(int))
    width = (_RIGHT - _LEFT) / len(chosen)
    out = []
    for at in chosen.tolist():
        middle = place(float(x[at]), float(y[at]))[0]
        box = {"class": "field", "x": middle - width / 2, "y": _TOP, "width": width, "height": _BOTTOM - _TOP}
        said = f"step {wording.count(int(x[at]))}: {wording.value(float(y[at]))}"
        out.append(tag("rect", box, tag("title", {}, said)))
    return out
