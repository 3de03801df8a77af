"""Groups of kept objects that show one subject: tracks of a video, and groups that the source itself makes."""

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refloom.curation.group.directions import directions, group_id_of, texts_of
from refloom.curation.group.members import Member, Members
from refloom.curation.group.pose import head_turn, pose_change
from refloom.curation.group.settings import Group
from refloom.curation.group.spread import sharpness_ratio, spread
from refloom.curation.group.switches import Path, switched
from refloom.schemas import ids
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitWriter

VERSION = 4


@dataclass(frozen=True, slots=True)
class Ties:
    """Units that share source groups with a unit: EasyRef records may name pictures of other units.

    Attributes:
        lenders: units that hold members of this unit's source groups.
        borrowers: units whose source groups have members in this unit.
    """

    lenders: tuple[str, ...] = ()
    borrowers: tuple[str, ...] = ()


def ties(dataset: Dataset) -> dict[str, Ties]:
    """Unit to its ties, for the units that have any; in order of name.

    Every unit of a key with source groups is read once, ids only; where no group reaches beyond its unit, as in
    folders, the ids of other units are not looked at.
    """
    lenders: dict[str, set[str]] = defaultdict(set)
    borrowers: dict[str, set[str]] = defaultdict(set)
    for key in sorted({manifest.key for manifest in dataset.manifests("ingest").values()}):
        wanted = _wanted(dataset, key)
        for lender in _units_of(dataset, key) if wanted else ():
            for image_id in dataset.read("images", ["image_id"], unit=lender)["image_id"].to_pylist():
                for borrower in wanted.get(image_id, ()):
                    lenders[borrower].add(lender)
                    borrowers[lender].add(borrower)
    return {
        unit: Ties(tuple(sorted(lenders[unit])), tuple(sorted(borrowers[unit])))
        for unit in sorted(lenders.keys() | borrowers.keys())
    }


def _wanted(dataset: Dataset, key: str) -> dict[str, list[str]]:
    """Picture to the units that have it in a source group and do not hold it."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for unit in _units_of(dataset, key):
        if not dataset.manifests("ingest")[unit].tables["source_groups"].rows:
            continue
        members = dataset.read("source_groups", ["members"], unit=unit)["members"].combine_chunks().flatten()
        own = dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
        for image_id in set(members.to_pylist()).difference(own):
            wanted[image_id].append(unit)
    return wanted


def _units_of(dataset: Dataset, key: str) -> list[str]:
    return [unit for unit, manifest in dataset.manifests("ingest").items() if manifest.key == key]


def group_unit(dataset: Dataset, unit: str, others: tuple[str, ...], config: Group, out: UnitWriter) -> None:
    """Tracks and source groups of a unit, and the groups over the whole dataset that begin in it.

    Args:
        dataset, unit: where.
        others: units that hold further members: `Ties.lenders` and those of `matched_units`.
        config: settings.
        out: the unit's writer.
    """
    tracks = dataset.read("objects", ["track_id"], unit=unit)["track_id"].unique().drop_null().to_pylist()
    source_groups = dataset.read("source_groups", unit=unit).to_pylist()
    matches = dataset.read("matches", unit=unit).to_pylist()
    kept = Members(dataset, (unit, *others), {member for row in matches for member in row["members"]})
    out.expect("group", len(tracks) + len(source_groups) + len(matches))
    exchanged = _exchanged(tracks, kept, config)
    for track in tracks:
        members = sorted(kept.by_track[track], key=lambda member: (member.frame_index or 0, member.object_id))
        if track in exchanged:
            out.reject("group", track, "identity_switch", f"exchanges its masks with {exchanged[track]}")
        elif len(members) < config.min_members:
            out.reject("group", track, "too_few_members", f"{len(members)} of its objects were kept")
        else:
            out.add("groups", _row("track", members, kept, group_id=f"track/{track}"))
            out.keep("group")
    for row in matches:
        out.add("groups", row | differences(row["kind"], row["members"], kept))
    out.keep("group", len(matches))
    targets = directions(source_groups)
    taken: set[tuple[frozenset[str], str | None, tuple[str, ...]]] = set()
    for group in source_groups:
        members = sorted(
            {
                kept.whole[member].object_id: kept.whole[member] for member in group["members"] if member in kept.whole
            }.values(),
            key=lambda member: member.object_id,
        )
        target = targets.get(ids.encode(group["group_id"]))
        said = frozenset(member.object_id for member in members), target, texts_of(group)
        if len(members) < config.min_members:
            out.reject("group", group["group_id"], "too_few_members", f"{len(members)} of its pictures were kept")
        elif said in taken:
            out.reject("group", group["group_id"], "duplicate", "the same pictures as an earlier group")
        else:
            taken.add(said)
            first, is_record = members[0].object_id, group["kind"] == "record"
            group_id = group_id_of(first, group["group_id"], is_record=is_record)
            out.add("groups", _row("folder", members, kept, group_id=group_id))
            out.keep("group")


def _exchanged(tracks: list[str], kept: Members, config: Group) -> dict[str, str]:
    by_video: dict[str | None, list[Path]] = defaultdict(list)
    for track in tracks:
        members = sorted(kept.by_track[track], key=lambda member: member.frame_index or 0)
        seen = [(member, member.mask) for member in members if member.mask is not None]
        if seen:
            vectors = [kept.embeddings.get(member.object_id) for member, _ in seen]
            known = [vector for vector in vectors if vector is not None]
            path = Path(
                track,
                [member.frame_index or 0 for member, _ in seen],
                [mask for _, mask in seen],
                np.stack(known) if len(known) == len(seen) else None,
            )
            by_video[kept.videos[members[0].image_id]].append(path)
    found: dict[str, str] = {}
    for paths in by_video.values():
        found |= switched(paths, config)
    return found


def _row(kind: str, members: list[Member], kept: Members, *, group_id: str) -> dict[str, Any]:
    vectors = [kept.embeddings.get(member.object_id) for member in members]
    known = [vector for vector in vectors if vector is not None]
    stacked = np.stack(known) if len(known) == len(members) else None
    areas = np.array([member.area for member in members])
    frames = [member.frame_index for member in members if member.frame_index is not None]
    return {
        "group_id": group_id,
        "kind": kind,
        "members": [member.object_id for member in members],
        "video_id": kept.videos[members[0].image_id] if kind == "track" else None,
        "frame_gap": max(frames) - min(frames) if kind == "track" and frames else None,
        **asdict(spread(stacked, areas)),
        **differences(kind, [member.object_id for member in members], kept),
    }


def differences(kind: str, members: list[str], kept: Members) -> dict[str, float | None]:
    """How much the members differ in pose and sharpness; null where that is not known of every one of them.

    Args:
        kind: of group; identities are compared by their faces.
        members: object ids, or face ids.
        kept: with all of them.
    """
    objects = [kept.by_id.get(member) for member in members]
    found = [member for member in objects if member is not None]
    # the box of a whole picture says nothing of what is on it
    is_shaped = len(found) == len(objects) and all(one.kind == "object" or one.outline is not None for one in found)
    boxes = np.array([member.box for member in found], np.float32).reshape(-1, 4)
    faces = [kept.portraits.get(member) for member in members] if kind == "identity" else []
    sharpness = [one.sharpness if one is not None else np.nan for one in (faces if kind == "identity" else objects)]
    return {
        "pose_change": pose_change([member.outline for member in found], boxes) if is_shaped else None,
        "head_turn": head_turn([face.pose if face is not None else None for face in faces]),
        "sharpness_ratio": sharpness_ratio(np.array(sharpness, np.float64)),
    }
