"""The candidates of a dataset: what may become a sample, listed from scalar columns. No mask and no picture is read.

What is listed here is what `compose` would make a sample of, by the same functions over the same rows. Only bounds on
pairs look at masks and embeddings, of the subjects of cross samples alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from refloom.curation.compose import cross
from refloom.curation.compose import samples as compose
from refloom.curation.compose.cross import Crossing
from refloom.curation.compose.frames import image_frames, video_frames, videos
from refloom.curation.compose.inputs import ComposeInputs, Seen
from refloom.curation.compose.memberships import Memberships
from refloom.curation.compose.settings import Compose
from refloom.curation.group import bounds as pairs
from refloom.curation.group.bounds import Pairs
from refloom.curation.objects import read_objects
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Rejected
from refloom.schemas.ids import image_of

Row = dict[str, Any]


@dataclass(slots=True)
class Candidate:
    """One candidate.

    Attributes:
        sample_id: as in `samples`.
        kind: image, video, group or cross.
        group: identity, look or folder; None for other kinds.
        source: of its first picture.
        category: of its first subject, or None.
        split: train or validation.
        score: the smallest quality of its objects, of a group the mean similarity; NaN where there is none.
        outside: reason and score where it breaks a bound on pairs, else None.
        references: of a cross sample, where there are bounds: ids whose pair with the target is inside.
    """

    sample_id: str
    kind: str
    group: str | None
    source: str
    category: str | None
    split: str
    score: float
    outside: tuple[str, str] | None
    references: list[str] | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    """An image whose subjects groups know: its candidate as far as it is known, and the groups of its sights."""

    image_id: str
    candidate: Candidate
    groups: dict[str, list[Row]]


@dataclass(slots=True)
class _Context:
    """What has to be known of all units before the candidates of one can be listed.

    Attributes:
        grouped: pictures of folders and records, which are no candidates of their own.
        groups: unit to its groups that are candidates.
        outside: track id to the bound that it breaks.
        members: members of groups, and their pictures.
        sources, splits: of pictures of members.
        categories: of members.
        units: of members' pictures.
        targets: unit to the images that may be targets of cross samples.
        known: what groups over several pictures say, tracks left out.
    """

    grouped: set[str] = field(default_factory=set)
    groups: dict[str, list[Row]] = field(default_factory=dict)
    outside: dict[str, tuple[str, str]] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    categories: dict[str, str | None] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    targets: dict[str, list[_Target]] = field(default_factory=dict)
    known: Memberships = field(default_factory=Memberships)


def list_candidates(dataset: Dataset, config: Compose, bounds: Pairs) -> dict[str, list[Candidate]]:
    """Unit to its candidates, a unit at a time; ids and a few words of each are kept.

    Args:
        dataset: with splits.
        config: says which frames make a video sample, and which faces are subjects.
        bounds: on groups.
    """
    context = _Context()
    for unit in dataset.units():
        _read_groups(dataset, unit, bounds, context)
    context.known = Memberships.of_rows(row for rows in context.groups.values() for row in rows)
    found = {unit: _of_unit(dataset, unit, config, context) for unit in dataset.units()}
    for unit, groups in context.groups.items():
        sided = [compose.on_one_side(row, context.splits) for row in groups]
        found[unit] += [
            _group(row, context, bounds) for row in sided if len(row["members"]) > 1
        ]  # else compose rejects
        found[unit] += _crosses(dataset, unit, context, bounds)
    return found


def _read_groups(dataset: Dataset, unit: str, bounds: Pairs, context: _Context) -> None:
    own = []
    for row in dataset.read("groups", unit=unit).to_pylist():
        if row["kind"] == "track":
            if (broken := pairs.verdict(row, bounds)) is not None:
                context.outside[row["group_id"].removeprefix("track/")] = broken
            continue
        if row["kind"] == "folder":
            context.grouped.update(image_of(member) for member in row["members"])
        context.members.update(row["members"])
        context.members.update(image_of(member) for member in row["members"])
        own.append(row)
    context.groups[unit] = own


def _of_unit(dataset: Dataset, unit: str, config: Compose, context: _Context) -> list[Candidate]:
    """Pictures and videos of a unit; what groups need to know of it is put into the context."""
    inputs, splits = _inputs(dataset, unit, context)
    inputs.memberships = _with_tracks(dataset, unit, context.known)
    copies = set(dataset.read("duplicates", ["id"], unit=unit)["id"].to_pylist())
    own = [image_id for image_id in inputs.images if image_id not in copies]

    def candidate(kind: str, name: str, image_id: str, subjects: Seen) -> Candidate:
        rows = [row for seen in subjects.values() for _, row in seen]
        known = [row["quality"] for row in rows if row["quality"] is not None]
        return Candidate(
            sample_id=f"{kind}/{name}",
            kind=kind,
            group=None,
            source=inputs.images[image_id]["source"],
            category=_leading(subjects),
            split=splits[image_id],
            score=min(known, default=np.nan),
            outside=_outside(subjects, context) if kind == "video" else None,
        )

    found = []
    stills: list[str] = []
    for video_id, frames in videos(own, inputs).items():
        stills += image_frames(frames, inputs, config)
        for number, window in enumerate(video_frames(frames, inputs, config)):
            try:
                subjects = compose.video_subjects(window, inputs)
            except Rejected:  # compose says why
                continue
            found.append(candidate("video", f"{video_id}/{number}", window[0], subjects))
    singles = [name for name in own if inputs.images[name]["video_id"] is None and name not in context.grouped]
    for image_id in singles + stills:
        try:
            subjects, _ = compose.image_subjects(image_id, inputs, config)
        except Rejected:
            continue
        found.append(candidate("image", image_id, image_id, subjects))
    folders = [name for name in own if inputs.images[name]["video_id"] is None and name in context.grouped]
    for image_id in (*singles, *folders, *stills) if config.makes_cross else ():
        objects, faces = inputs.objects.get(image_id, []), inputs.faces.get(image_id, [])
        groups = cross.groups_on(objects, faces, inputs.memberships, config)
        if len(groups) >= cross.FEWEST:
            subjects = {row["object_id"]: [(0, row)] for row in objects if row["object_id"] in groups}
            target = _Target(image_id, candidate("cross", image_id, image_id, subjects), groups)
            _note_tracks(target, unit, splits, context)
            context.targets.setdefault(unit, []).append(target)
    return found


def _with_tracks(dataset: Dataset, unit: str, known: Memberships) -> Memberships:
    """What groups say of the objects of a unit: its tracks, and groups over several pictures."""
    rows = dataset.read("groups", ["group_id", "kind", "members"], unit=unit).to_pylist()
    tracks = [row for row in rows if row["kind"] == "track"]
    return known.plus(tracks) if tracks else known


def _note_tracks(target: _Target, unit: str, splits: dict[str, str], context: _Context) -> None:
    """Where the frames are that show a target's tracks; those of members of other groups are known already."""
    for rows in target.groups.values():
        for row in rows:
            for image_id in map(image_of, row["members"] if row["kind"] == "track" else ()):
                context.splits[image_id], context.units[image_id] = splits[image_id], unit


