"""Identity groups: pictures of one person, found by the embeddings of faces, over pictures, videos and sources.

Faces of one track are first made one: they must agree with each other, and stand for the track with their mean. Then
tracks and single faces are joined by average linkage; two that stand on one picture are two persons, a face of little
quality must be nearer, and a group of several agrees with what joins it by more than one pair. What comes out is
checked for outliers (PhotoMaker's 8 sigma), freed of near-copies and limited in size.

A member is the object that holds the face. Where none does, or where a whole picture holds several, it is the face
itself (`<image_id>@<n>`), which `samples` knows as a subject of kind `face`. A face on an object that was not selected
is no member.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.group.facequality import face_quality
from refloom.curation.group.spread import spread
from refloom.curation.neighbours.clusters import mean_link, thinned, within_sigma
from refloom.curation.neighbours.pairs import Floats, Pairs
from refloom.curation.neighbours.plan import EXACT_BELOW, NEAR_CELLS
from refloom.curation.neighbours.vectors import matrix
from refloom.curation.objects import float_array
from refloom.schemas.dataset import Dataset

MOST_NEIGHBOURS = 64
"""Pairs of one face or track that are kept, the strongest."""

Row = dict[str, Any]

_FACE_COLUMNS = (
    "face_id",
    "image_id",
    "object_id",
    "box",
    "det_score",
    "landmarks",
    "pose",
    "sharpness",
    "embedding",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """Groups of one person's faces.

    Attributes:
        min_cosine: of one person; null takes the face model's own `same_identity` and `strictness`.
        strictness: share of the way from `same_identity` to 1 at which two faces are one person; siblings lie between.
        max_cosine: of two faces of a group, from which the lesser goes: near-copies teach copy-paste. High, because
            two photographs of one session reach 0.995 with dlib; copies of whole pictures are dedup's work.
        min_side_px: shorter side of a face's box; embeddings of smaller faces say little.
        poor_margin: share of the way from `min_cosine` to 1 that a face of no quality must be nearer, and half of it
            one of half; see `facequality`. Faces that look down or are hardly seen resemble many.
        min_agreeing: pairs of faces that are one person, between two groups of which one holds more than so many.
        min_agreement: share of a track's faces that must agree with the one most agree with, or none of them counts.
        max_sigma: members this much less like the others than is usual in the group go; PhotoMaker 8.
        min_members: fewer make no group; they stand on different pictures, and not all in one track.
        max_members: the best by quality stay.
        max_per_video: the best by quality of one video stay.
        near_cells, exact_below: of the neighbour search; see `neighbours.plan`.
    """

    min_cosine: float | None = None
    strictness: float = 0.15
    max_cosine: float = 0.998
    min_side_px: float = 32.0
    poor_margin: float = 0.4
    min_agreeing: int = 2
    min_agreement: float = 0.6
    max_sigma: float = 8.0
    min_members: int = 2
    max_members: int = 100
    max_per_video: int = 8
    near_cells: int = NEAR_CELLS
    exact_below: int = EXACT_BELOW

    def __post_init__(self) -> None:
        if self.min_members < 2 or self.max_members < self.min_members:
            raise ValueError("min_members is 2 or more, and max_members no less")
        if not (0 <= self.poor_margin < 1 and 0 <= self.strictness < 1) or self.min_agreeing < 1:
            raise ValueError("poor_margin and strictness are shares from 0 and below 1, and min_agreeing 1 or more")

    def lower(self, same_identity: float) -> float:
        """The cosine from which two faces are one person, given the model's threshold."""
        return same_identity + self.strictness * (1 - same_identity) if self.min_cosine is None else self.min_cosine


