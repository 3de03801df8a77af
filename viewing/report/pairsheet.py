"""Duplicates: pairs of what goes and what stays, with what says that they are copies."""

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, foreign, section, tag
from refloom.viewing.report.album import LEAK, Album
from refloom.viewing.report.contact import subtitle
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.tile import tile

_MEANINGS = {
    "bytes": "the files are the same",
    "phash": "perceptual hashes, of one or of the other's mirror image",
    "embedding": "cosine of the embeddings",
    LEAK: "what they are copies of lies in an evaluation set, so they go whatever their quality",
}


def duplicates(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """A few pairs for each way in which copies were recognised."""
    if not choice.pairs:
        return None
    parts: list[Child] = []
    for entry in figures["duplicates"]:
        kind, by = entry["kind"], entry["by"]
        rows = [row for row in choice.pairs if (row["kind"], row["by"]) == (kind, by)]
        if rows:
            title = f"{'Pictures' if kind == 'image' else 'Objects'} by {by}"
            shown = f"{len(rows)} of {wording.count(entry['copies'])}, from the least to the most alike"
            parts.append(subtitle(title, "; ".join(filter(None, [_meaning(kind, by), shown]))))
            parts.append(tag("div", {"class": "pairs"}, *(_pair(row, album) for row in rows)))
    total = sum(entry["copies"] for entry in figures["duplicates"])
    lead = (
        f"{wording.count(total)} {'copy goes' if total == 1 else 'copies go'}: of each pair one picture or object is "
        "left out, and the better one stays."
    )
    return section("duplicates", "Duplicates", lead, *parts)


def _meaning(kind: str, by: str) -> str | None:
    if kind == "object" and by in ("bytes", "phash"):
        return "their pictures are copies"
    return _MEANINGS.get(by)


def _pair(row: Row, album: Album) -> Html:
    similarity = wording.value(row["similarity"])
    facts = f"by {row['by']}" + (f" · similarity {similarity}" if row["similarity"] == row["similarity"] else "")
    return tag(
        "div",
        {"class": "pair"},
        tag("p", {"class": "soft facts"}, facts),
        tag("div", {"class": "two"}, _side("goes", row["id"], "rejected", album), _stays(row, album)),
    )


def _stays(row: Row, album: Album) -> Html:
    if row["by"] != LEAK:
        return _side("stays", row["of"], "kept", album)
    shot = tile("in the evaluation set", foreign(row["of"]), row["of"])
    return tag("div", {}, tag("p", {}, "evaluation"), shot)


def _side(title: str, name: str, kind: str, album: Album) -> Html:
    """An object, or a picture: an object goes with the picture that it lies on, too."""
    if "#" in name:
        return tag("div", {}, tag("p", {}, title), tile(album.objects.get(name), foreign(name), name, kind=kind))
    size = album.picture_rows.get(name)
    badge = f"{size['width']}×{size['height']}" if size else None
    return tag(
        "div", {}, tag("p", {}, title), tile(album.pictures.get(name), foreign(name), name, kind=kind, badge=badge)
    )
