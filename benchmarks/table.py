"""A benchmark's result as a table, with what was asked for and whether it was met."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark measured.

    Attributes:
        title: what was measured.
        columns: names of the columns.
        rows: one list of cells per row, as text.
        notes: how it was measured, what the floor is, what is left out.
        checks: what was asked for, with the measured value, and whether it is met.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str
    checks: Sequence[tuple[str, bool]]

    def markdown(self) -> str:
        """For README.md."""
        lines = [f"### {self.title}", "", f"| {' | '.join(self.columns)} |", f"|{'---|' * len(self.columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        lines += [
            "",
            *(f"- {'met' if met else '**not met**'}: {text}" for text, met in self.checks),
            "",
            self.notes,
            "",
        ]
        return "\n".join(lines)

    def terminal(self) -> str:
        """For people at the terminal."""
        table = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(row[column]) for row in table) for column in range(len(self.columns))]
        lines = [self.title]
        lines += ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        lines += [f"  {'met' if met else 'NOT MET'}: {text}" for text, met in self.checks]
        return "\n".join(lines)


def paired(
    one: Callable[[], None],
    other: Callable[[], None],
    rounds: int,
    before: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.process_time,
) -> tuple[float, float, float]:
    """Time of two things in turn, and the median of their ratio.

    The first round of each is not counted: it pays for imports and cold caches.

    Args:
        one, other: what to time; the ratio is one / other.
        rounds: counted rounds.
        before: called before each of the two, not timed.
        clock: seconds; by default CPU time of this process: what a core has to do, whatever else the machine does.

    Returns:
        Median seconds of each, and the median ratio.
    """
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        times.append((_timed(one, before, clock), _timed(other, before, clock)))
    counted = times[1:]
    return (
        statistics.median(first for first, _ in counted),
        statistics.median(second for _, second in counted),
        statistics.median(first / second for first, second in counted),
    )


def _timed(what: Callable[[], None], before: Callable[[], None], clock: Callable[[], float]) -> float:
    before()
    start = clock()
    what()
    return clock() - start
