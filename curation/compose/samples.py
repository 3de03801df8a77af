"""Samples: pictures, the subjects seen in them, and why they were chosen. Pure functions over rows already read.

A sample never fixes which picture is the target: that is the recipe's view. So nothing is paired here and every epoch
can draw other pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation.compose.mentions import readable, spans, template
from refloom.curation.compose.settings import Compose
from refloom.curation.group.spread import pair_similarities
from refloom.schemas.errors import Rejected
from refloom.schemas.ids import image_of

VERSION = 5

Row = dict[str, Any]
Seen = dict[str, list[tuple[int, Row]]]
"""Subject id to where it is seen: places of pictures in the sample, and objects."""


@dataclass(slots=True)
class ComposeInputs:
    """What is known of the pictures at hand, by id.

    Attributes:
        images: `images` rows without bytes.
        objects: kept objects of each picture: `objects` rows with effective mask and phrase, `quality` and
            `phrase_cosine` joined in.
        faces: `faces` rows of each picture, without crops.
        embeddings: of objects.
        text_space: embeddings of cut-outs in the space of texts.
        captions: made by a model, of pictures without one.
    """

    images: dict[str, Row] = field(default_factory=dict)
    objects: dict[str, list[Row]] = field(default_factory=dict)
    faces: dict[str, list[Row]] = field(default_factory=dict)
    embeddings: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    text_space: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)


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
    draft = _draft(f"image/{image_id}", "image", [image_id], subjects, loose, inputs, config)
    named = sum(bool(subject["mentions"]) for subject in draft.row["subjects"])
    draft.row["why"] = f"{_count(len(draft.row['subjects']), 'subject')} kept, {named} named in captions"
    return draft


def image_subjects(image_id: str, inputs: ComposeInputs, config: Compose) -> tuple[Seen, list[tuple[int, Row]]]:
    """The subjects of a picture, and the faces that are subjects of their own.

    Raises:
        Rejected: `no_subject`.
    """
    found = _appearing([image_id], inputs)
    subjects: Seen = {row["object_id"]: [(0, row)] for row in found[0]}
    loose = _loose_faces([image_id], inputs, config)
    if not subjects and not loose:
        raise Rejected("no_subject", "no kept object and no face")
    return subjects, loose


def video_sample(video_id: str, number: int, frames: list[str], inputs: ComposeInputs, config: Compose) -> Draft:
    """A sample of some frames of a video; its subjects are the tracks.

    Raises:
        Rejected: `no_subject` if no track is seen in two of the frames.
    """
    subjects = video_subjects(frames, inputs)
    loose = _loose_faces(frames, inputs, config)
    draft = _draft(f"video/{video_id}/{number}", "video", frames, subjects, loose, inputs, config)
    span = inputs.images[frames[-1]]["frame_index"] - inputs.images[frames[0]]["frame_index"]
    several = sum(len(appearances) > 1 for appearances in subjects.values())
    tracks = f"{_count(several, 'track')} seen more than once"
    draft.row["why"] = f"{tracks} in {len(frames)} frames, {span} frame numbers apart"
    return draft


def video_subjects(frames: list[str], inputs: ComposeInputs) -> Seen:
    """The tracks of some frames of a video.

    Raises:
        Rejected: `no_subject` if no track is seen in two of the frames.
    """
    subjects: Seen = {}
    for picture, rows in enumerate(_appearing(frames, inputs)):
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


def group_sample(group: Row, inputs: ComposeInputs, config: Compose) -> Draft:
    """A sample of a group's pictures; its subject is the group, objects beside it are subjects of their own.

    Args:
        group: a row of `groups`.
        inputs: with the pictures of its members.
        config: settings.

    Raises:
        Rejected: `too_few_members` if fewer than two members' pictures are at hand.
    """
    members = [member for member in group["members"] if image_of(member) in inputs.images]
    if len(members) > config.max_pictures_per_group:
        picks = np.linspace(0, len(members) - 1, config.max_pictures_per_group).round().astype(int)
        members = [members[pick] for pick in picks]
    image_ids = list(dict.fromkeys(image_of(member) for member in members))
    subjects: Seen = {group["group_id"]: []}
    for picture, rows in enumerate(_appearing(image_ids, inputs)):
        for row in rows:
            owner = group["group_id"] if row["object_id"] in members else row["object_id"]
            subjects.setdefault(owner, []).append((picture, row))
    own_faces = [
        (picture, face)
        for picture, image_id in enumerate(image_ids)
        for face in inputs.faces.get(image_id, [])
        if face["face_id"] in members
    ]
    if len(subjects[group["group_id"]]) + len(own_faces) < 2:
        raise Rejected("too_few_members", "fewer than two members are at hand")
    loose = [
        (picture, face) for picture, face in _loose_faces(image_ids, inputs, config) if face["face_id"] not in members
    ]
    owner_faces = {group["group_id"]: own_faces}
    draft = _draft(f"group/{group['group_id']}", "group", image_ids, subjects, loose, inputs, config, owner_faces)
    draft.row["why"] = f"{group['kind']} group of {len(group['members'])}"
    if group.get("apart"):
        draft.row["why"] += f", without {group['apart']} on the other side of the split"
    return draft


def _appearing(image_ids: list[str], inputs: ComposeInputs) -> list[list[Row]]:
    return [inputs.objects.get(image_id, []) for image_id in image_ids]


def _loose_faces(image_ids: list[str], inputs: ComposeInputs, config: Compose) -> list[tuple[int, Row]]:
    """Faces that no kept object holds."""
    loose = []
    for picture, image_id in enumerate(image_ids):
        kept = {row["object_id"] for row in inputs.objects.get(image_id, [])}
        for face in inputs.faces.get(image_id, []):
            sides = (face["box"][2] - face["box"][0], face["box"][3] - face["box"][1])
            if face["object_id"] not in kept and min(sides) >= config.min_face_px:
                loose.append((picture, face))
    return loose


def _draft(
    sample_id: str,
    kind: str,
    image_ids: list[str],
    subjects: Seen,
    loose: list[tuple[int, Row]],
    inputs: ComposeInputs,
    config: Compose,
    faces: Seen | None = None,
) -> Draft:
    """Put a sample together.

    Args:
        sample_id, kind, image_ids, inputs, config: of the sample.
        subjects: id to the pictures and objects that show it.
        loose: faces that are subjects of their own.
        faces: id of a subject to pictures and faces that show it where no object does.
    """
    rows = [_subject(subject_id, appearances, inputs) for subject_id, appearances in subjects.items() if appearances]
    for subject_id, found in (faces or {}).items():
        _add_faces(subject_id, found, rows)
    # a group's own subject first, then by how often and how well it is seen; ties by id
    rows.sort(key=lambda row: (-len(row["appearances"]), -_best(row), row["subject_id"]))
    rows += [_face_subject(picture, face) for picture, face in loose]
    rows = rows[: config.max_subjects]
    pictures = [_picture(picture, image_id, rows, inputs) for picture, image_id in enumerate(image_ids)]
    for row in rows:
        row["mentions"] = _mentions(row, pictures)
    every = [one for row in rows for one in row["mentions"]]
    for row in rows:
        row["mentions"] = [one for one in row["mentions"] if not any(_within(one, other) for other in every)]
    qualities = [appearance["quality"] for row in rows for appearance in row["appearances"]]
    known = [quality for quality in qualities if quality is not None]
    scores: Row = {"mip_s": mip_s(rows, inputs), "min_quality": min(known) if known else None, "named": []}
    row = {"sample_id": sample_id, "kind": kind, "scores": scores, "pictures": pictures, "subjects": rows}
    return Draft(row | {"instructions": []}, image_ids)


def mip_s(subjects: list[Row], inputs: ComposeInputs) -> float | None:
    """How well the subjects of a sample fit their phrases, less how alike they are; higher is better.

    mean cos(t_i, v_i) - mean cos(v_i, v_j) over pairs i < j, as read out of MIP-Adapter's figure (its paper gives the
    cosines, not their weights). Each subject is seen at its best.

    Returns:
        -2..2; None with fewer than two subjects that have a phrase and a vector, and without a text encoder.
    """
    cosines, vectors = [], []
    for subject in subjects:
        known = [
            appearance
            for appearance in subject["appearances"]
            if appearance["phrase_cosine"] is not None and appearance["object_id"] in inputs.text_space
        ]
        if known:
            best = max(known, key=lambda appearance: (appearance["quality"] or 0.0, appearance["object_id"]))
            cosines.append(best["phrase_cosine"])
            vectors.append(inputs.text_space[best["object_id"]])
    if len(vectors) < 2:
        return None
    return float(np.mean(cosines) - pair_similarities(np.stack(vectors)).mean())


def _best(subject: Row) -> float:
    return max((appearance["quality"] or 0.0 for appearance in subject["appearances"]), default=0.0)


def _subject(subject_id: str, appearances: list[tuple[int, Row]], inputs: ComposeInputs) -> Row:
    first = appearances[0][1]
    vectors = [inputs.embeddings.get(row["object_id"]) for _, row in appearances]
    known = [vector for vector in vectors if vector is not None]
    similarity = None
    if len(known) == len(vectors) and len(known) > 1:
        similarity = pair_similarities(np.stack(known)).astype(np.float16).tolist()
    return {
        "subject_id": subject_id,
        "track_id": first["track_id"],
        "kind": first["kind"],
        "category": first["category"],
        "phrase": first["phrase"] or (readable(first["category"]) if first["category"] else None),
        "appearances": [_appearance(picture, row, inputs) for picture, row in appearances],
        "similarity": similarity,
    }


def _appearance(picture: int, row: Row, inputs: ComposeInputs) -> Row:
    own = [face for face in inputs.faces.get(row["image_id"], []) if face["object_id"] == row["object_id"]]
    return {
        "picture": picture,
        "object_id": row["object_id"],
        "box": row["box"],
        "mask": row["mask"],
        "confidence": row["predicted_iou"] if row["predicted_iou"] is not None else row["confidence"],
        "quality": row["quality"],
        "phrase_cosine": row["phrase_cosine"],
        "face": _face(own[0]) if own else None,
    }


def _face(face: Row) -> Row:
    return {"box": face["box"], "landmarks": face["landmarks"], "det_score": face["det_score"]}


def _face_subject(picture: int, face: Row) -> Row:
    appearance = {
        "picture": picture,
        "object_id": None,
        "box": face["box"],
        "mask": None,
        "confidence": face["det_score"],
        "quality": None,
        "phrase_cosine": None,
        "face": _face(face),
    }
    return {
        "subject_id": face["face_id"],
        "track_id": None,
        "kind": "face",
        "category": None,
        "phrase": None,
        "appearances": [appearance],
        "similarity": None,
    }


def _add_faces(subject_id: str, faces: list[tuple[int, Row]], subjects: list[Row]) -> None:
    """Give a subject appearances by faces alone; the similarities of its objects then no longer cover all of them."""
    if not faces:
        return
    appearances = [_face_subject(picture, face)["appearances"][0] for picture, face in faces]
    own = next((row for row in subjects if row["subject_id"] == subject_id), None)
    if own is None:
        subjects.append(_face_subject(*faces[0]) | {"subject_id": subject_id, "appearances": appearances})
    else:
        own["appearances"] = sorted(own["appearances"] + appearances, key=lambda appearance: int(appearance["picture"]))
        own["similarity"] = None


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
    names = (
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
    row = {"image_id": image_id, **{name: image[name] for name in names}}
    return row | {"captions": captions, "caption_from": caption_from}


def _mentions(subject: Row, pictures: list[Row]) -> list[Row]:
    """Spans in the captions of the pictures that the subject is seen on."""
    if not subject["phrase"]:
        return []
    seen = sorted({appearance["picture"] for appearance in subject["appearances"]})
    return [
        {"picture": picture, "caption": number, "start": start, "end": end}
        for picture in seen
        for number, caption in enumerate(pictures[picture]["captions"])
        for start, end in spans(caption, subject["phrase"])
    ]


def _within(one: Row, other: Row) -> bool:
    """Whether a mention lies in a longer one: the dog of a hot dog."""
    same = (one["picture"], one["caption"]) == (other["picture"], other["caption"])
    longer = other["end"] - other["start"] > one["end"] - one["start"]
    return same and longer and other["start"] <= one["start"] and one["end"] <= other["end"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
