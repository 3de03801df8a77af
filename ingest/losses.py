"""What the console says where nearly all of a kind was left out for one reason: which, the first item, and a hint."""

from collections.abc import Iterable, Mapping

import pyarrow.compute as pc

from refloom.schemas.dataset import Dataset
from refloom.schemas.hints import HINTS
from refloom.schemas.manifest import Counts
from refloom.schemas.reasons import NOTHING_TO_FIND
from refloom.schemas.wording import share, shown

NEARLY_ALL = 0.9
_LONGEST = 240
_FOLLOWS = ("image_rejected", "image_failed", "track_rejected")


def lines(dataset: Dataset, stage: str, counts: Mapping[str, Counts], units: Iterable[str] | None) -> list[str]:
    """A line for each kind of which at least `NEARLY_ALL` went for one reason; what follows from others comes last.

    Items where there was nothing to find hide no loss among the others: a reason of those is measured on them alone.

    Args:
        dataset: holds the ledger.
        stage: of the items.
        counts: by kind.
        units: whose items were counted; None for all.
    """
    found = []
    for kind, counted in sorted(counts.items()):
        lost = counted.rejected + counted.failed
        idle = sum(lost[reason] for reason in NOTHING_TO_FIND)
        for reason, number in lost.most_common():
            total = counted.input - (0 if reason in NOTHING_TO_FIND else idle)
            if number < NEARLY_ALL * total:
                continue
            verdict = "failed" if reason in counted.failed else "were rejected"
            where = " where there was something to find" if total < counted.input else ""
            told = f"{share(number, total)} of the items `{kind}`{where} ({number:,}) {verdict}: {reason}"
            first = "" if reason in _FOLLOWS else _first(dataset, stage, kind, reason, units)
            line = f"{told}{f', first {first}' if first else ''}. {HINTS[reason][:1].upper()}{HINTS[reason][1:]}"
            found.append((reason in _FOLLOWS, line))
    return [line for _, line in sorted(found, key=lambda one: one[0])]


def _first(dataset: Dataset, stage: str, kind: str, reason: str, units: Iterable[str] | None) -> str:
    """Id and detail of the first item of a kind that went for a reason; empty where the ledger has none."""
    for unit in sorted(dataset.manifests(stage) if units is None else units):
        rows = dataset.ledger(stage, unit=unit)
        if not len(rows):
            continue
        rows = rows.filter(pc.and_(pc.equal(rows["kind"], kind), pc.equal(rows["reason"], reason))).slice(0, 1)
        for row in rows.to_pylist():
            return shown(": ".join(filter(None, [row["item_id"], row["detail"]])), _LONGEST)
    return ""


def nothing_kept(counts: Mapping[str, Counts]) -> str | None:
    """Why an ingest left nothing to go on with; None if any picture was kept."""
    pictures = counts.get("image", Counts())
    if pictures.kept:
        return None
    return (
        f"nothing was kept: none of {pictures.input:,} pictures" if pictures.input else "nothing was kept: no pictures"
    )
