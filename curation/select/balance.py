"""Caps and shares: which candidates go where a source, a kind or a class has more than its part. No I/O.

A cap keeps the candidates that come first in one order over the whole dataset. By default that order is a hash of the
candidate's id, so that neither units nor workers matter and a larger dataset changes little of what was chosen.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from refloom.schemas.fingerprint import fraction_of

AXES = ("source", "kind", "group", "category")
"""What caps and shares count by. The kind of a group (identity, look, folder) is an axis of its own."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How many samples of what; null and empty set no limit.

    MIP-Adapter's 10,000 chosen pictures do nearly what its full set does (CLIP-T 0.769 against 0.775), Phantom-Data's
    100,000 pairs nearly what a million do (DINO 0.408 against 0.416): a small set, well balanced, is worth having.

    Attributes:
        max_samples: of the dataset.
        max_per_source: of each source; a group is of the source of its first member.
        max_per_kind: of each of image, video, group and cross.
        max_per_category: of each class, by the class of a sample's first subject.
        caps: of one stratum, instead: `source/sa1b`, `kind/video`, `group/look`, `category/person`.
        shares: relative weights of the strata of an axis, e.g. `source/coco: 1` and `source/sa1b: 3`; as many stay as
            the scarcest of them allows. A weight of 0 takes none; strata that are not named are not limited.
        by: `hash` of the id, or `quality`: the smallest quality of an object, of groups the mean similarity, ranked
            within each kind.
        seed: another seed, another choice by hash.
    """

    max_samples: int | None = None
    max_per_source: int | None = None
    max_per_kind: int | None = None
    max_per_category: int | None = None
    caps: dict[str, int] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    by: str = "hash"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in ("hash", "quality"):
            raise ValueError(f"by is hash or quality, not {self.by!r}")
        for name in (*self.caps, *self.shares):
            axis, slash, value = name.partition("/")
            if axis not in AXES or not slash or not value:
                raise ValueError(f"{name!r} is no stratum; write it like source/coco, with one of {', '.join(AXES)}")
        limits = (self.max_samples, self.max_per_source, self.max_per_kind, self.max_per_category, *self.caps.values())
        if any(limit is not None and limit < 0 for limit in limits):
            raise ValueError("a cap is 0 or more")
        if any(weight < 0 for weight in self.shares.values()):
            raise ValueError("a share is 0 or more")
        for axis in AXES:
            weights = [weight for name, weight in self.shares.items() if name.startswith(f"{axis}/")]
            if weights and not any(weights):
                raise ValueError(f"the shares of {axis} are all 0: nothing would stay")

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        limits = (self.max_samples, self.max_per_source, self.max_per_kind, self.max_per_category)
        return any(limit is not None for limit in limits) or bool(self.caps or self.shares)

    def limit(self, axis: str, value: str) -> int | None:
        """The cap of one stratum."""
        general = {"source": self.max_per_source, "kind": self.max_per_kind, "category": self.max_per_category}
        return self.caps.get(f"{axis}/{value}", general.get(axis))


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Columns of N candidates, as caps see them.

    Attributes:
        ids: sample ids.
        strata: axis to the value of each candidate there, None where the axis says nothing of it.
        splits: train or validation.
        scores: (N,) what `by: quality` puts first, larger is better; NaN comes last.
    """

    ids: list[str]
    strata: dict[str, list[str | None]]
    splits: list[str]
    scores: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """What became of N candidates.

    Attributes:
        kept: (N,).
        full: of each, the strata with more candidates than their limit that it is in; none: no limit touches it.
        draws: (N,) place in the order by hash, 0 to 1.
    """

    kept: Bools
    full: list[tuple[str, ...]]
    draws: Floats


def draw(sample_id: str, seed: int) -> float:
    """A number from 0 to 1 that depends on nothing but these two."""
    return fraction_of(f"{seed}/{sample_id}")


