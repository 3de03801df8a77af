"""What is said below the pictures of a sample with a target: which one that is, and how far others differ from it."""

from itertools import combinations
from typing import Any

import numpy as np

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, join, tag

Row = dict[str, Any]

COLOURS = 8
"""Of subjects; further ones begin again."""
_TITLE = "cosine of the two cut-outs, or of the two faces; pose: 1 - IoU of the two outlines, each scaled to one square"


def number_of(subject: int) -> Html:
    """The number of a subject, in its colour; `subject` counts from 0."""
    return tag("i", {"class": f"number s{subject % COLOURS}"}, str(subject + 1))


def note(row: Row, picture: int) -> Html | None:
    """The line below a picture of a sample; None where the sample has no target.

    Args:
        row: of `samples`.
        picture: index into its pictures.
    """
    target = row.get("target")
    if target is None:
        return None
    if picture == target:
        return tag("span", {"class": "role target"}, "target")
    parts: list[Child] = [tag("span", {"class": "role"}, "reference")]
    for place, subject in enumerate(row["subjects"]):
        for pair in pairs_with(subject, target, picture):
            words = [f"{name} {wording.value(value)}" for name, value in pair.items() if value is not None]
            parts.append(
                tag("span", {"class": "pairing", "title": _TITLE}, number_of(place), f" {', '.join(words) or '–'}")
            )
    return join(parts)


def pairs_with(subject: Row, target: int, picture: int) -> list[dict[str, float | None]]:
    """What is known of each pair of a subject's appearances on the target and on another picture.

    Args:
        subject: of a sample.
        target, picture: indices into its pictures.

    Returns:
        Of each pair similarity of the cut-outs, of the faces where there is none, and change of pose; None: not known.
    """
    seen = subject["appearances"]
    found = []
    for position, (one, other) in enumerate(combinations(seen, 2)):
        if {one["picture"], other["picture"]} == {target, picture}:
            similarity = _at(subject["similarity"], position)
            faces = _of_faces(one, other) if similarity is None else None
            change = _at(subject.get("pair_pose_change"), position)
            found.append({"similarity": similarity, "faces": faces, "pose": change})
    return found


def _of_faces(one: Row, other: Row) -> float | None:
    """Cosine of the identities of two appearances' faces, of unit length but for what 16 bits round."""
    vectors = [(appearance.get("face") or {}).get("embedding") for appearance in (one, other)]
    if None in vectors:
        return None
    return float(np.dot(*(np.asarray(vector, np.float64) for vector in vectors)))


def _at(values: list[float | None] | None, position: int) -> float | None:
    return None if values is None else values[position]
