"""Contact sheets: pictures, kept and rejected objects, faces."""

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, foreign, section, tag
from refloom.schemas.reasons import REJECTED
from refloom.viewing import why
from refloom.viewing.report.album import Album
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.report.scores import FAMILY
from refloom.viewing.report.survey import KEPT
from refloom.viewing.tile import sheet, tile


def object_tile(row: Row, album: Album, *, kind: str = "", badge: str | None = None, also: str = "") -> Html:
    """An object: what it is called below it, with its quality or another value; everything known when pointed at.

    Args:
        row: of the family `objects`.
        album: with its drawing.
        kind: kept or rejected, for the colour of outlines.
        badge: shown instead of its quality.
        also: a line more of what is shown when pointed at.
    """
    known = album.object_rows.get(row["id"], {})
    name = known.get("phrase") or known.get("category") or row["phrase"] or row["category"]
    caption: Child = foreign(name) if name else tag("i", {}, "whole" if row["kind"] == "whole" else "no class")
    value = wording.value(row["quality"]) if badge is None else badge
    verdicts = {KEPT: "kept", None: "undecided"}
    lines = [row["id"], verdicts.get(row["reason"], f"rejected: {row['reason']}"), *([also] if also else [])]
    lines += [f"{name}: {wording.value(row[name])}" for name in FAMILY["objects"].columns if row[name] == row[name]]
    lines[2:2] = why.lines(row, row["kind"], album.quality)
    return tile(album.objects.get(row["id"]), caption, "\n".join(lines), kind=kind, badge=value)


def pictures(choice: Choice, album: Album) -> Html | None:
    """A look at what the pictures are like."""
    if not choice.pictures:
        return None
    tiles = []
    for row in choice.pictures:
        captions = (album.picture_rows.get(row["id"]) or {}).get("captions") or []
        detail = "\n".join([row["id"], *captions[:3]])
        tiles.append(tile(album.pictures.get(row["id"]), foreign(row["id"]), detail))
    lead = "A few at random, one of each video, the sources taking turns."
    return section("pictures", "Pictures", lead, sheet(tiles))


def objects(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """Kept objects by quality, rejected ones by reason; before selection, objects as they are."""
    if not (choice.kept or choice.rejected or choice.undecided):
        return None
    parts: list[Child] = []
    if choice.kept:
        kept = figures["totals"]["kept_objects"] or 0
        parts.append(
            subtitle("Kept", f"{len(choice.kept)} of {wording.count(kept)}, from the lowest to the highest quality")
        )
        parts.append(sheet(object_tile(row, album, kind="kept") for row in choice.kept))
    if choice.rejected:
        parts.append(subtitle("Rejected", "some at random for each reason"))
    counts = figures["funnel"].get("select", {}).get("object", {"rejected": {}})["rejected"]
    for reason, rows in sorted(choice.rejected.items(), key=lambda item: (-counts.get(item[0], 0), item[0])):
        note = f"{wording.count(counts.get(reason, len(rows)))}: {REJECTED.get(reason, '')}"
        parts.append(tag("h4", {}, tag("code", {}, reason), tag("small", {}, note)))
        parts.append(sheet(object_tile(row, album, kind="rejected") for row in rows))
    if choice.undecided:
        parts.append(subtitle("Undecided", "no verdict yet: `refloom curate` selects"))
        parts.append(sheet(object_tile(row, album) for row in choice.undecided))
    lead = (
        "One frame of each track. The outline is the mask; without one the box is drawn. "
        "Point at an object to see its scores."
    )
    return section("objects", "Objects", lead, *parts)


def subtitle(title: str, note: str) -> Html:
    """A heading inside a section, with a few words beside it."""
    return tag("h3", {}, title, tag("small", {}, note))


def faces(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """Face crops by detector score."""
    total = figures["totals"]["faces"]
    if total is None:
        return None
    if not choice.faces:
        return section("faces", "Faces", "No face was found.")
    tiles = []
    for row in choice.faces:
        lines = [row["id"], f"in {row['object_id']}" if row["object_id"] else "in no object"]
        lines += [f"{name}: {wording.value(row[name])}" for name in FAMILY["faces"].columns]
        shot = album.faces.get(row["id"])
        tiles.append(tile(shot, f"{row['side_px']:.0f} px", "\n".join(lines), badge=wording.value(row["det_score"])))
    shown = f"{len(tiles)} of {wording.count(total)}, from the lowest to the highest detector score"
    lead = f"{shown}. The crop as it is stored, with the detector's box and landmarks."
    return section("faces", "Faces", lead, sheet(tiles, "small"))
