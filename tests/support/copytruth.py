"""Copies by their definition, out of a dataset's tables: all with all, in plain loops. What `dedup` must find."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from refloom.curation.dedup.evaluationsets import Evaluation
from refloom.curation.dedup.pixels import NOTHING, is_copy, overlay, view
from refloom.curation.dedup.settings import Dedup
from refloom.curation.neighbours.phash import mirrored
from refloom.schemas import pictures as pictures_of
from refloom.schemas.boxes import pad
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of

Row = dict[str, Any]
Copy = tuple[str, str, float]
"""Of what, by what, how alike."""


def copies(dataset: Dataset, config: Dedup, near_copy: float | None, evaluation: Evaluation | None = None) -> list[Row]:
    """Rows of `duplicates`, by id; `near_copy` of None compares no embeddings."""
    pictures, objects = _pictures(dataset), _objects(dataset)
    judged = _judged(evaluation)
    images = _copied_pictures(judged, list(pictures.values()), config)
    things: dict[str, Copy] = {}
    if near_copy is not None and "embedding" in config.by:
        lower = config.min_cosine or near_copy
        there = [row for row in objects.values() if row["vector"] is not None and row["image_id"] not in images]
        _copied_objects(
            [row for row in judged if row["vector"] is not None], there, pictures, config, lower, images, things
        )
    on = defaultdict(list)
    for row in objects.values():
        on[row["image_id"]].append(row)

    def copy_of(name: str) -> Copy | None:
        """Of what an id is a copy: found so, else, of an object, with its picture: then of the same object there."""
        if name in images or name in things:
            return images.get(name) or things[name]
        own, copy = objects.get(name), images.get(image_of(name))
        if own is None or copy is None or copy[1] == "leak":
            return copy if own else None
        same = [
            (-_iou(row["share"], own["share"]), row["object_id"]) for row in on[copy[0]] if row["kind"] == own["kind"]
        ]
        overlap, there = min(same, default=(0.0, ""))
        return (there, *copy[1:]) if overlap <= -0.5 else copy

    gone = []
    for kind, names in (("image", pictures), ("object", objects)):
        for name in names:
            if (copy := copy_of(name)) is not None:
                last = copy
                while last[1] != "leak" and (further := copy_of(last[0])) is not None:
                    last = further
                gone.append({"id": name, "kind": kind, "of": last[0], "by": copy[1], "similarity": copy[2]})
    return sorted(gone, key=lambda row: str(row["id"]))


def _copied_pictures(judged: list[Row], pictures: list[Row], config: Dedup) -> dict[str, Copy]:
    """From the best on, each stays unless it is a copy of one that stays, or of an evaluation picture."""
    pictures = sorted(
        pictures, key=lambda row: (-_step(row["quality"], config), -row["width"] * row["height"], row["id"])
    )
    stay, gone = list(judged), {}
    for row in pictures:
        apart = [other for other in stay if _apart(row, other)]
        found = [("bytes", other) for other in apart if "bytes" in config.by and other["sha256"] == row["sha256"]]
        if not found and "phash" in config.by and config.max_hamming is not None:
            near = [other for other in apart if _bits(row, other, config) <= config.max_hamming]
            near = [other for other in near if _same_light(row, other, config)]
            found = [("phash", other) for other in sorted(near, key=lambda other: _bits(row, other, config))]
        if found:
            by, other = found[0]
            similarity = 1.0 if by == "bytes" else 1 - _bits(row, other, config) / 64
            gone[row["id"]] = other["id"], "leak" if other["judged"] else by, similarity
        else:
            stay.append(row)
    return gone


def _copied_objects(
    judged: list[Row],
    objects: list[Row],
    pictures: dict[str, Row],
    config: Dedup,
    lower: float,
    images: dict[str, Copy],
    things: dict[str, Copy],
) -> None:
    """Leaks go first, then whole pictures, which take what is on them along, then objects."""
    for row in objects:
        cosine, name = min(((-row["vector"] @ bad["vector"], bad["id"]) for bad in judged), default=(0.0, ""))
        if -cosine >= lower:
            things[row["object_id"]] = name, "leak", -cosine
            if row["kind"] == "whole":
                images[row["image_id"]] = things[row["object_id"]]

    def rank(row: Row) -> Any:
        whole = row["kind"] == "whole"
        return not whole, -_step(row["quality"], config), -row["area"], row["object_id"]

    def stays(row: Row) -> bool:
        return row["object_id"] not in things and row["image_id"] not in images

    objects = sorted(objects, key=rank)
    for wholes in (True, False):
        left = [row for row in objects if stays(row)]
        gone: dict[str, Row] = {}
        for place, row in enumerate(left):
            for other in left[place + 1 :] if row["object_id"] not in gone else ():
                on, there = pictures[row["image_id"]], pictures[other["image_id"]]
                both = row["kind"] == other["kind"] == "whole"
                if both == wholes and _apart(on, there) and _alike(row, other, on, there, config, lower):
                    gone.setdefault(other["object_id"], row)
        for row in left:
            if of := gone.get(row["object_id"]):
                cosine = float(row["vector"] @ of["vector"])
                things[row["object_id"]] = of["object_id"], "embedding", cosine
                if wholes:
                    images[row["image_id"]] = of["image_id"], "embedding", cosine


def _alike(row: Row, other: Row, on: Row, there: Row, config: Dedup, lower: float) -> bool:
    """By their pixels, where these can be read; else by embedding, and of whole pictures by hash."""
    cosine, both = row["vector"] @ other["vector"], row["kind"] == other["kind"] == "whole"
    if cosine < (min(lower, config.min_proposed_cosine) if both and config.min_agreement is not None else lower):
        return False
    if config.min_agreement is not None and row["kind"] == other["kind"]:
        pair = sorted(((row, on), (other, there)), key=lambda one: str(one[0]["object_id"]))
        one, copy = (_shown(*thing) for thing in pair)
        if one is not None and copy is not None:
            ways = (copy, np.ascontiguousarray(copy[:, ::-1]))
            found = [overlay(view(one), view(way)) for way in ways]
            if any(way != NOTHING for way in found):
                return any(is_copy(way, config.min_agreement) for way in found)
    return bool(cosine >= lower and (not both or _bits(on, there, config, unknown=0) <= config.max_whole_hamming))


def _shown(row: Row, picture: Row) -> np.ndarray | None:
    """What the box of an object shows, None where the picture has no bytes."""
    if picture["image"] is None:
        return None
    pixels = pictures_of.decode(picture["image"]["bytes"])
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = pad(np.array(row["share"]) * (width, height, width, height), width, height)
    return np.ascontiguousarray(pixels[y0:y1, x0:x1])


def _apart(one: Row, other: Row) -> bool:
    return (one["video_id"] or one["id"]) != (other["video_id"] or other["id"]) and not one["groups"] & other["groups"]


def _bits(one: Row, other: Row, config: Dedup, unknown: int = 65) -> int:
    """In how many bits the hashes, or one and the mirror image of the other, differ; `unknown` if one says nothing."""
    for row in (one, other):
        if not (row["contrast"] >= config.min_contrast and 24 <= int(row["phash"]).bit_count() <= 40):
            return unknown
    turned = int(mirrored(np.array([one["phash"]], np.uint64))[0])
    return min((int(value) ^ int(other["phash"])).bit_count() for value in (one["phash"], turned))


def _same_light(one: Row, other: Row, config: Dedup) -> bool:
    aspect = abs(np.log(one["width"] / one["height"]) - np.log(other["width"] / other["height"]))
    light = max(abs(one[name] - other[name]) for name in ("brightness", "contrast"))
    return bool(light <= config.max_light_change and aspect <= np.log1p(config.max_aspect_change))


def _step(quality: float | None, config: Dedup) -> float:
    return -1.0 if quality is None or np.isnan(quality) else float(np.floor(quality / config.quality_step + 1e-9))


def _pictures(dataset: Dataset) -> dict[str, Row]:
    groups = defaultdict(set)
    for group in dataset.read("source_groups").to_pylist():
        for member in group["members"]:
            groups[member].add(group["group_id"])
    qualities = defaultdict(list)
    for row in dataset.read("object_scores").to_pylist():
        if row["quality"] is not None and not np.isnan(row["quality"]):
            qualities[row["image_id"]].append(row["quality"])
    unknown = {"phash": 0, "brightness": float("nan"), "contrast": float("nan")}
    scores = {row["image_id"]: row for row in dataset.read("image_scores").to_pylist()}
    found = {}
    columns = ["image_id", "sha256", "width", "height", "video_id", "image"]
    for row in dataset.read("images", columns).to_pylist():
        name = row["image_id"]
        row |= {key: scores.get(name, unknown)[key] for key in unknown}
        row |= {"quality": max(qualities[name], default=None), "groups": groups[name], "judged": False}
        found[name] = row | {"id": name}
    return found


def _objects(dataset: Dataset) -> dict[str, Row]:
    images = {row["image_id"]: row for row in dataset.read("images", ["image_id", "width", "height"]).to_pylist()}
    vectors = {row["object_id"]: np.array(row["embedding"]) for row in dataset.read("embeddings").to_pylist()}
    quality = {row["object_id"]: row["quality"] for row in dataset.read("object_scores").to_pylist()}
    found = {}
    for row in dataset.read("objects", ["object_id", "image_id", "kind", "box"]).to_pylist():
        name, (x0, y0, x1, y1), on = row["object_id"], row["box"], images[row["image_id"]]
        share = (x0 / on["width"], y0 / on["height"], x1 / on["width"], y1 / on["height"])
        row |= {"area": (x1 - x0) * (y1 - y0), "share": share}
        found[name] = row | {"vector": vectors.get(name), "quality": quality.get(name)}
    return found


def _judged(evaluation: Evaluation | None) -> list[Row]:
    if evaluation is None:
        return []
    pictures, vectors = evaluation.pictures, dict(zip(evaluation.ids, evaluation.vectors, strict=True))
    return [
        {
            "id": name,
            "sha256": pictures.sha256[place],
            "width": int(pictures.sizes[place, 0]),
            "height": int(pictures.sizes[place, 1]),
            "phash": int(pictures.phash[place]),
            "brightness": pictures.light[place, 0],
            "contrast": pictures.light[place, 1],
            "video_id": None,
            "groups": set(),
            "judged": True,
            "vector": vectors.get(name),
        }
        for place, name in enumerate(pictures.ids)
    ]


def _iou(one: Iterable[float], other: Iterable[float]) -> float:
    (a0, b0, a1, b1), (c0, d0, c1, d1) = one, other
    inside = max(0.0, min(a1, c1) - max(a0, c0)) * max(0.0, min(b1, d1) - max(b0, d0))
    return inside / ((a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - inside)
