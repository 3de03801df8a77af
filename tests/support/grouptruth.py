"""Identity and look groups by their definition, out of a dataset's tables: all with all, in plain loops.

What `match` must find however it is cut, where no row of its search is cut off from cells that it wants to visit.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from refloom.curation.group.identities import Identities
from refloom.curation.group.looks import Looks
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of

Row = dict[str, Any]


def people(dataset: Dataset, config: Identities, lower: float) -> list[Row]:
    """Groups of one person's faces, by id; `lower` is the cosine of one person."""
    objects, faces = _by(dataset, "objects", "object_id"), _usable_faces(dataset, config)
    seen_on = defaultdict(set)
    for row in objects.values():
        seen_on[row["track_id"]].add(row["image_id"])
    by_node = defaultdict(list)
    for face in faces:
        by_node[f"track:{face['track']}" if face["track"] else face["face_id"]].append(face)
    nodes = {name: kept for name, own in sorted(by_node.items()) if (kept := _agreeing(own, config, lower))}
    own = list(nodes.values())
    if not own:
        return []
    vectors = _unit(np.array([np.sum([face["vector"] for face in kept], axis=0) for kept in own]))
    places = [
        {face["image_id"] for face in kept} | (seen_on[kept[0]["track"]] if kept[0]["track"] else set()) for kept in own
    ]
    barred = np.array([[bool(one & other) for other in places] for one in places])
    cosine = vectors @ vectors.T
    poor = [1 - max(face["trust"] for face in kept) for kept in own]
    asked = [[lower + config.poor_margin * max(one, other) * (1 - lower) for other in poor] for one in poor]
    made = []
    for cluster in _linked(cosine, cosine >= np.array(asked), barred, lower, config.min_agreeing):
        found = [face for node in cluster for face in own[node]]
        found = [face for face, stays in zip(found, _within(found, config.max_sigma), strict=True) if stays]
        taken: Counter[Any] = Counter()
        some = []
        for face in sorted(found, key=lambda face: (-face["quality"], face["face_id"])):
            if not taken[face["member"]] and (not face["video"] or taken["v", face["video"]] < config.max_per_video):
                taken.update([face["member"], ("v", face["video"])])
                some.append(face)
        some = _unalike(some, config.max_cosine, config.max_members)
        if len(some) >= config.min_members and len({face["track"] or face["face_id"] for face in some}) > 1:
            made.append(_row("identity", some))
    return _new(dataset, made)


def things(dataset: Dataset, config: Looks, lower: float, upper: float) -> list[Row]:
    """Groups of objects that look the same, by id; cosines of one thing lie between the bounds."""
    images, scores = _by(dataset, "images", "image_id"), _by(dataset, "object_scores", "object_id")
    faces = set(dataset.read("faces")["object_id"].to_pylist())
    vectors, kept = _by(dataset, "embeddings", "object_id"), _kept(dataset)
    own = []
    for name, row in sorted(_by(dataset, "objects", "object_id").items()):
        word, (x0, y0, x1, y1) = _word(row["category"]), row["box"]
        if min(x1 - x0, y1 - y0) < config.min_side_px:
            continue
        if name in kept and name in vectors and name not in faces and word not in map(_word, config.without):
            quality = scores.get(name, {}).get("quality")
            own.append(
                {
                    "member": name,
                    "word": word,
                    "place": images[row["image_id"]]["video_id"] or row["image_id"],
                    "cut_out": row["kind"] != "whole",
                    "quality": -1.0 if quality is None else quality,
                    "vector": np.array(vectors[name]["embedding"], np.float64),
                }
            )
    if not own:
        return []
    stacked = np.array([row["vector"] for row in own])
    cosine = stacked @ stacked.T
    barred = np.array([[_apart(one, other) for other in own] for one in own])
    cut_out = np.array([[one["cut_out"] or other["cut_out"] for other in own] for one in own])
    linked = (cosine >= lower + config.cut_out_margin * cut_out) & (cosine < upper)
    made = []
    for cluster in _linked(cosine, linked, barred, lower):
        found = [own[row] for row in cluster]
        found = [row for row, stays in zip(found, _within(found, config.max_sigma), strict=True) if stays]
        found.sort(key=lambda row: (-row["quality"], row["member"]))
        some = _unalike(found, upper, config.max_members)
        if len(some) >= config.min_members:
            made.append(_row("look", some))
    return _new(dataset, made)


def _apart(one: Row, other: Row) -> bool:
    known = None not in (one["word"], other["word"])
    return bool(one["place"] == other["place"] or (known and one["word"] != other["word"]))


