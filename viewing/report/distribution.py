"""How the values of one score are spread: histograms over a robust range, quantiles. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 40
LEVELS = (0, 1, 5, 25, 50, 75, 95, 99, 100)
"""Percent of the quantiles that a report gives."""

_OUTSIDE = 0.5
"""Percent of the values at either end that may lie outside the drawn range; they count in the outermost bin."""
_MOST_OF_SPAN = 0.6
_LOG_DECADES = 12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in bins.

    Attributes:
        edges: B + 1 rising edges; the outermost bins also count what lies beyond them.
        is_log: whether the bins are equally wide on a logarithmic axis.
        counts: series to its B counts.
    """

    edges: list[float]
    is_log: bool
    counts: dict[str, list[int]]

    def place(self, value: float) -> float:
        """Where a value lies on the axis, 0 for the left end and 1 for the right."""
        low, high = self.edges[0], self.edges[-1]
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)


def quantiles(values: Floats) -> list[float] | None:
    """The quantiles at `LEVELS` of the values that are not NaN; None without any."""
    known = values[~np.isnan(values)]
    return [float(value) for value in np.percentile(known, LEVELS)] if len(known) else None


def histogram(
    series: Mapping[str, Floats],
    *,
    marks: Sequence[float] = (),
    is_log: bool = False,
    span: tuple[float, float] = (-math.inf, math.inf),
) -> Histogram | None:
    """Count the values of one score; NaN is not counted.

    Args:
        series: name to values, for example of kept and of rejected objects.
        marks: values that must lie in the drawn range, for example thresholds.
        is_log: equally wide bins on a logarithmic axis; values of zero and less go into the first bin.
        span: of possible values.

    Returns:
        The histogram, or None if there is no value at all.
    """
    known = {name: values[~np.isnan(values)] for name, values in series.items()}
    everything = np.concatenate(list(known.values())) if known else np.zeros(0)
    if not len(everything):
        return None
    is_log = is_log and bool((everything > 0).any())
    low, high = _range(everything, marks, is_log, span)
    edges = _edges(everything, low, high, is_log)
    inside = np.nextafter(edges[-1], edges[0])  # numpy closes the last bin, and a clipped value must not fall behind it
    counts = {
        name: np.histogram(np.clip(values, edges[0], inside), edges)[0].tolist() for name, values in known.items()
    }
    return Histogram([float(edge) for edge in edges], is_log, counts)


def _range(values: Floats, marks: Sequence[float], is_log: bool, span: tuple[float, float]) -> tuple[float, float]:
    drawn = values[values > 0] if is_log else values
    low, high = (float(edge) for edge in np.percentile(drawn, [_OUTSIDE, 100 - _OUTSIDE]))
    is_bounded = math.isfinite(span[0]) and math.isfinite(span[1])
    if is_bounded and not is_log and high - low > _MOST_OF_SPAN * (span[1] - span[0]):
        low, high = span
    wanted = [mark for mark in marks if math.isfinite(mark) and (mark > 0 or not is_log)]
    low, high = min([low, *wanted]), max([high, *wanted])
    if is_log:
        return max(low / 1.1, high * 10.0**-_LOG_DECADES), high * 1.1
    margin = 0.02 * (high - low) or max(0.05 * abs(low), 1e-3)
    low, high = low - margin, high + margin
    # a margin is for marks at the edge; it must not show values that cannot be, unless it is all there is
    bounded = max(low, span[0]), min(high, span[1])
    return bounded if bounded[1] > bounded[0] else (low, high)


def _edges(values: Floats, low: float, high: float, is_log: bool) -> Floats:
    if is_log:
        return np.geomspace(low, high, BINS + 1, dtype=np.float64)
    first, last = math.floor(low), math.ceil(high)
    if last - first <= BINS and bool((values == np.round(values)).all()) and last - first > 1:
        return np.arange(first, last + 2, dtype=np.float64) - 0.5  # whole numbers: one bin each
    return np.linspace(low, high, BINS + 1, dtype=np.float64)
