"""Groups on photographs: looks, copies, identities and switches.

Every number has a 95 % interval, resampled over whole subjects, photographs, persons or pairs of tracks.
"""

from dataclasses import dataclass

from benchmarks.intervals import Share
from benchmarks.judged import copies, identities, looks, switches
from benchmarks.judged.section import Line, Section
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
class _Row:
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


def run(quick: bool) -> Section:
    """All numbers; `quick` edits fewer photographs."""
    rows = [*_looks(), *_copies(every=24 if quick else 6), *_identities(), *_switches()]
    return Section(
        [Line(f"{row.section}: {row.what}", row.before, row.now) for row in rows],
        [
            (f"{row.section}: {row.what}: {row.now.value:.3f}, asked {row.asked[0]}", row.met)
            for row in rows
            if row.asked
        ],
        _NOTES,
    )


def _looks() -> list[_Row]:
    scores = looks.measure()
    return [
        _Row("looks", "recall over pairs of one subject", "0.23", scores.recall, (0.45, True)),
        _Row("looks", "the same, held out", None, scores.held_out, (0.45, True)),
        _Row("looks", "precision", "1.00", scores.precision, (0.98, True)),
    ]


def _copies(every: int) -> list[_Row]:
    now, before = copies.measure(every=every)
    return [
        _Row("copies", "copies found", before.recall, now.recall, (0.95, True)),
        _Row("copies", "pairs of two photographs taken for copies", before.false, now.false, (0.0, False)),
        _Row("copies", "pairs whose pixels are asked", None, now.asked),
    ]


def _identities() -> list[_Row]:
    now, before = identities.measure(), identities.measure(_NOVEMBER_PEOPLE)
    return [
        _Row("identities", "recall over pairs of one person", before.recall, now.recall, (0.9, True)),
        _Row("identities", "the same, held out", before.held_out, now.held_out, (0.9, True)),
        _Row("identities", "precision", before.precision, now.precision, (0.98, True)),
    ]


def _switches() -> list[_Row]:
    now, before = switches.measure(), switches.measure(_NOVEMBER_TRACKS)
    found = [
        _Row(
            "switches",
            "planted switches found" + (f", gap {gap}" if gap else ""),
            before.found[gap],
            now.found[gap],
            (0.9, True),
        )
        for gap in (0, 1, 5, 10)
    ]
    return [*found, _Row("switches", "steps without one accused", before.accused[0], now.accused[0], (0.02, False))]