def _usable_faces(dataset: Dataset, config: Identities) -> list[Row]:
    """Faces that can be members, by id: large enough, not on a copy, and not on an object that was not selected."""
    images, objects = _by(dataset, "images", "image_id"), _by(dataset, "objects", "object_id")
    scores, kept, gone = _by(dataset, "object_scores", "object_id"), _kept(dataset), _by(dataset, "duplicates", "id")
    faces = [row for row in _by(dataset, "faces", "face_id").values() if row["embedding"]]
    held = Counter(row["object_id"] for row in faces)
    usable = []
    for row in sorted(faces, key=lambda row: row["face_id"]):
        name, (x0, y0, x1, y1) = row["object_id"], row["box"]
        if row["image_id"] in gone or (name and name not in kept) or min(x1 - x0, y1 - y0) < config.min_side_px:
            continue
        quality = scores.get(name, {}).get("quality")
        usable.append(
            {
                **row,
                "member": name if name and held[name] == 1 else row["face_id"],
                "track": objects[name]["track_id"] if name in objects else None,
                "video": images[row["image_id"]]["video_id"],
                "quality": -1.0 if quality is None else quality,
                "trust": _trust(row),
                "vector": np.array(row["embedding"], np.float64),
            }
        )
    return usable


def _trust(row: Row) -> float:
    """Of a made face, of which no more than the detector's score is known, with dlib's bounds."""
    return 1.0 if row["det_score"] is None else float(np.clip((row["det_score"] - 0.3) / 0.6, 0, 1))


def _agreeing(faces: list[Row], config: Identities, lower: float) -> list[Row]:
    """Of a track, the faces like the one that most are like; none if these are too few."""
    best: list[Row] = []
    for one in faces:
        like = [face for face in faces if face is one or face["vector"] @ one["vector"] >= lower]
        best = max(best, like, key=len)
    return best if len(faces) == 1 or len(best) >= config.min_agreement * len(faces) else []


def _linked(
    cosine: np.ndarray, linked: np.ndarray, barred: np.ndarray, lower: float, agreeing: int = 1
) -> list[list[int]]:
    """Average linkage: the two clusters with the largest mean cosine are joined, again and again, down to `lower`.

    Where one has more than `agreeing` rows, they need so many pairs between them.
    """
    clusters = [[row] for row in range(len(cosine))]
    total, links = cosine.copy(), (linked & ~barred).astype(int)
    while len(clusters) > 1:
        sizes = np.array([len(cluster) for cluster in clusters])
        needed = np.where(np.maximum.outer(sizes, sizes) > agreeing, agreeing, 1)
        mean = np.where((links >= needed) & ~barred, total / np.outer(sizes, sizes), -2.0)
        np.fill_diagonal(mean, -2.0)
        a, b = sorted(int(place) for place in np.unravel_index(mean.argmax(), mean.shape))
        if mean[a, b] < lower - 1e-7:  # vectors are rounded to single precision
            break
        clusters[a] += clusters.pop(b)
        total, links, barred = (_joined(each, a, b) for each in (total, links, barred))
    return [sorted(cluster) for cluster in clusters if len(cluster) > 1]


def _joined(between: np.ndarray, a: int, b: int) -> np.ndarray:
    """What is summed between clusters when b goes into a; a sum of truths is whether any holds."""
    between = between.copy()
    between[a] += between[b]
    between[:, a] += between[:, b]
    return np.delete(np.delete(between, b, 0), b, 1)


def _within(rows: list[Row], max_sigma: float) -> list[bool]:
    """Which members' mean cosine with the others is usual in the group, by the median of absolute deviations."""
    if len(rows) < 4:
        return [True] * len(rows)
    scores = [np.mean([one["vector"] @ other["vector"] for other in rows if other is not one]) for one in rows]
    middle = np.median(scores)
    sigma = max(0.01, 1.4826 * np.median([abs(score - middle) for score in scores]))
    return [bool(score >= middle - max_sigma * sigma) for score in scores]


def _unalike(rows: list[Row], upper: float, most: int) -> list[Row]:
    """From the best on, those that are no near-copy of a better one, as many as may be."""
    stay: list[Row] = []
    for row in rows:
        if len(stay) < most and all(row["vector"] @ other["vector"] < upper for other in stay):
            stay.append(row)
    return stay


def _row(kind: str, rows: list[Row]) -> Row:
    cosines = [one["vector"] @ other["vector"] for one, other in combinations(rows, 2)]
    members = sorted(row["member"] for row in rows)
    row = {"group_id": f"{kind}/{members[0]}", "kind": kind, "members": members}
    row |= {"min_similarity": min(cosines), "max_similarity": max(cosines), "mean_similarity": np.mean(cosines)}
    return row


def _new(dataset: Dataset, rows: Sequence[Row]) -> list[Row]:
    """Those that are not wholly inside a group of the source, by id."""
    groups = [set(row["members"]) for row in dataset.read("source_groups").to_pylist()]
    new = [row for row in rows if not any({image_of(name) for name in row["members"]} <= group for group in groups)]
    return sorted(new, key=lambda row: str(row["group_id"]))


def _by(dataset: Dataset, table: str, key: str) -> dict[str, Row]:
    return {row[key]: row for row in dataset.read(table).to_pylist()}


def _kept(dataset: Dataset) -> set[str]:
    rows = dataset.read("selection").to_pylist()
    return {row["object_id"] for row in rows if row["verdict"] == "keep"}


def _word(category: str | None) -> str | None:
    return category.lower().replace("_", " ").replace("-", " ") if category else None


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