def balanced(candidates: Ranked, config: Balance) -> Balanced:
    """Keep candidates in order as long as each of their strata has room.

    Every limit is parted between train and validation as the candidates of its stratum are, so that the share of
    validation holds. No candidate that goes could be added without passing a limit.
    """
    draws = np.array([draw(name, config.seed) for name in candidates.ids], np.float64)
    room: dict[tuple[str, str], int] = {}
    full: list[list[str]] = [[] for _ in candidates.ids]
    everything: list[str | None] = ["all"] * len(candidates.ids)
    for axis, values in {"samples": everything, **candidates.strata}.items():
        for stratum, rows in _over(axis, values, candidates.splits, config, room).items():
            for row in rows:
                full[row].append(stratum)
    kept = np.ones(len(candidates.ids), bool)
    if room:
        for row in _order(candidates, draws, config.by).tolist():
            mine = [(stratum, candidates.splits[row]) for stratum in full[row]]
            kept[row] = all(room[one] > 0 for one in mine)
            if kept[row]:
                for one in mine:
                    room[one] -= 1
    return Balanced(kept, [tuple(strata) for strata in full], draws)


def _over(
    axis: str, values: list[str | None], splits: list[str], config: Balance, room: dict[tuple[str, str], int]
) -> dict[str, list[int]]:
    """Strata of one axis that hold more than their limit, to their candidates; their room is put into `room`."""
    members: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        if value is not None:
            members.setdefault(value, []).append(row)
    found = {}
    for value, limit in limits(axis, {value: len(rows) for value, rows in members.items()}, config).items():
        rows = members[value]
        if limit < len(rows):
            name = f"{axis}/{value}"
            found[name] = rows
            parts = Counter(splits[row] for row in rows)
            room |= {(name, split): number for split, number in parted(limit, parts).items()}
    return found


def limits(axis: str, counts: Mapping[str, int], config: Balance) -> dict[str, int]:
    """The limit of each stratum of an axis that has one, by its cap and its share.

    Args:
        axis: of `AXES`, or `samples` for the whole dataset.
        counts: value to candidates, none of them 0.
        config: settings.
    """
    if axis == "samples":
        return {} if config.max_samples is None else dict.fromkeys(counts, config.max_samples)
    caps = {value: limit for value in counts if (limit := config.limit(axis, value)) is not None}
    weights = {value: config.shares[f"{axis}/{value}"] for value in counts if f"{axis}/{value}" in config.shares}
    most = {value: min(counts[value], caps.get(value, counts[value])) for value in weights}
    scale = min((most[value] / weight for value, weight in weights.items() if weight > 0), default=0.0)
    # the scarcest has exactly what it has, whatever the division rounded
    shared = {value: min(most[value], math.floor(scale * weight + 1e-9)) for value, weight in weights.items()}
    return caps | shared


def parted(limit: int, counts: Mapping[str, int]) -> dict[str, int]:
    """A limit parted in the proportion of counts, by largest remainder; ties go to the smaller name.

    Every part of a limit that can give one to each has at least one, so that a small validation split does not vanish.
    """
    total = sum(counts.values())
    exact = {name: limit * count / total for name, count in sorted(counts.items())}
    parts = {name: math.floor(share) for name, share in exact.items()}
    for name in sorted(exact, key=lambda name: (parts[name] - exact[name], name))[: limit - sum(parts.values())]:
        parts[name] += 1
    if limit >= len(parts):
        for name in [name for name, part in parts.items() if part == 0]:
            parts[max(parts, key=lambda other: parts[other])] -= 1
            parts[name] = 1
    return parts


def _order(candidates: Ranked, draws: Floats, by: str) -> Ints:
    """Rows, the first to stay first; ties by id."""
    ids = np.array(candidates.ids, dtype=object)
    if by == "hash":
        order: Ints = np.lexsort((ids, draws))
        return order
    # scores of kinds are of different scales: what counts is how many of its own kind are better, as a share
    places = np.empty(len(ids), np.float64)
    kinds = np.array(candidates.strata["kind"], dtype=object)
    for kind in sorted(set(candidates.strata["kind"]), key=str):
        mine = np.flatnonzero(kinds == kind)
        worst_last = np.nan_to_num(-candidates.scores[mine], nan=np.inf)
        best_first = mine[np.lexsort((ids[mine], draws[mine], worst_last))]
        places[best_first] = (np.arange(len(mine)) + 0.5) / len(mine)
    ranked: Ints = np.lexsort((ids, draws, places))
    return ranked
