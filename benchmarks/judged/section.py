"""What a section of `benchmarks.quality` gives: lines that share one table, and what was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.intervals import Share
from refloom.curation.annotate.fit import Estimate


@dataclass(frozen=True, slots=True)
class Line:
    """One number.

    Attributes:
        what: is measured.
        before: the same by the rules and settings of November 2026; None where there was none.
        now: by those of today.
    """

    what: str
    before: Estimate | Share | str | None
    now: Estimate | Share | str

    def cells(self, section: str) -> list[str]:
        """Of the table."""
        return [section, self.what, "" if self.before is None else str(self.before), str(self.now)]


@dataclass(frozen=True, slots=True)
class Section:
    """What one section measured.

    Attributes:
        lines: its numbers.
        checks: what was asked for with the number, and whether it is met.
        notes: on what and how it was measured, a sentence or two.
    """

    lines: Sequence[Line]
    checks: Sequence[tuple[str, bool]]
    notes: str
