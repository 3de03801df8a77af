"""What a section of `benchmarks.quality` gives: lines that share one table, and what was asked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    before: Estimate | None
    now: Estimate

    def cells(self, section: str) -> list[str]:
        """Of the table."""
        return [section, self.what, written(self.before), written(self.now)]


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


def written(number: Estimate | None) -> str:
    """A number and its interval."""
    return "" if number is None else f"{number.value:.3f} ({number.low:.3f} to {number.high:.3f})"


def photographs() -> Path:
    """The folder of real photographs: $REFLOOM_PHOTOGRAPHS, else `shared/data` beside the checkout."""
    given = os.environ.get("REFLOOM_PHOTOGRAPHS")
    return Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"
