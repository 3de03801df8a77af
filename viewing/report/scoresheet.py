"""Histograms and quantiles of every score, and what each threshold does."""

from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, details, section, table, tag
from refloom.viewing.report.album import Album
from refloom.viewing.report.contact import object_tile
from refloom.viewing.report.figures import FEW_ROWS, Figures
from refloom.viewing.report.groupsheet import group_card
from refloom.viewing.report.histogram import score_chart, threshold_words
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.report.scores import FAMILIES
from refloom.viewing.tile import sheet


def scores(figures: Figures) -> Html:
    """A card for every score, family by family, and a table of quantiles."""
    parts = [
        _family(family.name, family.title, figures["scores"][family.name])
        for family in FAMILIES
        if figures["scores"][family.name]["rows"]
    ]
    return section(
        "scores",
        "Scores",
        "Dashed lines are the thresholds in force, with a wash over what they leave out. A violet line is what a value "
        "is worth for the quality, from 0 at the bottom to 1 at the top. Below each axis: 5 to 95 % thin, 25 to 75 % "
        "thick, the median a dot. The outermost bars count everything beyond them.",
        tag("p", {"class": "legend"}, *_legend()),
        *(parts or [tag("p", {"class": "soft"}, "No score was computed yet: run `refloom curate DATASET`.")]),
    )


def _legend() -> list[Html]:
    series = ("kept", "rejected", "undecided", "measured")
    return [tag("span", {}, tag("i", {"class": f"swatch {name}"}), f" {name} ") for name in series]


def _family(name: str, title: str, family: dict[str, Any]) -> Html:
    rows, sampled = family["rows"], family["sampled"]
    what = f"{wording.count(rows)} rows"
    if sampled < rows:
        what += f"; drawn from a sample of {wording.count(sampled)}, the same in every report"
    if family["filtered"]:
        what += (
            f"; {wording.count(family['filtered'])} were spared by the decode-free filter, "
            "so their pixel components are null"
        )
    columns = family["columns"]
    if rows <= FEW_ROWS:
        parts: list[Child] = [_few(columns)]
        return tag(
            "div",
            {"class": "family", "id": f"scores-{name}"},
            tag("h3", {}, title),
            tag("p", {"class": "soft"}, what + "."),
            *parts,
        )
    drawn = {column: score for column, score in columns.items() if score["histogram"]}
    empty = [column for column in columns if column not in drawn]
    return tag(
        "div",
        {"class": "family", "id": f"scores-{name}"},
        tag("h3", {}, title),
        tag("p", {"class": "soft"}, what + "."),
        tag("div", {"class": "cards"}, *(_card(column, score, family) for column, score in drawn.items())),
        _absent(empty, rows) if empty else None,
        details("Quantiles", _quantiles(drawn, family["levels"]), is_open=True) if drawn else None,
    )


def _few(columns: dict[str, Any]) -> Html:
    """Every value of a family of few rows: a histogram of them would say less."""
    rows: list[list[Child]] = []
    for name, score in columns.items():
        bounds = [threshold_words(one) for one in score["thresholds"]]
        values = ", ".join(wording.value(value) for value in score["values"] or [])
        rows.append([tag("code", {}, name), score.get("doc", ""), values or "–", ", ".join(bounds)])
    return table(["score", "what", "values", "threshold"], rows, words=2, kind="few")


def _absent(columns: list[str], rows: int) -> Html:
    names = wording.listed(columns)
    return tag("p", {"class": "soft"}, f"{names}: null in all {wording.count(rows)} rows, not computed.")


def _card(column: str, score: dict[str, Any], family: dict[str, Any]) -> Html:
    nulls = score["nulls"]
    said = f"null: {wording.count(nulls)}, not computed" if nulls else "no nulls"
    part = "part of the quality" if score["in_quality"] else ""
    return tag(
        "div",
        {"class": "card"},
        tag("h4", {}, column, tag("small", {}, part) if part else None),
        tag("p", {"class": "doc"}, score.get("doc", "")),
        score_chart(column, score, family["levels"]),
        tag("p", {"class": "soft foot"}, tag("span", {}, said), tag("span", {}, _middle(score, family["levels"]))),
    )


