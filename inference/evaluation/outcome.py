"""The outcome of an evaluation: one number a metric, what it was measured by, and the published tables beside it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from refloom.inference.evaluation import metrics
from refloom.inference.evaluation.cases import Benchmark
from refloom.inference.evaluation.encoders import Chosen, protocol
from refloom.inference.evaluation.instances import Finder, finder
from refloom.inference.evaluation.intervals import Interval, interval
from refloom.inference.evaluation.metrics import Metric, Score
from refloom.schemas.wording import several


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
        interval: in which the value may lie, 95 %; None for fewer than two cases.
        remarks: what befell single subjects, and how many: why they have no value, or that they count 0.
    """

    metric: Metric
    value: float | None
    pictures: int
    protocol: str | None
    encoder: str | None
    why: str | None
    interval: Interval | None = None
    remarks: Mapping[str, int] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """What the number is, or why there is none; and what is to be said of single subjects."""
        words = self.metric.means if self.why is None else f"null: {self.why}"
        return "; ".join([words, *(f"{several(count, 'subject')} {what}" for what, count in self.remarks.items())])

    @property
    def spread(self) -> str:
        """The interval in words; nothing for none."""
        return "" if self.interval is None else f"{self.interval[0]:.4f} to {self.interval[1]:.4f}"


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers of the cases with so many references alone.

    Attributes:
        references: pictures that the adapter saw in all: `1`, `2-3`, `4-5`, `6+`.
        cases, pictures: that were measured.
        protocol: of what cases, averaged how; each line has its own, too.
        lines: a number for each metric.
    """

    references: str
    cases: int
    pictures: int
    protocol: str
    lines: list[Line]

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.references} reference{'' if self.references == '1' else 's'}"

    @property
    def held(self) -> str:
        """What it is of, in words."""
        return f"{several(self.cases, 'case')}, {several(self.pictures, 'picture')}"

    @property
    def present(self) -> list[Line]:
        """The lines that have a value."""
        return [line for line in self.lines if line.value is not None]


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
        tables: the numbers by how many references the adapter saw.
    """

    settings: dict[str, Any]
    lines: list[Line]
    rows: list[dict[str, Any]]
    failures: dict[str, str]
    asked: int
    made: int
    measured: int
    whole: bool
    tables: list[Table] = field(default_factory=list)


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
    shown: str = "",
) -> list[Line]:
    """The numbers of an evaluation.

    Args:
        benchmark: it is of.
        wanted: metrics.
        rows: of the scores: `case`, `part`, `scores` with `[value, pairs]` or None by metric, and `remarks`.
        chosen: the encoders.
        references: what adapters saw of a subject, for the protocol.
        shown: how many pictures they saw in all, where the rows are of such cases alone.
    """
    finds = finder(benchmark, chosen["detector"])
    lines: list[Line] = []
    for metric in wanted:
        encoder = chosen[metric.encoder]
        each = [(str(row["case"]), str(row["part"]), _score(row["scores"].get(metric.name))) for row in rows]
        present = [(case, part, score) for case, part, score in each if score is not None]
        value = metrics.average(((part, score) for _, part, score in present), benchmark.average)
        remarks: Counter[str] = Counter()
        for row in rows:
            remarks.update(row.get("remarks", {}).get(metric.name, {}))
        known_by = protocol(metric, encoder, benchmark.average, references, finds.name, shown)
        why = (
            None if value is not None else absence(metric, benchmark, encoder, finds) or _nothing(metric, rows, remarks)
        )
        spread = interval(present, benchmark.average)
        lines.append(Line(metric, value, len(present), known_by, encoder.identity, why, spread, dict(remarks)))
    return lines


def absence(metric: Metric, benchmark: Benchmark, encoder: Chosen, finds: Finder) -> str | None:
    """Why a metric can have no value, known before anything is measured; None if it can have one.

    Args:
        metric: itself.
        benchmark: to measure on.
        encoder: of the metric.
        finds: says where the subjects are.
    """
    if encoder.why is not None:
        return encoder.why
    # a whole picture can be compared with another one, but it is no instance that was found
    unfound = metric.view == "found" and (finds.by == "nothing" or metric.name not in metrics.PARTS)
    return metrics.lacks(metric, benchmark) or (finds.why if unfound else None)


BANDS = ((1, "0"), (2, "1"), (4, "2-3"), (6, "4-5"))
"""Numbers of references below which cases stand together; the others have six and more, as MACRO and MultiBanana do."""
_MOST = "6+"


def band(count: int) -> str:
    """The table that a case with so many references belongs to."""
    return next((name for below, name in BANDS if count < below), _MOST)


def by_references(
    benchmark: Benchmark,
    wanted: Sequence[Metric],
    rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Chosen],
    limit: int | None,
) -> list[Table]:
    """The numbers by how many references the adapter saw in all, the fewest first; none for numbers that no case has.

    Args:
        benchmark, wanted, rows, chosen: as for `summarise`.
        limit: most references of a subject; None for all.
    """
    bands = {case.case_id: band(case.shown(limit)) for case in benchmark.cases}
    references = "all" if limit is None else str(limit)
    tables: list[Table] = []
    for name in (*(name for _, name in BANDS), _MOST):
        own = [row for row in rows if bands[row["case"]] == name]
        if own:
            known_by = f"{benchmark.name}/mean-over-{benchmark.average}/refs={references}/shown={name}"
            lines = summarise(benchmark, wanted, own, chosen, references, name)
            tables.append(Table(name, len({row["case"] for row in own}), len(own), known_by, lines))
    return tables


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


def _nothing(metric: Metric, rows: Sequence[Mapping[str, Any]], remarks: Mapping[str, int]) -> str:
    if not rows:
        return "no picture was measured"
    if remarks:
        return "no subject could be compared"
    return "no photograph shows a face" if metric.encoder == "face" else "no picture could be measured"
