"""Rows of groups, samples and choices without some pictures: what is left of each, or that too little is."""

import itertools
from typing import Any

from refloom.sharing.publish.addresses import PICTURES_FIELD
from refloom.sharing.publish.takedown import Takedown, remaining

Row = dict[str, Any]

_SPREAD = (
    "min_similarity",
    "mean_similarity",
    "max_similarity",
    "frame_gap",
    "area_ratio",
    "pose_change",
    "head_turn",
    "sharpness_ratio",
)
_PAIRS = ("similarity", "pair_pose_change")
"""Columns of a subject with a number for each pair of its appearances."""
_FEWEST = 2


def smaller_group(row: Row, takedown: Takedown) -> Row | None:
    """A group without some members, or None if too few are left; its spread is not known any more and is null."""
    members = remaining(row["members"], takedown.images)
    if len(members) < _FEWEST:
        return None
    group_id = takedown.renamed.get(row["group_id"], row["group_id"])
    return row | {"group_id": group_id, "members": members, **dict.fromkeys(row.keys() & set(_SPREAD))}


def smaller_source_group(row: Row, takedown: Takedown) -> Row | None:
    """A source's group without some pictures, or None if too few are left, or not the one that it makes of the others.

    Without its target a record would leave open which of its references may be made of which. What was said of the
    whole record goes, and so do texts that count an image that is gone.
    """
    members = remaining(row["members"], takedown.images)
    is_aimless = row["target"] is not None and row["target"] not in members
    if is_aimless or len(members) < _FEWEST:
        return None
    said = [one for one in row["instructions"] or [] if takedown.images.isdisjoint(one["references"])]
    return row | {"members": members, "instructions": said or None, "scores": None, "source_json": None}


def smaller_choice(row: Row, takedown: Takedown) -> Row:
    """The verdict on a candidate under its group's new name, and without references that go."""
    kind, _, name = row["sample_id"].partition("/")
    sample_id = f"group/{takedown.renamed.get(name, name)}" if kind == "group" else row["sample_id"]
    references = row.get("references")
    left = None if references is None else remaining(references, takedown.images)
    return row | {"sample_id": sample_id, "references": left}


def smaller_sample(row: Row, takedown: Takedown, said: str = "taken down") -> Row | None:
    """A sample without some pictures and what is seen on them, or None if too little is left by its kind's rule.

    An image sample has one picture; a video sample needs two with a track seen on both, a group sample two with its
    subject, a cross sample two subjects that its target and others show; one with a target needs that. Numbers that
    only a model could tell again become null, and instructions go that name a picture that goes.

    Args:
        row: of `samples`.
        takedown: names the pictures that go.
        said: why, for `why` of the sample.
    """
    stay = [index for index, one in enumerate(row["pictures"]) if one["image_id"] not in takedown.images]
    lost = len(row["pictures"]) - len(stay)
    target = row.get("target")
    if lost and (row["kind"] == "image" or len(stay) < _FEWEST or target not in (None, *stay)):
        return None
    renumbered = {old: new for new, old in enumerate(stay)}
    subjects = [made for one in row["subjects"] if (made := _smaller_subject(one, renumbered, takedown)) is not None]
    old_group = row["sample_id"].removeprefix("group/")
    group = takedown.renamed.get(old_group, old_group)
    sample_id = f"group/{group}" if row["kind"] == "group" else row["sample_id"]
    if not lost:
        return row | {"sample_id": sample_id, "subjects": subjects}
    several = {one["subject_id"] for one in subjects if len(one["appearances"]) >= _FEWEST}
    if row["kind"] == "cross":  # what the target alone shows is no subject of one
        subjects = [one for one in subjects if one["subject_id"] in several]
    if not several or (row["kind"] == "group" and group not in several) or _is_too_little(row, several):
        return None
    qualities = [one["quality"] for subject in subjects for one in subject["appearances"]]
    known = [quality for quality in qualities if quality is not None]
    smaller = row | {
        "sample_id": sample_id,
        "why": f"{row['why']}; {lost} of its pictures {said}",
        "scores": _scores(row["scores"], known),
        "target": None if target is None else renumbered[target],
        "instructions": [
            one | {"references": [renumbered[place] for place in one["references"]]}
            for one in row.get("instructions") or []
            if renumbered.keys() >= set(one["references"])
        ],
        "pictures": [row["pictures"][index] for index in stay],
        "subjects": subjects,
    }
    for column in row.keys() & {PICTURES_FIELD, "images"}:
        smaller[column] = [row[column][index] for index in stay]
    return smaller


def _scores(old: Row, qualities: list[float]) -> Row:
    """Of what is left; what was said of the whole is not known any more."""
    emptied: Row = {"named": []} if "named" in old else {}
    return {"mip_s": None, "min_quality": min(qualities, default=None), **emptied}


def _is_too_little(row: Row, several: set[str]) -> bool:
    return row["kind"] == "cross" and len(several) < _FEWEST


def _smaller_subject(subject: Row, renumbered: dict[int, int], takedown: Takedown) -> Row | None:
    places = [place for place, one in enumerate(subject["appearances"]) if one["picture"] in renumbered]
    if not places:
        return None
    pairs = list(itertools.combinations(range(len(subject["appearances"])), 2))
    stay = [number for number, pair in enumerate(pairs) if set(pair) <= set(places)]
    numbers = {
        name: [subject[name][number] for number in stay] or None for name in _PAIRS if subject.get(name) is not None
    }
    names = {name: _called(subject[name], takedown) for name in ("identity", "look") if subject.get(name) is not None}
    return subject | {
        "subject_id": takedown.renamed.get(subject["subject_id"], subject["subject_id"]),
        "mentions": [
            one | {"picture": renumbered[one["picture"]]} for one in subject["mentions"] if one["picture"] in renumbered
        ],
        "appearances": [
            subject["appearances"][place] | {"picture": renumbered[subject["appearances"][place]["picture"]]}
            for place in places
        ],
        **numbers,
        **names,
    }


def _called(group: str, takedown: Takedown) -> str | None:
    """What a group of a subject is called now; None where too few members are left for one."""
    return None if group in takedown.dissolved else takedown.renamed.get(group, group)
