"""The subjects of a sample as rows: where each is seen, who it is, and how much its appearances differ."""

from typing import Any

import numpy as np

from refloom.curation.compose.inputs import ComposeInputs, Row, Seen
from refloom.curation.compose.mentions import readable, spans
from refloom.curation.compose.roles import role_of
from refloom.curation.group.spread import pair_similarities

_Sight = tuple[int, Row, bool]
"""Place of a picture in the sample, the object or else the face that is seen there, and whether it is a face."""


def subject_rows(subjects: Seen, faces: Seen, loose: list[tuple[int, Row]], inputs: ComposeInputs) -> list[Row]:
    """Subjects in order: by how often and how well they are seen, ties by id; faces of nobody else last.

    Args:
        subjects: id to the pictures and objects that show it.
        faces: id of a subject to pictures and faces that show it where no object does.
        loose: faces that are subjects of their own.
        inputs: of the sample.
    """
    sights: dict[str, list[_Sight]] = {}
    for subject_id, seen in subjects.items():
        sights.setdefault(subject_id, []).extend((picture, row, False) for picture, row in seen)
    for subject_id, seen in faces.items():
        sights.setdefault(subject_id, []).extend((picture, face, True) for picture, face in seen)
    several = [seen for seen in sights.values() if len(seen) > 1]
    inputs.outline(row for seen in several for _, row, is_face in seen if not is_face)
    rows = [_subject(subject_id, _in_order(seen), inputs) for subject_id, seen in sights.items() if seen]
    rows.sort(key=lambda row: (-len(row["appearances"]), -_best(row), row["subject_id"]))
    return rows + [_subject(face["face_id"], [(picture, face, True)], inputs) for picture, face in loose]


def _in_order(sights: list[_Sight]) -> list[_Sight]:
    return sorted(sights, key=lambda sight: sight[0])


def _best(subject: Row) -> float:
    return max((appearance["quality"] or 0.0 for appearance in subject["appearances"]), default=0.0)


def _subject(subject_id: str, sights: list[_Sight], inputs: ComposeInputs) -> Row:
    objects = [row for _, row, is_face in sights if not is_face]
    first: Row = objects[0] if objects else {"track_id": None, "category": None, "phrase": None}
    members = [row["face_id" if is_face else "object_id"] for _, row, is_face in sights]
    subject = {
        "subject_id": subject_id,
        "track_id": first["track_id"] if all(row["track_id"] == first["track_id"] for row in objects) else None,
        "kind": "face" if sights[0][2] else sights[0][1]["kind"],
        "category": first["category"],
        "phrase": first["phrase"] or (readable(first["category"]) if first["category"] else None),
        "appearances": [
            _of_face(picture, row, inputs) if is_face else _of_object(picture, row, inputs)
            for picture, row, is_face in sights
        ],
        "similarity": _similarity(objects, inputs) if len(objects) == len(sights) else None,
        "pair_pose_change": _pose_changes(sights, inputs) if len(sights) > 1 else None,
        "identity": inputs.memberships.one("identity", members),
        "look": inputs.memberships.one("look", members),
    }
    return subject | {"role": role_of(subject)}


def _similarity(objects: list[Row], inputs: ComposeInputs) -> list[float] | None:
    """Cosines of pairs; None for one object, and where one of them has no embedding."""
    vectors = [inputs.embeddings.get(row["object_id"]) for row in objects]
    known = [vector for vector in vectors if vector is not None]
    if len(known) < len(vectors) or len(known) < 2:
        return None
    cosines: list[float] = pair_similarities(np.stack(known)).astype(np.float16).tolist()
    return cosines


def _pose_changes(sights: list[_Sight], inputs: ComposeInputs) -> list[float | None]:
    return inputs.pose_changes([row for _, row, _ in sights], [is_face for _, _, is_face in sights])


def _of_object(picture: int, row: Row, inputs: ComposeInputs) -> Row:
    own = [face for face in inputs.faces.get(row["image_id"], []) if face["object_id"] == row["object_id"]]
    return {
        "picture": picture,
        "object_id": row["object_id"],
        "box": row["box"],
        "mask": row["mask"],
        "confidence": row["predicted_iou"] if row["predicted_iou"] is not None else row["confidence"],
        "quality": row["quality"],
        "phrase_cosine": row["phrase_cosine"],
        "face": _face(own[0], inputs) if own else None,
    }


def _of_face(picture: int, face: Row, inputs: ComposeInputs) -> Row:
    return {
        "picture": picture,
        "object_id": None,
        "box": face["box"],
        "mask": None,
        "confidence": face["det_score"],
        "quality": None,
        "phrase_cosine": None,
        "face": _face(face, inputs),
    }


def _face(face: Row, inputs: ComposeInputs) -> Row:
    vector = inputs.identities.get(face["face_id"])
    return {name: face[name] for name in ("box", "landmarks", "det_score", "pose", "sharpness")} | {
        "embedding": None if vector is None else vector.astype(np.float16)
    }


def mentions(subject: Row, pictures: list[Row]) -> list[Row]:
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


def is_within(one: Row, other: Row) -> bool:
    """Whether a mention lies in a longer one: the dog of a hot dog."""
    same = (one["picture"], one["caption"]) == (other["picture"], other["caption"])
    longer = other["end"] - other["start"] > one["end"] - one["start"]
    return same and longer and other["start"] <= one["start"] and one["end"] <= other["end"]


def scores_of(subjects: list[Row], inputs: ComposeInputs) -> dict[str, Any]:
    """The scores of a sample of these subjects."""
    qualities = [appearance["quality"] for row in subjects for appearance in row["appearances"]]
    known = [quality for quality in qualities if quality is not None]
    return {"mip_s": mip_s(subjects, inputs), "min_quality": min(known) if known else None, "named": []}


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
