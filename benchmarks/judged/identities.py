"""How well faces join to persons on photographs, group photographs among them: pairs found, and right pairs."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks.intervals import Share, share
from benchmarks.judged.pairs import Pair, best, found, right, wrong
from benchmarks.judged.photographs import curated, shared
from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.group.identities import Identities, Portraits, joined, nodes_of, read_portraits
from refloom.curation.neighbours.pairs import Pairs, cosines
from refloom.inference.models import registry
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of

_BOUNDS = tuple(round(0.9 + 0.005 * step, 3) for step in range(15))
"""Cosines of one person that are tried when one person is left out; dlib's."""
SETS = ("faces", "coco_train", "coco_val")
"""Nobody on a photograph of COCO is on another, or on one of `faces`."""
_ON_GROUPS = {
    # photograph, and its persons from left to right, by the left edge of their faces' boxes: seen by eye
    "_groups/identification1.jpg": ("Family1-Son", "Family1-Dad", "Family1-Mom", "Family1-Daughter"),
}


@dataclass(frozen=True, slots=True)
class IdentityScores:
    """What was found.

    Attributes:
        recall: pairs of faces of one person that share a group, over all that were detected.
        precision: pairs that share a group and are one person, over those of which either is known.
        held_out: recall for each person in turn at the bound that is best without them.
        false: pairs that share a group and should not.
        faces: that were detected.
    """

    recall: Share
    precision: Share
    held_out: Share
    false: list[Pair]
    faces: int


def measure(config: Identities | None = None) -> IdentityScores:
    """Group the faces of all portraits and group photographs, and compare with the labels.

    Args:
        config: settings; the defaults by default.
    """
    config = config or Identities()
    dataset = curated("faces", *SETS, config=Curation(models=Models(image_embedding="none")), until="select")
    entry = registry.resolve("face")  # that the dataset was curated with
    bounds = entry.thresholds["min_det_score"], entry.marks["sure_det_score"]
    faces = read_portraits(dataset, dataset.units(), bounds)
    person = persons(faces, _edges(dataset))
    expected: dict[str, set[Pair]] = defaultdict(set)
    for one, other in combinations(sorted(name for name in faces.members if name is not None), 2):
        if person(one) == person(other) and image_of(one) != image_of(other):
            expected[person(one)].add((one, other))
    by_bound = {bound: _grouped(faces, config, bound) for bound in _BOUNDS}
    own = _grouped(faces, config, config.lower(entry.thresholds["same_identity"]))
    held_out = {name: by_bound[best(by_bound, expected, person, without=name, strictest=True)] for name in expected}
    return IdentityScores(
        share(found(dict.fromkeys(expected, own), expected)),
        share(right(own, person)),
        share(found(held_out, expected)),
        wrong(own, person),
        len(faces.ids),
    )


def persons(faces: Portraits, edges: Mapping[str, float]) -> Callable[[str], str]:
    """Member to its person; whom no label names is a person of their own.

    Args:
        faces: of the photographs.
        edges: face id to the left edge of its box, pixels.
    """
    labels = {
        file.removeprefix("faces/"): group["group_id"].removeprefix("faces/")
        for group in json.loads((shared() / "groups.json").read_text())
        if group["kind"] == "person"
        for file in group["files"]
    }
    named: dict[str, str] = {}
    for image, seen in Counter(faces.images).items():
        where = image.removeprefix("folder/")
        own = sorted(
            (face for face, on in enumerate(faces.images) if on == image), key=lambda face: edges[faces.ids[face]]
        )
        people = _ON_GROUPS.get(where) if seen > 1 else (labels[where],) if where in labels else None
        if people is not None and len(people) == seen:
            named |= {str(faces.members[face]): people[place] for place, face in enumerate(own)}
    return lambda member: named.get(member, member)


def _edges(dataset: Dataset) -> dict[str, float]:
    return {row["face_id"]: row["box"][0] for row in dataset.read("faces", ["face_id", "box"]).to_pylist()}


def _grouped(faces: Portraits, config: Identities, lower: float) -> set[Pair]:
    nodes = nodes_of(faces, config, lower)
    i, j = (side.astype(np.int64) for side in np.triu_indices(len(nodes.names), k=1))
    cosine = cosines(nodes.vectors, i, j)
    rows = joined(faces, nodes, Pairs(i, j, cosine).where(cosine >= lower), config, lower)
    return {pair for row in rows for pair in combinations(sorted(row["members"]), 2)}
