"""Duplicates: pairs of what goes and what stays, with what says that they are copies."""

from curation.report import wording
from curation.report.album import LEAK, Album
from curation.report.choice import Choice, Row
from curation.report.contact import subtitle
from curation.report.figures import Figures
from curation.report.markup import Child, Html, foreign, section, tag
from curation.report.tile import tile
from schemas.ids import image_of

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
            parts.append(subtitle(title, "; ".join(filter(None, [_MEANINGS.get(by), shown]))))
            parts.append(tag("div", {"class": "pairs"}, *(_pair(row, album) for row in rows)))
    total = sum(entry["copies"] for entry in figures["duplicates"])
    lead = (
        f"{wording.count(total)} {'copy goes' if total == 1 else 'copies go'}: of each pair one picture or object is "
        "left out, and the better one stays."
    )
    return section("duplicates", "Duplicates", lead, *parts)


def _pair(row: Row, album: Album) -> Html:
    similarity = wording.value(row["similarity"])
    facts = f"by {row['by']}" + (f" · similarity {similarity}" if row["similarity"] == row["similarity"] else "")
    return tag(
        "div",
        {"class": "pair"},
        tag("p", {"class": "soft facts"}, facts),
        tag("div", {"class": "two"}, _side("goes", row["id"], "rejected", row, album), _stays(row, album)),
    )


def _stays(row: Row, album: Album) -> Html:
    if row["by"] != LEAK:
        return _side("stays", row["of"], "kept", row, album)
    shot = tile("in the evaluation set", foreign(row["of"]), row["of"])
    return tag("div", {}, tag("p", {}, "evaluation"), shot)


def _side(title: str, name: str, kind: str, row: Row, album: Album) -> Html:
    size = album.picture_rows.get(image_of(name))
    badge = f"{size['width']}×{size['height']}" if row["kind"] == "image" and size else None
    shot = album.pictures.get(name) if row["kind"] == "image" else album.objects.get(name)
    return tag("div", {}, tag("p", {}, title), tile(shot, foreign(name), name, kind=kind, badge=badge))
