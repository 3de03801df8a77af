"""Samples: pictures, the subjects seen in them, and why they were chosen. Pure functions over rows already read.

What is made of an image, a window of a video or a group fixes no target, unless the source did: which picture is to be
made is the recipe's choice, so that every epoch can draw other pairs. Samples made for one target are in `cross`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refloom.curation.compose.inputs import ComposeInputs, Row, Seen
from refloom.curation.compose.mentions import template
from refloom.curation.compose.settings import Compose
from refloom.curation.compose.subjects import is_within, mentions, scores_of, subject_rows
from refloom.schemas.errors import Rejected
from refloom.schemas.ids import image_of
from refloom.schemas.wording import several

VERSION = 6

_OF_IMAGE = (
    "source",
    "video_id",
    "frame_index",
    "time_s",
    "width",
    "height",
    "orientation",
    "original_size",
    "license",
)
"""Columns of `images` that a picture of a sample has."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A sample without its bytes: its row, and the ids of its pictures in order."""

    row: Row
    image_ids: list[str]


def image_sample(image_id: str, inputs: ComposeInputs, config: Compose) -> Draft:
    """A sample of one picture with every kept object as a subject.

    Raises:
        Rejected: `no_subject`.
    """
    subjects, loose = image_subjects(image_id, inputs, config)
    draft = draft_of(f"image/{image_id}", [image_id], subjects, loose, inputs, config)
    named = sum(bool(subject["mentions"]) for subject in draft.row["subjects"])
    draft.row["why"] = f"{several(len(draft.row['subjects']), 'subject')} kept, {named} named in captions"
    return draft


def image_subjects(image_id: str, inputs: ComposeInputs, config: Compose) -> tuple[Seen, list[tuple[int, Row]]]:
    """The subjects of a picture, and the faces that are subjects of their own.

    Raises:
        Rejected: `no_subject`.
    """
    subjects: Seen = {row["object_id"]: [(0, row)] for row in inputs.objects.get(image_id, [])}
    loose = loose_faces([image_id], inputs, config)
    if not subjects and not loose:
        raise Rejected("no_subject", "no kept object and no face")
    return subjects, loose


def video_sample(video_id: str, number: int, frames: list[str], inputs: ComposeInputs, config: Compose) -> Draft:
    """A sample of some frames of a video; its subjects are the tracks.

    Raises:
        Rejected: `no_subject` if no track is seen in two of the frames.
    """
    subjects = video_subjects(frames, inputs)
    loose = loose_faces(frames, inputs, config)
    draft = draft_of(f"video/{video_id}/{number}", frames, subjects, loose, inputs, config)
    span = inputs.images[frames[-1]]["frame_index"] - inputs.images[frames[0]]["frame_index"]
    again = sum(len(appearances) > 1 for appearances in subjects.values())
    tracks = f"{several(again, 'track')} seen more than once"
    draft.row["why"] = f"{tracks} in {len(frames)} frames, {span} frame numbers apart"
    return draft


def video_subjects(frames: list[str], inputs: ComposeInputs) -> Seen:
    """The tracks of some frames of a video.

    Raises:
        Rejected: `no_subject` if no track is seen in two of the frames.
    """
    subjects: Seen = {}
    for picture, rows in enumerate(inputs.objects.get(frame, []) for frame in frames):
        for row in rows:
            if row["track_id"]:
                subjects.setdefault(row["track_id"], []).append((picture, row))
    if not any(len(appearances) > 1 for appearances in subjects.values()):
        raise Rejected("no_subject", "no track is seen in two of the frames")
    return subjects


def on_one_side(group: Row, splits: Mapping[str, str]) -> Row:
    """A group without its members on the other side; only groups by looks lie on both, see `curation.select.split`.

    Args:
        group: a row of `groups`.
        splits: picture to train or validation; members on others are left out.

    Returns:
        The row with the members on the side where most of them are, or on that of the first where both have as many;
        `apart` says how many are left out.
    """
    sides = [splits.get(image_of(member)) for member in group["members"]]
    known = [side for side in sides if side is not None]
    chosen = max(dict.fromkeys(known), key=known.count, default=None)
    stay = [member for member, side in zip(group["members"], sides, strict=True) if side is not None and side == chosen]
    return group | {"members": stay, "apart": len(sides) - len(stay)}


def group_sample(group: Row, inputs: ComposeInputs, config: Compose, target: str | None = None) -> Draft:
    """A sample of a group's pictures; its subject is the group, what else is on them are subjects of their own.

    Objects and faces on two of the pictures that another group knows to be one subject are one subject here too.

    Args:
        group: a row of `groups`.
        inputs: with the pictures of its members.
        config: settings.
        target: id of the image that the source makes out of the others; None where it does not say.

    Raises:
        Rejected: `too_few_members` if fewer than two members' pictures are at hand; `no_target` if the target's is not.
    """
    members = [member for member in group["members"] if image_of(member) in inputs.images]
    if target is not None and target not in map(image_of, members):
        raise Rejected("no_target", f"of {target} nothing was kept")
    members = _thinned(members, config.max_pictures_per_group, target)
    image_ids = list(dict.fromkeys(image_of(member) for member in members))
    elsewhere = _seen_twice(image_ids, frozenset(members), inputs)
    names = dict.fromkeys(members, str(group["group_id"])) | elsewhere
    subjects: Seen = {group["group_id"]: []}
    faces: Seen = defaultdict(list)
    for picture, image_id in enumerate(image_ids):
        for row in inputs.objects.get(image_id, []):
            own: str = row["object_id"]
            subjects.setdefault(names.get(own, own), []).append((picture, row))
        for face in inputs.faces.get(image_id, []):
            if face["face_id"] in names:
                faces[names[face["face_id"]]].append((picture, face))
    if len(subjects[group["group_id"]]) + len(faces[group["group_id"]]) < 2:
        raise Rejected("too_few_members", "fewer than two members are at hand")
    loose = [one for one in loose_faces(image_ids, inputs, config) if one[1]["face_id"] not in names]
    draft = draft_of(f"group/{group['group_id']}", image_ids, subjects, loose, inputs, config, faces)
    draft.row["why"] = f"{group['kind']} group of {len(group['members'])}"
    if group.get("apart"):
        draft.row["why"] += f", without {group['apart']} on the other side of the split"
    return draft if target is None else directed(draft, image_ids.index(target))


