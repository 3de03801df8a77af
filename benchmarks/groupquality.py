"""Groups on photographs: looks, copies, identities and switches, beside November 2026.

`python -m benchmarks.groupquality [--quick]`. Every number has a 95 % interval, resampled over whole subjects,
photographs, persons or pairs of tracks.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import copyquality, identityquality, lookquality, switchquality
from benchmarks.intervals import Share
from benchmarks.table import Result
from refloom.curation.group.identities import Identities
from refloom.curation.group.settings import Group

_NOVEMBER_PEOPLE = Identities(min_cosine=0.93, poor_margin=0.0, min_agreeing=1)
_NOVEMBER_TRACKS = Group(switch_gain=None)
_NOTES = (
    "Looks: DreamBooth and MS-Bench folders given as single pictures, among the objects of COCO, SA-1B and DAVIS; held "
    "out: the strictness that is best without each subject in turn. Copies: a grid of edits of every sixth photograph "
    "against its original, and all pairs of photographs. Identities: portraits and a group photograph, with the faces "
    "of COCO as strangers. Switches: planted between all pairs of tracks of a video, gaps of 1 to 10 frames."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One number.

    Attributes:
        section: looks, copies, identities or switches.
        what: was measured.
        before: by the rules and settings of November 2026; as text where only the number is known.
        now: by those of today.
        asked: the bound and whether it is one from below; None where nothing was asked.
    """

    section: str
    what: str
    before: Share | str | None
    now: Share
    asked: tuple[float, bool] | None = None

    @property
    def met(self) -> bool:
        """Whether the number is on the right side."""
        if self.asked is None:
            return True
        bound, from_below = self.asked
        return self.now.value >= bound if from_below else self.now.value <= bound


def rows(*, quick: bool = False) -> list[Row]:
    """All numbers; `quick` edits fewer photographs."""
    return [*_looks(), *_copies(every=24 if quick else 6), *_identities(), *_switches()]


def report(found: Sequence[Row]) -> Result:
    """The rows as a table."""
    return Result(
        "Groups on photographs",
        ("section", "what", "2026-11", "now"),
        [[row.section, row.what, "" if row.before is None else str(row.before), str(row.now)] for row in found],
        _NOTES,
        [
            (f"{row.section}: {row.what}: {row.now.value:.3f}, asked {row.asked[0]}", row.met)
            for row in found
            if row.asked
        ],
    )


def run(quick: bool) -> Result:
    """As the other benchmarks."""
    return report(rows(quick=quick))


def _looks() -> list[Row]:
    scores = lookquality.measure()
    return [
        Row("looks", "recall over pairs of one subject", "0.23", scores.recall, (0.45, True)),
        Row("looks", "the same, held out", None, scores.held_out, (0.45, True)),
        Row("looks", "precision", "1.00", scores.precision, (0.98, True)),
    ]


def _copies(every: int) -> list[Row]:
    now, before = copyquality.measure(every=every)
    return [
        Row("copies", "copies found", before.recall, now.recall, (0.95, True)),
        Row("copies", "pairs of two photographs taken for copies", before.false, now.false, (0.0, False)),
        Row("copies", "pairs whose pixels are asked", None, now.asked),
    ]


def _identities() -> list[Row]:
    now, before = identityquality.measure(), identityquality.measure(_NOVEMBER_PEOPLE)
    return [
        Row("identities", "recall over pairs of one person", before.recall, now.recall, (0.9, True)),
        Row("identities", "the same, held out", before.held_out, now.held_out, (0.9, True)),
        Row("identities", "precision", before.precision, now.precision, (0.98, True)),
    ]


def _switches() -> list[Row]:
    now, before = switchquality.measure(), switchquality.measure(_NOVEMBER_TRACKS)
    found = [
        Row(
            "switches",
            "planted switches found" + (f", gap {gap}" if gap else ""),
            before.found[gap],
            now.found[gap],
            (0.9, True),
        )
        for gap in (0, 1, 5, 10)
    ]
    return [*found, Row("switches", "steps without one accused", before.accused[0], now.accused[0], (0.02, False))]


def main() -> int:
    """Print the table; 1 where something that was asked for is not met."""
    result = run("--quick" in sys.argv[1:])
    sys.stdout.write(f"{result.terminal()}\n\n{result.markdown()}")
    return 0 if all(met for _, met in result.checks) else 1


if __name__ == "__main__":
    sys.exit(main())
