"""The outcome of an evaluation: one number a metric, what it was measured by, and the published tables beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from refloom.inference.evaluation import metrics
from refloom.inference.evaluation.cases import Benchmark
from refloom.inference.evaluation.encoders import Chosen, protocol
from refloom.inference.evaluation.metrics import Metric, Score


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of an evaluation.

    Attributes:
        metric: itself.
        value: None where nothing was measured.
        pictures: that were measured.
        protocol: what the number was measured by; None without an encoder.
        encoder: identity of the encoder.
        why: there is no value.
    """

    metric: Metric
    value: float | None
    pictures: int
    protocol: str | None
    encoder: str | None
    why: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an evaluation.

    Attributes:
        settings: what decided its pictures.
        lines: a number for each metric.
        rows: the scores of each picture.
        failures: case to why it could not be made, or picture to why it could not be measured.
        asked, made, measured: pictures.
        whole: whether all pictures of the benchmark were made and measured.
    """

    settings: dict[str, Any]
    lines: list[Line]
    rows: list[dict[str, Any]]
    failures: dict[str, str]
    asked: int
    made: int
    measured: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Published:
    """A table that others have published.

    Attributes:
        title, source, protocol: in words.
        encoders: kind to the registry's name of the encoder; None where it is not known.
        columns: names of metrics.
        rows: method, and a value for each column or None.
    """

    title: str
    source: str
    protocol: str
    encoders: Mapping[str, str | None]
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def summarise(
    benchmark: Benchmark,
    wanted: Sequence[Metric],
    rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Chosen],
    references: str,
) -> list[Line]:
    """The numbers of an evaluation.

    Args:
        benchmark: it is of.
        wanted: metrics.
        rows: of the scores: `part`, and `scores` with `[value, pairs]` or None by metric.
        chosen: the encoders.
        references: what adapters saw of a subject, for the protocol.
    """
    lines: list[Line] = []
    for metric in wanted:
        encoder = chosen[metric.encoder]
        scores = [(str(row["part"]), _score(row["scores"].get(metric.name))) for row in rows]
        present = [(part, score) for part, score in scores if score is not None]
        value = metrics.average(present, benchmark.average)
        why = None if value is not None else encoder.why or metrics.lacks(metric, benchmark) or _nothing(metric, rows)
        known_by = protocol(metric, encoder, benchmark.average, references)
        lines.append(Line(metric, value, len(present), known_by, encoder.identity, why))
    return lines


def by_part(rows: Sequence[Mapping[str, Any]], lines: Sequence[Line]) -> dict[str, dict[str, float]]:
    """Part to the mean of each metric over its pictures; metrics that have a value only."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(str(row["part"]), []).append(row)
    out: dict[str, dict[str, float]] = {}
    for part, own in parts.items():
        out[part] = {}
        for line in lines:
            found = [(part, score) for row in own if (score := _score(row["scores"].get(line.metric.name))) is not None]
            mean = metrics.average(found, "samples")
            if mean is not None:
                out[part][line.metric.name] = mean
    return out


def published(benchmark: str) -> list[Published]:
    """The tables that stand beside a benchmark's numbers."""
    text = files("refloom.inference.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    return [
        Published(
            one["title"],
            one["source"],
            one["protocol"],
            one["encoders"],
            tuple(one["columns"]),
            tuple(tuple(row) for row in one["rows"]),
        )
        for one in json.loads(text)
        if one["benchmark"] == benchmark
    ]


def beside(table: Published, lines: Sequence[Line], *, whole: bool) -> tuple[list[float | None], str]:
    """Our row of a published table, and whether its numbers may be compared.

    Args:
        table: of others.
        lines: ours.
        whole: whether all pictures of the benchmark were made and measured.
    """
    ours = {line.metric.name: line for line in lines}
    values = [ours[name].value if name in ours else None for name in table.columns]
    differences: list[str] = []
    for kind in dict.fromkeys(metrics.BY_NAME[name].encoder for name in table.columns):
        theirs = table.encoders.get(kind)
        our = next((line.encoder for line in lines if line.metric.encoder == kind and line.encoder), None)
        if theirs is None:
            differences.append(f"their {kind} encoder is not known")
        elif our is None:
            differences.append(f"there is no {kind} encoder here")
        elif our.partition("@")[0] != theirs:
            differences.append(f"theirs is {theirs}, ours {our.partition('@')[0]}")
    if not whole:
        differences.append("ours are of a part of the benchmark")
    return values, "; ".join(differences) or "the same encoders and formulas"


def _score(value: Any) -> Score | None:
    return None if value is None else (float(value[0]), int(value[1]))


def _nothing(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "no picture was measured"
    return "no photograph shows a face" if metric.encoder == "face" else "no picture could be measured"