def _thinned(members: list[str], most: int, target: str | None) -> list[str]:
    """At most so many members, evenly spaced; the target stays."""
    if len(members) <= most:
        return members
    others = [member for member in members if image_of(member) != target]
    room = most - (len(members) - len(others))
    picks = {others[pick] for pick in np.linspace(0, len(others) - 1, room).round().astype(int)}
    return [member for member in members if image_of(member) == target or member in picks]


def _seen_twice(image_ids: list[str], members: frozenset[str], inputs: ComposeInputs) -> dict[str, str]:
    """Objects and faces beside a group's members to the subject that is seen on two of the pictures and more."""
    beside = {
        name: picture
        for picture, image_id in enumerate(image_ids)
        for name in (
            *(row["object_id"] for row in inputs.objects.get(image_id, [])),
            *(face["face_id"] for face in inputs.faces.get(image_id, [])),
        )
        if name in inputs.memberships.of and name not in members
    }
    seen: dict[str, set[int]] = defaultdict(set)
    for name, picture in beside.items():
        for row in inputs.memberships.of[name]:
            seen[row["group_id"]].add(picture)
    return {
        name: subject_name(twice[0])
        for name in beside
        if (twice := [row for row in inputs.memberships.of[name] if len(seen[row["group_id"]]) > 1])
    }


def subject_name(group: Row) -> str:
    """What a subject that a group shows is called: a track by its own id, as in samples of its video."""
    name: str = group["group_id"]
    return name.removeprefix("track/") if group["kind"] == "track" else name


def directed(draft: Draft, target: int) -> Draft:
    """A sample that makes one of its pictures of the others."""
    for place, picture in enumerate(draft.row["pictures"]):
        picture["role"] = "target" if place == target else "reference"
    draft.row["target"] = target
    return draft


def loose_faces(image_ids: list[str], inputs: ComposeInputs, config: Compose) -> list[tuple[int, Row]]:
    """Faces that no kept object holds."""
    loose = []
    for picture, image_id in enumerate(image_ids):
        kept = {row["object_id"] for row in inputs.objects.get(image_id, [])}
        for face in inputs.faces.get(image_id, []):
            if face["object_id"] not in kept and is_large(face, config):
                loose.append((picture, face))
    return loose


def is_large(face: Row, config: Compose) -> bool:
    """Whether a face can be a subject of its own."""
    x0, y0, x1, y1 = face["box"]
    return bool(min(x1 - x0, y1 - y0) >= config.min_face_px)


def draft_of(
    sample_id: str,
    image_ids: list[str],
    subjects: Seen,
    loose: list[tuple[int, Row]],
    inputs: ComposeInputs,
    config: Compose,
    faces: Seen | None = None,
) -> Draft:
    """Put a sample together.

    Args:
        sample_id: begins with its kind.
        image_ids, inputs, config: of the sample.
        subjects: id to the pictures and objects that show it.
        loose: faces that are subjects of their own.
        faces: id of a subject to pictures and faces that show it where no object does.
    """
    rows = subject_rows(subjects, faces or {}, loose, inputs)[: config.max_subjects]
    pictures = [_picture(picture, image_id, rows, inputs) for picture, image_id in enumerate(image_ids)]
    for row in rows:
        row["mentions"] = mentions(row, pictures)
    every = [one for row in rows for one in row["mentions"]]
    for row in rows:
        row["mentions"] = [one for one in row["mentions"] if not any(is_within(one, other) for other in every)]
    row = {"sample_id": sample_id, "kind": sample_id.partition("/")[0], "scores": scores_of(rows, inputs)}
    return Draft(row | {"target": None, "instructions": [], "pictures": pictures, "subjects": rows}, image_ids)


def _picture(index: int, image_id: str, subjects: list[Row], inputs: ComposeInputs) -> Row:
    image = inputs.images[image_id]
    captions: list[str] = list(image["captions"] or [])
    caption_from: str | None = "source"
    if not captions and image_id in inputs.captions:
        captions, caption_from = [inputs.captions[image_id]], "model"
    if not captions:
        seen = [row["phrase"] for row in subjects if any(item["picture"] == index for item in row["appearances"])]
        sentence = template([phrase for phrase in seen if phrase])
        captions, caption_from = ([sentence], "template") if sentence else ([], None)
    row = {"image_id": image_id, **{name: image[name] for name in _OF_IMAGE}}
    return row | {"captions": captions, "caption_from": caption_from, "role": None}
