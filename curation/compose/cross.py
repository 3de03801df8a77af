"""Cross samples: an image as the target, with two and more of its subjects shown on other images. Pure functions.

Who shows whom is what groups know. A subject that is seen on the target alone is left out: its only cut-out is that of
the target itself, and to paste that is what these samples are made against; the image sample of the target has it for
whoever wants its layout. A whole picture is no subject of a target, for the others are parts of it; where one face on
it makes it one person's, that face stands for it. As a reference it is as good as any.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refloom.curation.compose.inputs import ComposeInputs, Row
from refloom.curation.compose.memberships import Memberships
from refloom.curation.compose.samples import Draft, directed, draft_of, is_large, subject_name
from refloom.curation.compose.settings import Compose
from refloom.curation.group import bounds
from refloom.curation.group.bounds import Pairs
from refloom.curation.group.pose import head_turn
from refloom.curation.group.spread import pair_similarities, sharpness_ratio, spread
from refloom.schemas import masks
from refloom.schemas.errors import Rejected
from refloom.schemas.ids import image_of
from refloom.schemas.wording import several

FEWEST = 2
"""Subjects of a target that other images show too."""
_MOST_COMPARED = 32
"""References of a subject whose pose is compared with the target's: of longer tracks, evenly spaced frames."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A subject of a target that other images show.

    Attributes:
        own: id of the object or face on the target.
        kind: of the group that it is called after.
        references: ids of objects and faces on other images.
    """

    own: str
    kind: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Sight:
    """A subject on an image: its object, and its face; either may be absent."""

    image: Row
    shown: Row | None
    face: Row | None


def sights_on(objects: Sequence[Row], faces: Sequence[Row], config: Compose) -> list[str]:
    """Ids of what may be a subject of a target: kept objects, and large faces that none of them but a whole holds.

    Args:
        objects: kept ones of the image: id and kind.
        faces: of the image: id, box and object.
        config: says how large a face is a subject.
    """
    parts = [row["object_id"] for row in objects if row["kind"] != "whole"]
    held = set(parts)
    return parts + [face["face_id"] for face in faces if face["object_id"] not in held and is_large(face, config)]


def groups_on(
    objects: Sequence[Row], faces: Sequence[Row], known: Memberships, config: Compose
) -> dict[str, list[Row]]:
    """The sights of an image that groups know, to these groups; a whole picture stands for the face of one person."""
    found = {name: known.of[name] for name in sights_on(objects, faces, config) if name in known.of}
    for row in objects:
        if row["kind"] == "whole":
            person = [group for group in known.of.get(row["object_id"], ()) if group["kind"] == "identity"]
            large = [face for face in faces if face["object_id"] == row["object_id"] and is_large(face, config)]
            if person and large:
                found[row["object_id"]] = person
    return found


def crossings(
    image_id: str, groups: Mapping[str, Sequence[Row]], is_usable: Callable[[str], bool]
) -> dict[str, Crossing]:
    """Subjects of a target that other images show, by name; empty if they are fewer than two.

    Args:
        image_id: of the target.
        groups: sights on the target to their groups, see `groups_on`.
        is_usable: whether an object or face, by id, may be a reference of the target.
    """
    found: dict[str, Crossing] = {}
    for own, rows in groups.items():
        members = dict.fromkeys(member for row in rows for member in row["members"])
        others = tuple(sorted(name for name in members if image_of(name) != image_id and is_usable(name)))
        if others:
            found.setdefault(subject_name(rows[0]), Crossing(own, rows[0]["kind"], others))
    return found if len(found) >= FEWEST else {}


def inside(
    found: Mapping[str, Crossing], inputs: ComposeInputs, config: Pairs
) -> tuple[list[str], tuple[str, str] | None]:
    """The references whose pair with the target is inside the bounds, and why the target is outside, if it is.

    Args:
        found: subjects of one target.
        inputs: with all sights.
        config: bounds; those on groups hold for each pair.

    Returns:
        Ids in order, and reason and score of the first pair that is outside where fewer than two subjects are left.
    """
    stay: set[str] = set()
    left = 0
    broken: list[tuple[str, str]] = []
    for one in found.values():
        verdicts = {name: bounds.verdict(pair_scores(one, name, inputs), config) for name in one.references}
        own = [name for name, verdict in verdicts.items() if verdict is None]
        broken += [verdict for verdict in verdicts.values() if verdict is not None]
        stay.update(own)
        left += bool(own)
    return sorted(stay), broken[0] if left < FEWEST else None


def pair_scores(one: Crossing, name: str, inputs: ComposeInputs) -> dict[str, Any]:
    """What `groups` says of how much its members differ, of the target's sight and one reference.

    Args:
        one: the subject; persons are compared by their faces.
        name: id of the reference.
        inputs: with both.
    """
    pair = [_sight(one.own, inputs), _sight(name, inputs)]
    is_person = one.kind == "identity"
    frames = [sight.image["frame_index"] for sight in pair]
    videos = {sight.image["video_id"] for sight in pair}
    is_one_video = len(videos) == 1 and None not in videos and None not in frames
    vectors = [_vector(sight, inputs, is_person) for sight in pair]
    known = [vector for vector in vectors if vector is not None]
    areas = [float(masks.areas([s.shown["mask"]])[0]) if s.shown and s.shown["mask"] else np.nan for s in pair]
    sharpness = [_sharpness(sight, is_person) for sight in pair]
    poses = [sight.face["pose"] if sight.face is not None else None for sight in pair]
    return {
        "mean_similarity": float(pair_similarities(np.stack(known))[0]) if len(known) == 2 else None,
        "frame_gap": abs(frames[0] - frames[1]) if is_one_video else None,
        "area_ratio": spread(None, np.array(areas)).area_ratio,
        "pose_change": _pose_changes(pair, inputs)[0] if all(sight.shown is not None for sight in pair) else None,
        "head_turn": head_turn(poses) if is_person else None,
        "sharpness_ratio": sharpness_ratio(np.array(sharpness, np.float64)),
    }


def _sight(name: str, inputs: ComposeInputs) -> _Sight:
    image_id = image_of(name)
    shown = next((row for row in inputs.objects.get(image_id, ()) if row["object_id"] == name), None)
    faces = inputs.faces.get(image_id, ())
    return _Sight(
        inputs.images[image_id], shown, next((one for one in faces if name in (one["face_id"], one["object_id"])), None)
    )


def _vector(sight: _Sight, inputs: ComposeInputs, is_person: bool) -> Any:
    if is_person:
        return inputs.identities.get(sight.face["face_id"]) if sight.face is not None else None
    return inputs.embeddings.get(sight.shown["object_id"]) if sight.shown is not None else None


def _sharpness(sight: _Sight, is_person: bool) -> float:
    """On the scale of groups; NaN where it is not known."""
    if is_person:
        value = sight.face["sharpness"] if sight.face is not None else None
        return float(np.log10(1 + value)) if value is not None else np.nan
    value = sight.shown["sharpness"] if sight.shown is not None else None
    return np.nan if value is None else float(value)


def _pose_changes(sights: Sequence[_Sight], inputs: ComposeInputs) -> list[float | None]:
    """Of all pairs of sights, which are objects."""
    shown = [sight.shown for sight in sights if sight.shown is not None]
    inputs.outline(shown)
    return inputs.pose_changes(shown, [False] * len(shown))


def cross_sample(image_id: str, found: Mapping[str, Crossing], inputs: ComposeInputs, config: Compose) -> Draft:
    """A sample of a target and of images that show its subjects.

    Args:
        image_id: of the target.
        found: its subjects, with references that are inside all bounds.
        inputs: with all sights.
        config: settings.

    Raises:
        Rejected: `no_reference`.
    """
    chosen = choose(found, inputs, config)
    if len(chosen) < FEWEST:
        raise Rejected("no_reference", f"{several(len(found), 'subject')} seen on another image")
    names = [name for names in chosen.values() for name in names]
    image_ids = list(dict.fromkeys([image_id, *map(image_of, names)]))
    places = {image: place for place, image in enumerate(image_ids)}
    subjects: dict[str, list[tuple[int, Row]]] = {}
    faces: dict[str, list[tuple[int, Row]]] = {}
    for subject, references in chosen.items():
        for name in (found[subject].own, *references):
            sight, place = _sight(name, inputs), places[image_of(name)]
            # on the target a whole picture is its one face: see the module's docstring
            is_whole_target = place == 0 and sight.shown is not None and sight.shown["kind"] == "whole"
            if sight.shown is not None and not is_whole_target:
                subjects.setdefault(subject, []).append((place, sight.shown))
            elif sight.face is not None:
                faces.setdefault(subject, []).append((place, sight.face))
    draft = draft_of(f"cross/{image_id}", image_ids, subjects, [], inputs, config, faces)
    others = several(len(image_ids) - 1, "other image")
    draft.row["why"] = f"{several(len(chosen), 'subject')} seen on {others} too"
    return directed(draft, 0)


def choose(found: Mapping[str, Crossing], inputs: ComposeInputs, config: Compose) -> dict[str, list[str]]:
    """Subject to its references: those whose pose differs most first, ties by id, under the caps.

    Where images run out every subject has its first reference before any has its second, and the best subjects on the
    target come first.

    Returns:
        Subjects with a reference, at least one each.
    """

    def quality(name: str) -> tuple[float, str]:
        shown = _sight(found[name].own, inputs).shown
        return -((shown["quality"] or 0.0) if shown is not None else 0.0), name

    subjects = sorted(found, key=quality)[: config.max_subjects]
    ranked = {name: _by_pose(found[name], inputs) for name in subjects}
    images: set[str] = set()
    chosen: dict[str, list[str]] = {name: [] for name in subjects}
    for name in _in_turn(subjects, config.references_per_subject):
        room = len(images) < config.references_per_target
        fits = (one for one in ranked[name] if one not in chosen[name] and (room or image_of(one) in images))
        if (best := next(fits, None)) is not None:
            chosen[name].append(best)
            images.add(image_of(best))
    return {name: names for name, names in chosen.items() if names}


def _in_turn(subjects: Sequence[str], rounds: int) -> Iterable[str]:
    return (name for _ in range(rounds) for name in subjects)


def _by_pose(one: Crossing, inputs: ComposeInputs) -> list[str]:
    """References of a subject, the most different from the target first: by outline, else by how the head is turned."""
    picks = np.unique(np.linspace(0, len(one.references) - 1, _MOST_COMPARED).round().astype(int))
    names = [one.references[pick] for pick in picks]
    own, *others = (_sight(name, inputs) for name in (one.own, *names))
    shown = [place for place, sight in enumerate(others) if sight.shown is not None]
    changes = _pose_changes([own, *(others[place] for place in shown)], inputs) if own.shown is not None else []
    by_outline = dict(zip(shown, changes, strict=False))  # the first of all pairs are those with the target

    def difference(place: int) -> tuple[float, str]:
        change = by_outline.get(place)
        if change is None:
            turn = head_turn([sight.face["pose"] if sight.face is not None else None for sight in (own, others[place])])
            change = None if turn is None else turn / 180
        return (1.0 if change is None else -change), names[place]

    return [names[place] for place in sorted(range(len(others)), key=difference)]