def _crosses(dataset: Dataset, unit: str, context: _Context, bounds: Pairs) -> Iterator[Candidate]:
    """The targets of a unit that have references on their side of the split; all units have been looked at."""
    found: dict[str, dict[str, Crossing]] = {}
    for target in context.targets.get(unit, ()):
        side = target.candidate.split
        crossings = cross.crossings(
            target.image_id,
            target.groups,
            lambda name: context.splits.get(image_of(name)) == side,  # noqa: B023  called at once
        )
        if crossings:
            found[target.image_id] = crossings
    inputs = _pairs_of(dataset, unit, found, context) if bounds.is_set and found else ComposeInputs()
    for target in context.targets.get(unit, ()):
        if target.image_id not in found:
            continue
        if bounds.is_set:
            judged = cross.inside(found[target.image_id], inputs, bounds)
            target.candidate.references, target.candidate.outside = judged
        yield target.candidate


def _pairs_of(dataset: Dataset, unit: str, found: dict[str, dict[str, Crossing]], context: _Context) -> ComposeInputs:
    """Everything of the sights of some targets that bounds ask for."""
    names = {name for one in found.values() for subject in one.values() for name in (subject.own, *subject.references)}
    units = dict.fromkeys([unit, *sorted({context.units[image_of(name)] for name in names})])
    inputs = ComposeInputs()
    for one in units:
        rows = dataset.read("images", ["image_id", "video_id", "frame_index"], unit=one).to_pylist()
        inputs.images |= {row["image_id"]: row for row in rows}
        inputs.read_seen(dataset, one, names)
    return inputs


