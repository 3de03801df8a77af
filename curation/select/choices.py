"""Verdicts of bounds, caps and shares on the candidates of a dataset, for `compose` to follow."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from refloom.curation.config import Curation
from refloom.curation.select.balance import AXES, Balance, Balanced, Ranked, balanced
from refloom.curation.select.candidates import Candidate, list_candidates
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitWriter

VERSION = 3

Row = dict[str, Any]


def choose_dataset(dataset: Dataset, config: Curation) -> dict[str, list[Row]]:
    """Unit to rows of `choices`; empty, and nothing is read, where no bound, cap or share is set."""
    if not (config.balance.is_set or config.pairs.is_set):
        return {}
    found = list_candidates(dataset, config.compose, config.pairs)
    inside = [one for candidates in found.values() for one in candidates if one.outside is None]
    verdicts = dict(zip((one.sample_id for one in inside), _judged(inside, config.balance), strict=True))
    return {
        unit: [row for one in candidates if (row := _verdict(one, verdicts.get(one.sample_id))) is not None]
        for unit, candidates in found.items()
    }


def _verdict(candidate: Candidate, limited: Row | None) -> Row | None:
    """The row of a candidate; None where neither a limit nor a bound touches it."""
    if candidate.outside is not None:
        return _outside(candidate)
    if candidate.references is None:
        return limited
    row = limited or {"sample_id": candidate.sample_id, "verdict": "keep", "reason": None, "why": "pairs inside bounds"}
    return row | {"references": candidate.references}


def _judged(candidates: list[Candidate], config: Balance) -> Iterable[Row | None]:
    """The row of each candidate, None for those that no limit touches."""
    ranked = Ranked(
        ids=[one.sample_id for one in candidates],
        strata={axis: [getattr(one, axis) for one in candidates] for axis in AXES},
        splits=[one.split for one in candidates],
        scores=np.array([one.score for one in candidates], np.float64),
    )
    result = balanced(ranked, config)
    return (_row(candidates[place], place, result, config.by) for place in range(len(candidates)))


def _row(candidate: Candidate, place: int, result: Balanced, by: str) -> Row | None:
    strata = result.full[place]
    if not strata:
        return None
    kept = bool(result.kept[place])
    return {
        "sample_id": candidate.sample_id,
        "verdict": "keep" if kept else "reject",
        "reason": None if kept else "over_cap",
        "why": f"{_place(candidate, float(result.draws[place]), by)} under a limit on {_listed(strata)}",
    }


def _place(candidate: Candidate, draw: float, by: str) -> str:
    """Where it stands in the order, by what is its own: a rank would change with every other candidate."""
    if by == "hash":
        return f"drawn at {draw:.4f}"
    what = "mean similarity" if candidate.kind == "group" else "quality"
    return f"{what} {candidate.score:.3f}" if candidate.score == candidate.score else f"no {what}"


def _listed(strata: tuple[str, ...]) -> str:
    names = ["all samples" if name == "samples/all" else name for name in strata]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _outside(candidate: Candidate) -> Row:
    reason, score = candidate.outside or ("", "")
    return {"sample_id": candidate.sample_id, "verdict": "reject", "reason": reason, "why": score}


def write_choices(rows: list[Row], out: UnitWriter) -> None:
    """The rows of one unit; every row says its verdict, so that a ledger row would say it twice."""
    for row in rows:
        kind = row["sample_id"].partition("/")[0]
        out.expect(kind)
        out.add("choices", row)
        if row["verdict"] == "keep":
            out.keep(kind)
        else:
            out.items[kind].rejected[row["reason"]] += 1
