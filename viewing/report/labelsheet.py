"""What people said of objects: how well scores agree with it, and where verdicts do not."""

from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, section, table, tag
from refloom.viewing.report.album import Album
from refloom.viewing.report.contact import object_tile, subtitle
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.overview import code
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.tile import sheet

_SHEETS = {
    "kept_poor": ("Kept, and judged no good", "kept"),
    "rejected_good": ("Rejected, and judged good", "rejected"),
    "kept_good": ("Kept, and judged good", "kept"),
    "rejected_poor": ("Rejected, and judged no good", "rejected"),
}


def labelled(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """Numbers and sheets; None where nobody has judged."""
    found = figures["labels"]
    if found is None:
        return None
    if not found["judged"]:
        gone = f"{wording.several(found['absent'], 'label')} of objects that are not in the dataset."
        return section("labels", "What people say", gone)
    beside = tag("div", {}, _verdicts(found), _said(found))
    parts: list[Child] = [tag("div", {"class": "columns"}, _auc(found), beside)]
    for name, (title, kind) in _SHEETS.items():
        rows = choice.judged.get(name, [])
        if rows:
            parts.append(
                subtitle(
                    title, "nearest to the threshold of quality first; at the right what was said, and the quality"
                )
            )
            parts.append(sheet(_tile(row, album, kind) for row in rows))
    gone = f" {wording.several(found['absent'], 'label')} more of objects that are not here." if found["absent"] else ""
    lead = (
        f"{wording.several(found['judged'], 'object')} judged as references in `refloom browse --label`, "
        f"{wording.share(found['good'], found['judged'])} of them good (2 or 3).{gone} `refloom fit-quality` learns "
        "the weights of quality from them."
    )
    return section("labels", "What people say", code(lead), *parts)


def _tile(row: Row, album: Album, kind: str) -> Html:
    """An object with what was said of it, and its quality."""
    said = [f"{row['label']:.0f}", *(flag.replace("_", " ") for flag in row["flags"])]
    return object_tile(
        row,
        album,
        kind=kind,
        badge=f"{row['label']:.0f} · {wording.value(row['quality'])}",
        also=f"judged {' '.join(said)}",
    )


def _verdicts(found: dict[str, Any]) -> Html:
    rows = [
        [name, wording.count(one["judged"]), wording.count(one["good"]), wording.share(one["good"], one["judged"])]
        for name, one in found["verdicts"].items()
    ]
    return tag("div", {"class": "block"}, tag("h3", {}, "By verdict"), table(["", "judged", "good", ""], rows))


def _said(found: dict[str, Any]) -> Html:
    scores = [[score, wording.count(count)] for score, count in sorted(found["scores"].items(), reverse=True)]
    flags = sorted(found["flags"].items(), key=lambda item: (-item[1], item[0]))
    said = [[flag.replace("_", " "), wording.count(count)] for flag, count in flags]
    tables = [table(["score", "objects"], scores), table(["flag", "objects"], said) if said else None]
    return tag("div", {"class": "block"}, tag("h3", {}, "By what was said"), tag("div", {"class": "beside"}, *tables))


def _auc(found: dict[str, Any]) -> Html | None:
    if not found["auc"]:
        return tag("p", {"class": "soft"}, "Too few are good, or too few are not, to compare scores with the labels.")
    ordered = sorted(found["auc"], key=lambda one: (one["score"] != "quality", -abs(one["all"]["auc"] - 0.5)))
    rows: list[list[Child]] = [
        [tag("code", {}, one["score"]), *_interval(one["all"]), *_interval(one["kept"])] for one in ordered
    ]
    head = ["score", "AUC", "95 %", "of", "among kept", "95 %", "of"]
    note = (
        "How often a good object has the higher score of a good one and one that is not; 0.5 says nothing, below it "
        "less is better. Intervals by drawing the images again."
    )
    return tag(
        "div",
        {"class": "block"},
        tag("h3", {}, "What each score knows of it"),
        tag("p", {"class": "soft"}, note),
        table(head, rows, kind="auc"),
    )


def _interval(one: dict[str, Any] | None) -> list[str]:
    if one is None:
        return ["–", "", ""]
    edges = "–" if one["low"] is None else f"{one['low']:.2f} to {one['high']:.2f}"
    return [f"{one['auc']:.3f}", edges, wording.count(one["judged"])]
