"""How well looks group photographs: pairs of one subject found and right, with other photographs as distractors."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from benchmarks.intervals import Share, share
from benchmarks.judged.pairs import Pair, best, found, right, wrong
from benchmarks.judged.photographs import curated, shared
from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.group.looks import Looks, Sights, joined, read_columns, usable
from refloom.curation.neighbours.pairs import Pairs, cosines
from refloom.curation.neighbours.vectors import vectors_of
from refloom.inference.models import registry
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of

SETS = ("subjects", "coco_train", "coco_val", "sa1b", "ytvis")
STRICTNESS = tuple(round(0.05 * step, 2) for step in range(20))
_SAME = {"subjects/msbench/living/cat.jpg": "dreambooth/cat"}
"""Copies that `msbench` holds of photographs of `dreambooth`."""


@dataclass(frozen=True, slots=True)
class LookScores:
    """What was found.

    Attributes:
        recall: pairs of one subject that share a group, over all.
        precision: pairs that share a group and show one subject, over those that share one.
        chosen: strictness that is best without each subject in turn.
        held_out: recall for each subject in turn at the strictness chosen without it.
        false: pairs that share a group and should not.
    """

    recall: Share
    precision: Share
    chosen: Mapping[str, float]
    held_out: Share
    false: list[Pair]


def measure(config: Looks | None = None) -> LookScores:
    """Group the subjects among COCO, SA-1B and DAVIS, and compare with the labels.

    Args:
        config: settings; the defaults by default.
    """
    config = config or Looks()
    dataset = curated("looks", *SETS, config=Curation(models=Models(face="none")), until="select")
    sights, pairs = _sights(dataset, config)
    subject = subjects()
    expected = _expected(sights.ids, subject)
    grouped = {strictness: _grouped(sights, pairs, replace(config, strictness=strictness)) for strictness in STRICTNESS}
    own = _grouped(sights, pairs, config)
    chosen = {name: best(grouped, expected, subject, without=name, strictest=False) for name in expected}
    return LookScores(
        recall=share(found(dict.fromkeys(expected, own), expected)),
        precision=share(right(own, subject)),
        chosen=chosen,
        held_out=share(found({name: grouped[bound] for name, bound in chosen.items()}, expected)),
        false=wrong(own, subject),
    )


def subjects() -> Callable[[str], str]:
    """Member to the subject that it shows; what no label names is a subject of its own."""
    labels = {
        file: group["group_id"]
        for group in json.loads((shared() / "groups.json").read_text())
        if group["kind"] in ("object", "live subject")
        for file in group["files"]
    } | _SAME
    return lambda member: labels.get(f"subjects/{image_of(member).removeprefix('folder/')}", member)


def _sights(dataset: Dataset, config: Looks) -> tuple[Sights, Pairs]:
    sights = read_columns(dataset, dataset.units())
    sights = sights.take(usable(sights, config))
    order = {name: place for place, name in enumerate(sorted(sights.ids))}
    found: dict[str, np.ndarray] = {}
    for names, vectors in vectors_of(dataset, "embeddings", "object_id", dataset.units(), order):
        found |= dict(zip(names, vectors, strict=True))
    sights = sights.take(
        sorted((row for row, name in enumerate(sights.ids) if name in found), key=lambda row: sights.ids[row])
    )
    stacked = np.stack([found[name] for name in sights.ids])
    sights = replace(sights, vectors=stacked)
    places, kinds = sights.places(), sights.kinds()
    i, j = (side.astype(np.int64) for side in np.triu_indices(len(sights.ids), k=1))
    apart = np.array([_may_join(places, kinds, a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True)])
    return sights, Pairs(i[apart], j[apart], cosines(stacked, i[apart], j[apart]))


def _may_join(places: list[str], kinds: list[str | None], a: int, b: int) -> bool:
    return places[a] != places[b] and (kinds[a] is None or kinds[b] is None or kinds[a] == kinds[b])


def _grouped(sights: Sights, pairs: Pairs, config: Looks) -> set[Pair]:
    marks = registry.by_name("image_embedding", "efficientnet-lite0").thresholds
    lower, upper = config.lower(marks["similar"], marks["near_copy"]), config.upper(marks["near_copy"])
    near = pairs.where((pairs.cosine >= lower) & (pairs.cosine < upper))
    return {pair for row in joined(sights, near, config, lower, upper) for pair in combinations(row["members"], 2)}


def _expected(ids: Iterable[str], subject: Callable[[str], str]) -> dict[str, set[Pair]]:
    members = defaultdict(list)
    for name in sorted(ids):
        members[subject(name)].append(name)
    return {name: set(combinations(own, 2)) for name, own in members.items() if len(own) > 1}
