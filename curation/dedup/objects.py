"""Copies of objects by their embeddings, and the pictures that go with them. Pure functions: columns in, copies out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.dedup.columns import Pictures, Things
from refloom.curation.dedup.images import meaningful
from refloom.curation.dedup.settings import Copy, Dedup, steps
from refloom.curation.neighbours.clusters import copies
from refloom.curation.neighbours.pairs import Indices, Pairs
from refloom.curation.neighbours.phash import mirrored
from refloom.schemas import boxes

MOST_COPIES = 64
"""Pairs of one object that are kept, the strongest."""


EVALUATION = "evaluation:"
"""Before the ids of evaluation pictures in a search, and the place where all of them were taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Columns of N objects and evaluation pictures that look like another.

    Attributes:
        ids: object ids, or ids of evaluation sets.
        judged: (N,) of an evaluation set.
        images: ids of their pictures.
        whole: (N,) the whole picture.
        quality: (N,) NaN where there is none.
        sizes: (N,) of the box, pixels.
        phash: (N,) of the picture.
        contrast: (N,) of the picture, NaN where it was not measured.
        groups: source groups that the picture is in.
        units: of the picture.
        boxes: (N, 4) xyxy, as shares of the picture's sides.
    """

    ids: list[str]
    judged: npt.NDArray[np.bool_]
    images: list[str]
    whole: npt.NDArray[np.bool_]
    quality: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    phash: npt.NDArray[np.uint64]
    contrast: npt.NDArray[np.float64]
    groups: list[frozenset[str]]
    units: list[str]
    boxes: npt.NDArray[np.float64]

    def table(self) -> pa.Table:
        """As a table without groups, which may reach beyond the part that was read."""
        return pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "judged": pa.array(self.judged, pa.bool_()),
                "image_id": pa.array(self.images, pa.string()),
                "whole": pa.array(self.whole, pa.bool_()),
                "quality": pa.array(self.quality, pa.float64()),
                "size": pa.array(self.sizes, pa.float64()),
                "phash": pa.array(self.phash, pa.uint64()),
                "contrast": pa.array(self.contrast, pa.float64()),
                "unit": pa.array(self.units, pa.string()),
                "box": pa.array(list(self.boxes), pa.list_(pa.float64(), 4)),
            }
        )


def candidates_from(table: pa.Table | None, groups: Mapping[str, frozenset[str]]) -> Candidates:
    """The inverse of `Candidates.table`, with the source groups of pictures that are in any; None holds no rows."""
    if table is None:
        return judges([])
    images = table["image_id"].to_pylist()
    return Candidates(
        table["id"].to_pylist(),
        table["judged"].to_numpy(),
        images,
        table["whole"].to_numpy(),
        table["quality"].to_numpy(),
        table["size"].to_numpy(),
        table["phash"].to_numpy(),
        table["contrast"].to_numpy(),
        [groups.get(name, frozenset()) for name in images],
        table["unit"].to_pylist(),
        np.array(table["box"].to_pylist(), np.float64).reshape(-1, 4),
    )


def candidates_of(pictures: Pictures, things: Things, rows: Indices, unit_of: Mapping[str, str]) -> Candidates:
    """Some objects, rows of `things`, with what is asked of their pictures."""
    on = things.images[rows]
    return Candidates(
        [things.ids[row] for row in rows],
        np.zeros(len(rows), bool),
        [pictures.ids[image] for image in on],
        np.array([things.kinds[row] == "whole" for row in rows], bool),
        things.quality[rows],
        pictures.sizes[on].prod(axis=1) * boxes.area(things.boxes[rows]).astype(np.float64),
        pictures.phash[on],
        pictures.light[on, 1],
        [pictures.groups[image] for image in on],
        [unit_of[pictures.ids[image]] for image in on],
        things.boxes[rows].astype(np.float64),
    )


def judges(ids: list[str]) -> Candidates:
    """Evaluation pictures among the candidates."""
    count = len(ids)
    unknown = np.full(count, np.nan)
    return Candidates(
        ids,
        np.ones(count, bool),
        [""] * count,
        np.zeros(count, bool),
        unknown,
        np.zeros(count),
        np.zeros(count, np.uint64),
        unknown,
        [frozenset()] * count,
        [""] * count,
        np.zeros((count, 4)),
    )


def object_copies(
    candidates: Candidates, pairs: Pairs, says: npt.NDArray[np.int8], config: Dedup, lower: float
) -> tuple[dict[str, Copy], dict[str, Copy]]:
    """Leaks go first, then whole pictures, which take what is on them along, then objects.

    Args:
        candidates: none of them on a picture that is gone already.
        pairs: of near-copies among them, none of two evaluation pictures.
        says: (P,) what the pixels say of each: 1 that they are copies, 0 that they are not, -1 nothing.
        config: settings.
        lower: cosine of near-copies of which pixels say nothing, and of leaks.

    Returns:
        Object id to what it is a copy of, and the same for pictures that go with a whole.
    """
    objects: dict[int, Copy] = {}
    images: dict[str, Copy] = {}
    judged = candidates.judged
    near = pairs.cosine >= np.float32(lower)
    _drop_leaks(candidates, pairs.where(near & (judged[pairs.i] | judged[pairs.j])), objects, images)
    apart = unlike(candidates, pairs)
    pairs, says, near = pairs.where(apart), says[apart], near[apart]
    both_whole = candidates.whole[pairs.i] & candidates.whole[pairs.j]
    allowed = (says > 0) | ((says < 0) & near & (~both_whole | _same_layout(candidates, pairs, config)))
    pairs, both_whole = pairs.where(allowed), both_whole[allowed]
    rank = _rank(candidates, config)
    for wholes in (True, False):
        here = np.array([_stays(candidates, i, objects, images) for i in pairs.i.tolist()], bool)
        here &= np.array([_stays(candidates, j, objects, images) for j in pairs.j.tolist()], bool)
        for row, (of, cosine) in sorted(copies(rank, pairs.where(here & (both_whole == wholes))).items()):
            objects[row] = Copy(candidates.ids[of], "embedding", cosine)
            if wholes:
                images[candidates.images[row]] = Copy(candidates.images[of], "embedding", cosine)
    return {candidates.ids[row]: copy for row, copy in objects.items()}, images


def unlike(candidates: Candidates, pairs: Pairs) -> npt.NDArray[np.bool_]:
    """(P,) which pairs may be copies: neither is of an evaluation set, and no source group holds both."""
    judged = candidates.judged[pairs.i] | candidates.judged[pairs.j]
    apart = [candidates.groups[i].isdisjoint(candidates.groups[j]) for i, j in _both(pairs)]
    may: npt.NDArray[np.bool_] = ~judged & np.array(apart, bool)
    return may


def _stays(candidates: Candidates, row: int, objects: dict[int, Copy], images: dict[str, Copy]) -> bool:
    return row not in objects and candidates.images[row] not in images


def _rank(candidates: Candidates, config: Dedup) -> npt.NDArray[np.int64]:
    """(N,) 0 for the best: wholes first, then by quality, size and id."""
    step = steps(candidates.quality, config)
    order = sorted(
        range(len(candidates.ids)),
        key=lambda row: (not candidates.whole[row], -step[row], -candidates.sizes[row], candidates.ids[row]),
    )
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _same_layout(candidates: Candidates, pairs: Pairs, config: Dedup) -> npt.NDArray[np.bool_]:
    """Whether the hashes of the pictures under pairs of objects allow copies; they do where they say nothing."""
    usable = meaningful(candidates.phash, candidates.contrast, config)
    a, b = candidates.phash[pairs.i], candidates.phash[pairs.j]
    bits = np.minimum(np.bitwise_count(a ^ b), np.bitwise_count(mirrored(a) ^ b))
    allowed: npt.NDArray[np.bool_] = (bits <= config.max_whole_hamming) | ~usable[pairs.i] | ~usable[pairs.j]
    return allowed


def _drop_leaks(candidates: Candidates, pairs: Pairs, objects: dict[int, Copy], images: dict[str, Copy]) -> None:
    strongest: dict[int, tuple[float, str]] = {}
    for (i, j), cosine in zip(_both(pairs), pairs.cosine.tolist(), strict=True):
        row, judge = (j, i) if candidates.judged[i] else (i, j)
        found = (-cosine, candidates.ids[judge])
        strongest[row] = min(strongest.get(row, found), found)
    for row, (cosine, name) in sorted(strongest.items()):
        objects[row] = Copy(name, "leak", -cosine)
        if candidates.whole[row]:
            images[candidates.images[row]] = objects[row]


def _both(pairs: Pairs) -> Iterable[tuple[int, int]]:
    return zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)
