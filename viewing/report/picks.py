"""What the contact sheets show: pure choices among the candidates of a survey, the same for the same dataset."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from refloom.curation.group.bounds import Pairs
from refloom.curation.objects import float_array
from refloom.curation.select.settings import Select
from refloom.schemas.labels import GOOD
from refloom.viewing.report.survey import KEPT, Survey
from refloom.viewing.report.threshold import Effect, Threshold, effects, pair_effects, whole_effect

PICTURES = 16
KEPT_OBJECTS = 48
UNDECIDED_OBJECTS = 32
REJECTED_PER_REASON = 8
AT_THRESHOLD = 6
"""Objects on either side."""
JUDGED = 16
"""Judged objects of each sheet."""
GROUPS_AT_THRESHOLD = 3
FACES = 40
GROUPS = {"track": 12, "identity": 12, "look": 12, "folder": 12}
"""Of each kind, in the order of the page."""
PAIRS = 24
SAMPLES_PER_KIND = 4

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Strip:
    """Objects or groups whose fate hangs on one threshold, nearest to it.

    Attributes:
        threshold: which.
        outside: rejected by it alone, the nearest first.
        inside: kept, the nearest first.
    """

    threshold: Threshold
    outside: list[Row]
    inside: list[Row]


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows of candidates, each with `id`, `unit`, scores, and for objects `image_id`, `reason` and words.

    Attributes:
        pictures: as they are.
        kept, undecided: objects, by rising quality.
        rejected: reason to objects.
        strips: for each threshold of `select`, of objects.
        group_strips: for each bound of `pairs`, of groups.
        faces: by rising det_score.
        groups: kind to groups, by rising mean similarity.
        pairs: copies that go with what stays, kind by kind, by rising similarity.
        samples: kind to samples.
        judged: kept_poor, rejected_good, kept_good and rejected_poor to judged objects, the nearest first to the
            threshold of quality.
    """

    pictures: list[Row] = field(default_factory=list)
    kept: list[Row] = field(default_factory=list)
    undecided: list[Row] = field(default_factory=list)
    rejected: dict[str, list[Row]] = field(default_factory=dict)
    strips: list[Strip] = field(default_factory=list)
    group_strips: list[Strip] = field(default_factory=list)
    faces: list[Row] = field(default_factory=list)
    groups: dict[str, list[Row]] = field(default_factory=dict)
    pairs: list[Row] = field(default_factory=list)
    samples: dict[str, list[Row]] = field(default_factory=dict)
    judged: dict[str, list[Row]] = field(default_factory=dict)

    def objects(self) -> list[Row]:
        """All chosen objects; one may come more than once."""
        strips = [row for strip in self.strips for row in (*strip.outside, *strip.inside)]
        sheets = [row for rows in (*self.rejected.values(), *self.judged.values()) for row in rows]
        return [*self.kept, *self.undecided, *sheets, *strips]

    def every_group(self) -> list[Row]:
        """All chosen groups; one may come more than once."""
        strips = [row for strip in self.group_strips for row in (*strip.outside, *strip.inside)]
        return [*(row for rows in self.groups.values() for row in rows), *strips]


def choose(found: Survey, select: Select | None, pairs: Pairs | None = None) -> Choice:
    """Choose what to show.

    Args:
        found: the survey.
        select: settings that the objects were selected with, or None before selection.
        pairs: bounds that the groups were judged by, or None before that.
    """
    candidates = {name: tally.candidates() for name, tally in found.tallies.items()}
    groups, samples = candidates["groups"], candidates["samples"]
    choice = Choice(
        pictures=_pictures(found.pictures),
        faces=_spread(candidates["faces"], "det_score", FACES),
        groups={kind: _spread(_of_kind(groups, kind), "mean_similarity", count) for kind, count in GROUPS.items()},
        pairs=_pairs(found.duplicates),
        samples={
            kind: _samples(_of_kind(samples, kind), place)
            for kind, place in (("image", 1), ("video", 1), ("group", 2), ("cross", 1))
        },
        rejected=_rejected(found.objects),
        kept=_spread(_by_reason(found.objects, KEPT), "quality", KEPT_OBJECTS),
        undecided=_spread(_by_reason(found.objects, None), "quality", UNDECIDED_OBJECTS),
    )
    if select is not None:
        choice.judged.update(_judged(found.judged, select.min_quality))
        choice.strips.extend(_strips(candidates["objects"], candidates["wholes"], select))
    if pairs is not None and groups is not None:
        choice.group_strips.extend(
            _strip(groups, effect, GROUPS_AT_THRESHOLD) for effect in pair_effects(groups, pairs)
        )
    return choice


def spread(values: npt.NDArray[np.float64], count: int) -> list[int]:
    """Places of `count` values evenly spread over their ranks, by rising value; NaN comes first."""
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")
    picks = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(place) for place in order[picks]]


def _at(rows: pa.Table, places: Iterable[int]) -> pa.Table:
    return rows.take(pa.array(places, pa.int64()))


def _rows(rows: pa.Table, places: Iterable[int]) -> list[Row]:
    chosen: list[Row] = _at(rows, places).to_pylist()
    return chosen


def _spread(rows: pa.Table | None, column: str, count: int) -> list[Row]:
    if rows is None or not len(rows):
        return []
    rows = _at(rows, _one_per_subject(rows))
    return _rows(rows, spread(float_array(rows[column]), count))


def _one_per_subject(rows: pa.Table) -> list[int]:
    """Places of the first row of every track and, of what has none, of every row: frames of one video look alike."""
    if "track_id" not in rows.schema.names:
        return list(range(len(rows)))
    return _firsts(rows["track_id"].to_pylist())


