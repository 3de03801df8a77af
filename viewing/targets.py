"""What is said below the pictures of a sample with a target: which one that is, and how far others differ from it."""

from itertools import combinations
from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, join, tag

Row = dict[str, Any]

COLOURS = 8
"""Of subjects; further ones begin again."""


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
        for similarity, change in pairs_with(subject, target, picture):
            words = [f"similarity {wording.value(similarity)}"] if similarity is not None else []
            words += [f"pose {wording.value(change)}"] if change is not None else []
            title = "cosine of the two cut-outs; pose: 1 - IoU of the two outlines, each scaled to one square"
            parts.append(
                tag("span", {"class": "pairing", "title": title}, number_of(place), f" {', '.join(words) or '–'}")
            )
    return join(parts)


def pairs_with(subject: Row, target: int, picture: int) -> list[tuple[float | None, float | None]]:
    """Similarity and pose change of a subject between the target and another picture, of each pair of appearances.

    Args:
        subject: of a sample.
        target, picture: indices into its pictures.
    """
    places = [appearance["picture"] for appearance in subject["appearances"]]
    found = []
    for position, (one, other) in enumerate(combinations(range(len(places)), 2)):
        if {places[one], places[other]} == {target, picture}:
            found.append((_at(subject["similarity"], position), _at(subject.get("pair_pose_change"), position)))
    return found


def _at(values: list[float | None] | None, position: int) -> float | None:
    return None if values is None else values[position]
