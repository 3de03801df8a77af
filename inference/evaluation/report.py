"""The outcome as json and Markdown, and the page beside them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from refloom.inference.evaluation import outcome
from refloom.inference.evaluation.cases import Benchmark
from refloom.inference.evaluation.gallery import Exhibit
from refloom.inference.evaluation.metrics import BY_NAME
from refloom.inference.evaluation.outcome import Line, Outcome, Published
from refloom.inference.evaluation.page import HEAD, page
from refloom.schemas import strict
from refloom.schemas.storage import Folder

NAMES = ("results.json", "results.md", "results.html")


def write(folder: Folder, benchmark: Benchmark, exhibits: Sequence[Exhibit], found: Outcome) -> None:
    """Write all three, the page with pictures beside their references."""
    tables = outcome.published(benchmark.name)
    made = (as_json(benchmark, found, tables), as_markdown(benchmark, found, tables))
    for name, text in zip(NAMES, (*made, page(folder, benchmark, exhibits, found, tables)), strict=True):
        folder.write(name, text.encode())


def as_json(benchmark: Benchmark, found: Outcome, tables: Sequence[Published]) -> str:
    """All of it, for programs."""
    beside = []
    for table in tables:
        ours, comparable = outcome.beside(table, found.lines, whole=found.whole)
        beside.append(asdict(table) | {"ours": ours, "comparable": comparable})
    value = {
        "benchmark": benchmark.name,
        "settings": found.settings,
        "pictures": {"asked": found.asked, "made": found.made, "measured": found.measured},
        "whole": found.whole,
        "metrics": [_as_object(line) for line in found.lines],
        "tables": [
            {
                "references": table.references,
                "cases": table.cases,
                "pictures": table.pictures,
                "protocol": table.protocol,
                "metrics": [_as_object(line) for line in table.lines],
            }
            for table in found.tables
        ],
        "parts": outcome.by_part(found.rows, found.lines),
        "published": beside,
        "failures": found.failures,
        "notes": list(benchmark.notes),
    }
    return strict.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _as_object(line: Line) -> dict[str, Any]:
    return {
        "name": line.metric.name,
        "value": line.value,
        "interval": line.interval,
        "pictures": line.pictures,
        "protocol": line.protocol,
        "encoder": line.encoder,
        "why": line.why,
        "remarks": dict(line.remarks),
    }


def as_markdown(benchmark: Benchmark, found: Outcome, tables: Sequence[Published]) -> str:
    """All of it but the parts, for people."""
    models = found.settings["models"]
    blocks = [
        f"# {benchmark.title}: {models['adapter']} on {models['base']}",
        summary(found),
        "\n".join(f"- {note}" for note in benchmark.notes),
        "## Scores",
        _scores(found.lines),
    ]
    for own in found.tables:
        blocks += [f"### {own.title}", f"{own.held}; `{own.protocol}`", _scores(own.present)]
    for table in tables:
        ours, comparable = outcome.beside(table, found.lines, whole=found.whole)
        rows = [[str(row[0]), *map(number, row[1:])] for row in table.rows]
        rows.append(["**this evaluation**", *map(number, ours)])
        blocks += [
            f"## Published: {table.title}",
            f"{table.source}. {table.protocol}. Beside this evaluation: {comparable}.",
            _table(("method", *(BY_NAME[name].title for name in table.columns)), rows),
        ]
    if found.failures:
        blocks += ["## Failures", "\n".join(f"- {name}: {_line(why)}" for name, why in found.failures.items())]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _scores(lines: Sequence[Line]) -> str:
    return _table(
        HEAD,
        (
            (
                line.metric.title,
                number(line.value),
                f"{line.pictures:,}",
                f"`{line.protocol}`" if line.protocol else "",
                line.said,
                line.spread,
            )
            for line in lines
        ),
    )


def summary(found: Outcome) -> str:
    """Counts in one sentence."""
    words = f"{found.measured:,} of {found.asked:,} pictures measured, {len(found.failures):,} failures"
    return words + ("." if found.whole else "; not the whole benchmark.")


def number(value: float | None) -> str:
    """A score with four digits; nothing for none."""
    return "" if value is None else f"{value:.4f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split())