def _middle(score: dict[str, Any], levels: list[int]) -> str:
    by_level = dict(zip(levels, score["quantiles"], strict=True))
    peak = max(sum(bins) for bins in zip(*score["histogram"]["counts"].values(), strict=True))
    return f"median {wording.value(by_level[50])} · peak {wording.count(peak)}"


def _quantiles(columns: dict[str, Any], levels: list[int]) -> Html:
    rows = [
        [
            tag("code", {}, column),
            *(wording.value(value) for value in score["quantiles"]),
            wording.count(score["nulls"]),
        ]
        for column, score in columns.items()
    ]
    return table(["score", *(f"{level} %" for level in levels), "null"], rows)


def at_thresholds(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """What each threshold does on its own, and the objects or groups nearest to it on either side."""
    if not figures["thresholds"]:
        return None
    strips = {strip.threshold.setting: strip for strip in (*choice.strips, *choice.group_strips)}
    has_labels = any(entry["alone_judged"] for entry in figures["thresholds"])
    rows = [_effect(entry, has_labels=has_labels) for entry in figures["thresholds"]]
    head = ["setting", "reason", "value", "outside it", "rejected by it alone"]
    head += ["judged among these", "good"] if has_labels else []
    parts = []
    for entry in figures["thresholds"]:
        strip = strips.get(entry["setting"])
        if strip is not None and (strip.outside or strip.inside):
            parts.append(_strip(entry, strip.outside, strip.inside, album))
    scored = sum(figures["scores"][name]["sampled"] for name in ("objects", "wholes"))
    of = f"Of {wording.several(scored, 'object')} with scores, whole pictures included"
    if any(entry["family"] == "groups" for entry in figures["thresholds"]):
        of += f", and of {wording.several(figures['scores']['groups']['sampled'], 'group')}"
    return section(
        "thresholds",
        "At the thresholds",
        "Only objects and groups whose fate hangs on the one threshold are shown: they satisfy all others. The dashed "
        "line of a strip parts the ones that are just rejected from the ones that are just kept.",
        table(head, rows, words=2, kind="effects"),
        tag("p", {"class": "soft"}, f"{of}."),
        *parts,
    )


def _effect(entry: dict[str, Any], *, has_labels: bool) -> list[Html | str]:
    sign = "≥" if entry["keeps_above"] else "≤"
    total = entry["items"]
    name = tag(
        "span", {}, tag("code", {}, entry["setting"]), tag("small", {}, entry["note"]) if entry["note"] else None
    )
    return [
        name,
        tag("code", {}, entry["reason"]),
        f"{sign} {entry['bound']:g}",
        f"{wording.count(entry['breaks'])} ({wording.share(entry['breaks'], total)})",
        f"{wording.count(entry['alone'])} ({wording.share(entry['alone'], total)})",
        *_judged(entry["alone_judged"], has_labels=has_labels),
    ]


def _judged(alone: dict[str, int] | None, *, has_labels: bool) -> list[str]:
    """What people said of the objects that a threshold rejects alone."""
    if not has_labels:
        return []
    return ["", ""] if alone is None else [wording.count(alone["judged"]), wording.count(alone["good"])]


def _strip(entry: dict[str, Any], outside: list[Row], inside: list[Row], album: Album) -> Html:
    left, right = (_side(entry, rows, album, kind) for rows, kind in ((outside, "rejected"), (inside, "kept")))
    sign = "≥" if entry["keeps_above"] else "≤"
    return tag(
        "div",
        {"class": "strip"},
        tag("h3", {}, tag("code", {}, entry["setting"]), f" {sign} {entry['bound']:g}"),
        tag(
            "div",
            {"class": "sides"},
            tag(
                "div",
                {"class": "side"},
                tag("p", {"class": "side-title rejected"}, "just rejected"),
                left,
            ),
            tag("div", {"class": "side"}, tag("p", {"class": "side-title kept"}, "just kept"), right),
        ),
    )


def _side(entry: dict[str, Any], rows: list[Row], album: Album, kind: str) -> Html:
    """What lies on one side of a threshold, the nearest first."""
    if not rows:
        return sheet([tag("p", {"class": "soft nothing"}, "none")])
    if entry["family"] == "groups":
        cards = [group_card(row, album, badge=wording.value(row["value"]), kind=kind) for row in rows]
        return tag("div", {"class": "stack"}, *cards)
    return sheet([object_tile(row, album, kind=kind, badge=wording.value(row["value"])) for row in rows])