@dataclass(frozen=True, slots=True, eq=False)
class Portraits:
    """Columns of N faces.

    Attributes:
        ids: face ids.
        members: what stands for the face in a group; None: it can be no member.
        images: image ids.
        videos, tracks: of the face's object, or None.
        sides: (N,) shorter side of the box, pixels.
        quality: (N,) of the member, NaN where there is none.
        trust: (N,) how far the embedding can be trusted, 0 to 1.
        areas: (N,) pixels of the member's mask, NaN where there is none.
        vectors: (N, D) float32, unit length.
        track_images: track to the pictures that it is seen on, with or without a face.
    """

    ids: list[str]
    members: list[str | None]
    images: list[str]
    videos: list[str | None]
    tracks: list[str | None]
    sides: npt.NDArray[np.float64]
    quality: npt.NDArray[np.float64]
    trust: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    vectors: Floats
    track_images: dict[str, set[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """What is joined, N of them: single faces, and tracks whose faces agree.

    Attributes:
        names: face ids, and track ids behind `track:`.
        faces: rows of `Portraits` for each.
        vectors: (N, D) unit length, the mean of its faces.
        places: ids of the pictures on which each is seen.
    """

    names: list[str]
    faces: list[list[int]]
    vectors: Floats
    places: list[frozenset[str]]


def joined(faces: Portraits, nodes: Nodes, pairs: Pairs, config: Identities, lower: float) -> list[Row]:
    """The groups of nodes, by id; connected parts of the pairs can be given one by one.

    Args:
        faces: of the nodes.
        nodes: by name.
        pairs: of nodes, with a cosine of `lower` or more.
        config: settings.
        lower: of one person.
    """
    numbers: dict[str, int] = {}
    places = [frozenset(numbers.setdefault(name, len(numbers)) for name in images) for images in nodes.places]
    # a track is trusted as far as the best of its faces: the others agree with it
    trust = np.array([faces.trust[own].max() for own in nodes.faces])
    poor = 1 - np.minimum(trust[pairs.i], trust[pairs.j])
    pairs = pairs.where(pairs.cosine >= lower + config.poor_margin * poor * (1 - lower))
    clusters = mean_link(nodes.vectors, pairs, lower, places, agreeing=config.min_agreeing)
    rows = [_group(faces, [nodes.faces[node] for node in cluster], config) for cluster in clusters]
    return sorted((row for row in rows if row is not None), key=lambda row: str(row["group_id"]))


def nodes_of(faces: Portraits, config: Identities, lower: float) -> Nodes:
    """What is joined, by name; needs all faces of a track."""
    found = _nodes(faces, config, lower)
    names = sorted(found)
    places = []
    for name in names:
        images = {faces.images[face] for face in found[name]}
        track = faces.tracks[found[name][0]]
        places.append(frozenset(images | faces.track_images.get(track, set()) if track is not None else images))
    means = [_mean(faces.vectors[found[name]]) for name in names]
    vectors = np.stack(means) if means else np.zeros((0, faces.vectors.shape[1]), np.float32)
    return Nodes(names, [found[name] for name in names], vectors, places)


def _nodes(faces: Portraits, config: Identities, lower: float) -> dict[str, list[int]]:
    """What is joined: name to faces, by id. Faces of a track that agree are one; those that do not are left out."""
    nodes: dict[str, list[int]] = defaultdict(list)
    for face in sorted(range(len(faces.ids)), key=faces.ids.__getitem__):
        if faces.members[face] is not None and faces.sides[face] >= config.min_side_px:
            track = faces.tracks[face]
            nodes[faces.ids[face] if track is None else f"track:{track}"].append(face)
    return {
        name: agreed
        for name, found in nodes.items()
        if (agreed := agreeing(faces.vectors[found], found, lower, config.min_agreement))
    }


def agreeing(vectors: Floats, faces: list[int], lower: float, share: float) -> list[int]:
    """The faces of a track that look like the face that most of them look like; none if they are too few.

    Args:
        vectors: (N, D) unit length.
        faces: N of anything.
        lower: smallest cosine of one person.
        share: that must agree.
    """
    if len(faces) == 1:
        return faces
    wide = vectors.astype(np.float64)
    alike = np.einsum("id,jd->ij", wide, wide, optimize=False) >= lower
    np.fill_diagonal(alike, True)
    counts = alike.sum(axis=1)
    most = int(counts.argmax())
    if counts[most] < share * len(faces):
        return []
    return [face for face, agrees in zip(faces, alike[most], strict=True) if agrees]


def _mean(vectors: Floats) -> Floats:
    total = vectors.astype(np.float64).sum(axis=0)
    unit: Floats = (total / np.linalg.norm(total)).astype(np.float32)
    return unit


def _group(faces: Portraits, nodes: list[list[int]], config: Identities) -> Row | None:
    found = [face for node in nodes for face in node]
    found = [
        face for face, inside in zip(found, within_sigma(faces.vectors[found], config.max_sigma), strict=True) if inside
    ]
    order = sorted(found, key=lambda face: (-np.nan_to_num(faces.quality[face], nan=-1.0), faces.ids[face]))
    left: dict[str, int] = defaultdict(lambda: config.max_per_video)
    spread_out, taken = [], set()
    for face in order:
        video, member = faces.videos[face], faces.members[face]
        if member in taken or (video is not None and left[video] == 0):
            continue
        taken.add(member)
        if video is not None:
            left[video] -= 1
        spread_out.append(face)
    stay = thinned(faces.vectors[spread_out], range(len(spread_out)), config.max_cosine, config.max_members)
    chosen = sorted((spread_out[place] for place in stay), key=lambda face: str(faces.members[face]))
    origins = {faces.tracks[face] or faces.ids[face] for face in chosen}
    if len(chosen) < config.min_members or len(origins) < 2:
        return None
    members = [faces.members[face] for face in chosen]
    return {
        "group_id": f"identity/{members[0]}",
        "kind": "identity",
        "members": members,
        "video_id": None,
        "frame_gap": None,
        **asdict(spread(faces.vectors[chosen], faces.areas[chosen])),
    }


# -- reading -----------------------------------------------------------------------------------------------------


def read_portraits(dataset: Dataset, units: Sequence[str], score_bounds: tuple[float, float] | None) -> Portraits:
    """The faces of some units of a dataset that was selected from, without crops; unit by unit.

    Args:
        dataset, units: where.
        score_bounds: of the detector: scores from which a face counts for nothing, and fully; None asks no score.
    """
    columns: dict[str, list[Any]] = defaultdict(list)
    parts: list[Floats] = []
    track_images: dict[str, set[str]] = defaultdict(set)
    for unit in units:
        faces = dataset.read("faces", _FACE_COLUMNS, unit=unit)
        faces = faces.filter(faces["embedding"].is_valid())
        if not len(faces):
            continue
        objects = {
            row["object_id"]: row
            for row in dataset.read(
                "objects", ["object_id", "image_id", "track_id", "kind", "area"], unit=unit
            ).to_pylist()
        }
        images = dataset.read("images", ["image_id", "video_id"], unit=unit).to_pylist()
        videos = {row["image_id"]: row["video_id"] for row in images}
        for row in objects.values():
            if row["track_id"] is not None:
                track_images[row["track_id"]].add(row["image_id"])
        held = faces["object_id"].to_pylist()
        members = _members(dataset, unit, faces.select(["face_id", "image_id", "object_id"]).to_pylist(), objects)
        scores = dataset.read("object_scores", ["object_id", "quality"], unit=unit)
        quality = dict(zip(scores["object_id"].to_pylist(), float_array(scores["quality"]), strict=True))
        edges = matrix(faces["box"])
        trust = face_quality(
            float_array(faces["det_score"]),
            faces["landmarks"].to_pylist(),
            faces["pose"].to_pylist(),
            float_array(faces["sharpness"]),
            score_bounds,
        )
        columns["trust"] += trust.tolist()
        columns["ids"] += faces["face_id"].to_pylist()
        columns["members"] += members
        columns["images"] += faces["image_id"].to_pylist()
        columns["videos"] += [videos[name] for name in faces["image_id"].to_pylist()]
        columns["tracks"] += [objects[name]["track_id"] if name in objects else None for name in held]
        columns["sides"] += np.minimum(edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]).tolist()
        columns["quality"] += [quality.get(name, np.nan) for name in held]
        columns["areas"] += [(objects[name]["area"] if name in objects else None) or np.nan for name in members]
        parts.append(matrix(faces["embedding"]))
    return Portraits(
        columns["ids"],
        columns["members"],
        columns["images"],
        columns["videos"],
        columns["tracks"],
        np.array(columns["sides"], np.float64),
        np.array(columns["quality"], np.float64),
        np.array(columns["trust"], np.float64),
        np.array(columns["areas"], np.float64),
        np.concatenate(parts) if parts else np.zeros((0, 0), np.float32),
        dict(track_images),
    )


def _members(dataset: Dataset, unit: str, faces: list[Row], objects: dict[str, Row]) -> list[str | None]:
    """What stands for each face: see the module's docstring."""
    verdicts = dataset.read("selection", ["object_id", "verdict"], unit=unit).to_pylist()
    kept = {row["object_id"] for row in verdicts if row["verdict"] == "keep"}
    gone = set(dataset.read("duplicates", ["id"], unit=unit)["id"].to_pylist())
    holds: dict[str, int] = defaultdict(int)
    for face in faces:
        if face["object_id"] is not None:
            holds[face["object_id"]] += 1
    members: list[str | None] = []
    for face in faces:
        held = face["object_id"]
        if face["image_id"] in gone or (held is not None and held not in kept):
            members.append(None)
        elif held is None or holds[held] > 1:
            members.append(face["face_id"])
        else:
            members.append(held)
    return members