def _firsts(names: Iterable[str | None]) -> list[int]:
    seen: set[str] = set()
    places = []
    for place, name in enumerate(names):
        if name is None or name not in seen:
            places.append(place)
        if name is not None:
            seen.add(name)
    return places


def _of_kind(rows: pa.Table | None, kind: str) -> pa.Table | None:
    return None if rows is None else rows.filter(pc.equal(rows["kind"], kind))


def _by_reason(rows: pa.Table | None, reason: str | None) -> pa.Table | None:
    if rows is None:
        return None
    return rows.filter(rows["reason"].is_null() if reason is None else pc.equal(rows["reason"], reason))


def _pictures(rows: pa.Table | None) -> list[Row]:
    """A few pictures, one of each video, the sources taking turns."""
    if rows is None:
        return []
    firsts = _at(rows, _firsts(rows["video_id"].to_pylist()))
    sources = [image_id.split("/")[0] for image_id in firsts["id"].to_pylist()]
    chosen = _rows(firsts, _in_turns(sources)[:PICTURES])
    return sorted(chosen, key=lambda row: str(row["id"]))


def _pairs(rows: pa.Table | None) -> list[Row]:
    """A few copies, what they were recognised by taking turns; of each from the least to the most alike."""
    if rows is None:
        return []
    reasons = list(zip(rows["kind"].to_pylist(), rows["by"].to_pylist(), strict=True))
    shares = Counter(reasons[place] for place in _in_turns(reasons)[:PAIRS])
    chosen = []
    for reason, count in sorted(shares.items()):
        places = [place for place, other in enumerate(reasons) if other == reason]
        chosen += _spread(_at(rows, places), "similarity", count)
    return chosen


def _samples(rows: pa.Table | None, place: int) -> list[Row]:
    """A few samples, the sources taking turns.

    Args:
        rows: of one kind.
        place: of the source among the parts of their ids: `image/<source>/...`, `group/<kind>/<source>/...`.
    """
    if rows is None:
        return []
    sources = [(sample_id.split("/") + [""] * place)[place] for sample_id in rows["id"].to_pylist()]
    return _rows(rows, _in_turns(sources)[:SAMPLES_PER_KIND])


def _in_turns(sources: Iterable[Hashable]) -> list[int]:
    """Places in such an order that the first of every source comes first, then the second of every source."""
    turns: Counter[Hashable] = Counter()
    order = []
    for place, source in enumerate(sources):
        order.append((turns[source], place))
        turns[source] += 1
    return [place for _, place in sorted(order)]


def _rejected(rows: pa.Table | None) -> dict[str, list[Row]]:
    if rows is None:
        return {}
    reasons = sorted({reason for reason in rows["reason"].unique().to_pylist() if reason})
    chosen = {}
    for reason in reasons:
        mine = rows.filter(pc.equal(rows["reason"], reason))
        chosen[reason] = _rows(mine, _one_per_subject(mine)[:REJECTED_PER_REASON])
    return chosen


def _judged(rows: pa.Table | None, bound: float) -> dict[str, list[Row]]:
    """Judged objects whose verdict agrees with what was said, and those whose verdict does not; one of each track."""
    if rows is None:
        return {}
    rows = rows.filter(pc.and_(rows["is_shown"], rows["reason"].is_valid()))
    is_good = pc.greater_equal(rows["label"], float(GOOD))
    is_kept = pc.equal(rows["reason"], KEPT)
    distance = np.abs(float_array(rows["quality"]) - bound)
    found = {}
    for name, wanted in (
        ("kept_poor", pc.and_not(is_kept, is_good)),
        ("rejected_good", pc.and_not(is_good, is_kept)),
        ("kept_good", pc.and_(is_kept, is_good)),
        ("rejected_poor", pc.invert(pc.or_(is_kept, is_good))),
    ):
        places = np.flatnonzero(np.array(wanted, bool))
        places = places[np.argsort(np.nan_to_num(distance[places], nan=np.inf), kind="stable")]
        firsts = np.array(_one_per_subject(_at(rows, places)), int)[:JUDGED]
        found[name] = _rows(rows, places[firsts])
    return found


def _strips(objects: pa.Table | None, wholes: pa.Table | None, select: Select) -> list[Strip]:
    """A strip for each threshold of `select`, of rows that have a verdict."""
    strips = []
    if objects is not None:
        objects = objects.filter(objects["reason"].is_valid())
        strips += [_strip(objects, effect) for effect in effects(objects, select)]
    if wholes is not None:
        wholes = wholes.filter(wholes["reason"].is_valid())
        strips.append(_strip(wholes, whole_effect(wholes, select)))
    return strips


def _strip(rows: pa.Table, effect: Effect, most: int = AT_THRESHOLD) -> Strip:
    """The rows nearest to a threshold among those whose fate hangs on it alone; objects: one of each track."""
    distance = np.abs(effect.values - effect.threshold.bound)
    sides = []
    for side in (effect.breaks & effect.hangs, ~effect.breaks & effect.hangs & ~np.isnan(effect.values)):
        places = np.flatnonzero(side)
        places = places[np.argsort(distance[places], kind="stable")]
        firsts = np.array(_one_per_subject(_at(rows, places)), int)[:most]
        nearest = places[firsts]
        values = effect.values[nearest].tolist()
        sides.append([row | {"value": value} for row, value in zip(_rows(rows, nearest), values, strict=True)])
    return Strip(effect.threshold, sides[0], sides[1])
