"""Groups: a row of members for each, track by track, person by person, look by look, folder by folder."""

from collections import Counter
from typing import Any

from refloom.schemas import wording
from refloom.schemas.ids import image_of
from refloom.schemas.pages.markup import Child, Html, foreign, section, tag
from refloom.viewing.report.album import Album
from refloom.viewing.report.contact import subtitle
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.tile import sheet, tile

_TITLES = {
    "track": ("Tracks", "one object in the frames of a video"),
    "identity": ("Identities", "one person by the face"),
    "look": ("Looks", "one thing by how it looks"),
    "folder": ("Folders", "what the source calls one subject"),
}


def groups(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """A few groups of each kind."""
    if not figures["totals"]["groups"]:
        return None
    parts: list[Child] = []
    for kind, (title, meaning) in _TITLES.items():
        rows = choice.groups.get(kind)
        if rows:
            parts.append(subtitle(title, f"{meaning}; from the least to the most alike"))
            parts.append(tag("div", {"class": "groups"}, *(group_card(row, album) for row in rows)))
    lead = (
        "Members of one group show one subject; up to eight of them, evenly spaced. Similarity is the cosine of image "
        "embeddings, of faces for identities: very low hints at two subjects, very high at copies. Pose change is what "
        "their outlines do not share when laid over each other at one size."
    )
    return section("groups", "Groups", lead, *parts)


def group_card(row: Row, album: Album, *, badge: str | None = None, kind: str = "kept") -> Html:
    """A group: what it is called, how much its members differ, and some of them.

    Args:
        row: of the family `groups`.
        album: with its members.
        badge: a value to show beside its name.
        kind: kept or rejected, for the colour of outlines.
    """
    known = album.group_rows.get(row["id"], {"shown": [], "members": []})
    tiles = [_member(member, album, kind) for member in known["shown"]]
    name = _shows([album.object_rows.get(member) or {} for member in known["shown"]])
    place = _place(row, known["members"])
    return tag(
        "div",
        {"class": f"group n{len(tiles)}"},
        tag(
            "h4",
            {"title": row["id"]},
            foreign(name or place),
            tag("small", {}, foreign(place)) if name else None,
            tag("span", {"class": "badge"}, badge) if badge is not None else None,
        ),
        _facts(row),
        sheet(tiles, "row"),
    )


def _shows(objects: list[dict[str, Any]]) -> str | None:
    """What the members of a group are called: by most of them, and where they are of several classes, by how many."""
    names = Counter(name for one in objects if (name := one.get("phrase") or one.get("category")))
    if not names:
        return None
    (name, count), *others = names.most_common()
    return f"{name} ({count} of {len(objects)} members shown)" if others else str(name)


def _place(row: Row, members: list[str]) -> str:
    """Where a group comes from: its track, its folder, or the sources that it spans."""
    own = row["id"].partition("/")[2]
    if row["kind"] == "track":
        return str(own)
    if row["kind"] == "folder":
        where = image_of(own).partition("/")[2]
        return where.rpartition("/")[0] or where
    return wording.listed(sorted({member.partition("/")[0] for member in members})) or image_of(own)


def _member(member: str, album: Album, kind: str) -> Html:
    """An object, or the crop of a face that lies on none."""
    image_id, _, face = member.partition("@")
    frame = (album.picture_rows.get(image_of(member)) or {}).get("frame_index")
    caption = f"frame {frame}" if frame is not None else image_of(image_id).rsplit("/", 1)[-1]
    shot = album.faces.get(member) if face else album.objects.get(member)
    return tile(shot, foreign(caption), member, kind=kind, badge="face" if face else None)


def _facts(row: Row) -> Html:
    def known(value: Any) -> bool:
        return value is not None and value == value

    facts = [f"{row['members']:.0f} members"]
    if known(row["mean_similarity"]):
        ends = [wording.value(row[f"{end}_similarity"]) for end in ("min", "mean", "max")]
        facts.append(
            f"similarity {ends[0]} to {ends[2]}, mean {ends[1]}" if row["members"] > 2 else f"similarity {ends[1]}"
        )
    if known(row["frame_gap"]):
        facts.append(f"{row['frame_gap']:.0f} frame numbers apart")
    if known(row["area_ratio"]):
        facts.append(f"smallest over largest area {wording.value(row['area_ratio'])}")
    if known(row["pose_change"]):
        facts.append(f"pose change {wording.value(row['pose_change'])}")
    if known(row["head_turn"]):
        facts.append(f"heads {row['head_turn']:.0f}° apart")
    if known(row["sharpness_ratio"]):
        facts.append(f"least over greatest sharpness {wording.value(row['sharpness_ratio'])}")
    return tag("p", {"class": "soft facts"}, " · ".join(facts))