def _inputs(dataset: Dataset, unit: str, context: _Context) -> tuple[ComposeInputs, dict[str, str]]:
    """Pictures, kept objects and faces of a unit, with the columns that decide; and the split of its pictures."""
    images = dataset.read("images", ["image_id", "source", "video_id", "frame_index"], unit=unit).to_pylist()
    inputs = ComposeInputs(images={row["image_id"]: row for row in images})
    selection = dataset.read("selection", ["object_id", "verdict"], unit=unit)
    kept = selection.filter(pc.equal(selection["verdict"], "keep"))["object_id"].combine_chunks()
    objects = read_objects(dataset, unit, ["object_id", "image_id", "track_id", "category", "kind"])
    objects = objects.filter(pc.is_in(objects["object_id"], kept))
    scores = dataset.read("object_scores", ["object_id", "quality"], unit=unit)
    place = pc.index_in(objects["object_id"], value_set=scores["object_id"].combine_chunks())
    objects = objects.append_column("quality", scores["quality"].take(place))
    for row in objects.to_pylist():
        inputs.objects.setdefault(row["image_id"], []).append(row)
        if row["object_id"] in context.members:
            context.categories[row["object_id"]] = row["category"]
    for row in dataset.read("faces", ["face_id", "image_id", "object_id", "box"], unit=unit).to_pylist():
        inputs.faces.setdefault(row["image_id"], []).append(row)
    rows = dataset.read("splits", ["image_id", "split"], unit=unit)
    splits = dict(zip(rows["image_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    for image_id in context.members & inputs.images.keys():
        context.sources[image_id], context.splits[image_id] = inputs.images[image_id]["source"], splits[image_id]
        context.units[image_id] = unit
    return inputs, splits


def _group(row: Row, context: _Context, bounds: Pairs) -> Candidate:
    first = row["members"][0]
    return Candidate(
        sample_id=f"group/{row['group_id']}",
        kind="group",
        group=row["kind"],
        source=context.sources[image_of(first)],
        category=context.categories.get(first),
        split=context.splits[image_of(first)],
        score=np.nan if row["mean_similarity"] is None else row["mean_similarity"],
        outside=pairs.verdict(row, bounds),
    )


def _leading(subjects: Seen) -> str | None:
    """The class of the subject that comes first in a sample: seen most often, then best."""
    if not subjects:
        return None

    def order(subject_id: str) -> tuple[int, float, str]:
        rows = [row for _, row in subjects[subject_id]]
        return (-len(rows), -max(row["quality"] or 0.0 for row in rows), subject_id)

    category: str | None = subjects[min(subjects, key=order)][0][1]["category"]
    return category


def _outside(subjects: Seen, context: _Context) -> tuple[str, str] | None:
    """The bound that the first of the tracks breaks if all that are seen more than once break one."""
    several = [track_id for track_id, seen in subjects.items() if len(seen) > 1]
    broken = [context.outside[track_id] for track_id in several if track_id in context.outside]
    return broken[0] if len(broken) == len(several) else None
