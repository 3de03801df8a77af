"""The funnel: what became of the items of every stage, and what the reasons mean."""

from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Html, details, foreign, section, table, tag
from refloom.schemas.reasons import FAILED, NOTHING_TO_FIND, REJECTED
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.histogram import stacked

_TONES = 5


def funnel(figures: Figures) -> Html:
    """A bar for every stage and kind of item, and the legend of reasons."""
    rows = []
    for stage, kinds in figures["funnel"].items():
        seen = [(kind, counts) for kind, counts in kinds.items() if counts["input"]]
        for place, (kind, counts) in enumerate(seen):
            rows.append(_row(stage if place == 0 else "", kind, counts))
    head = tag("tr", {}, *(tag("th", _side(place), name) for place, name in enumerate(_HEAD)))
    grid = tag("table", {"class": "funnel"}, tag("thead", {}, head), tag("tbody", {}, *rows))
    return section(
        "funnel",
        "Funnel",
        "Every item that went into a stage was kept, rejected for what it is, or failed for how the run went. "
        "In = kept + rejected + failed.",
        tag("p", {"class": "legend"}, *_legend(figures)),
        tag("div", {"class": "scroll"}, grid),
        _alone(figures.get("thresholds", [])),
        _reasons(figures),
    )


_HEAD = ("stage", "items", "in", "", "kept", "rejected", "failed")


def _side(place: int) -> dict[str, Any]:
    return {"class": "number" if place in (2, 4, 5, 6) else None}


def _legend(figures: Figures) -> list[Html]:
    words = {kind: kind for kind in ("kept", "rejected", "failed")}
    if any(
        NOTHING_TO_FIND & counts["rejected"].keys() for kinds in figures["funnel"].values() for counts in kinds.values()
    ):
        words["neutral"] = "rejected, but no loss: there was nothing to find"
    return [tag("span", {}, tag("i", {"class": f"swatch {kind}"}), f" {said} ") for kind, said in words.items()]


def _row(stage: str, kind: str, counts: dict[str, Any]) -> Html:
    total = counts["input"]
    rejected, failed = counts["rejected"], counts["failed"]
    parts = [("kept", _said("kept", counts["kept"], total), counts["kept"])]
    chips = []
    losses = {reason: number for reason, number in rejected.items() if reason not in NOTHING_TO_FIND}
    neutral = {reason: number for reason, number in rejected.items() if reason in NOTHING_TO_FIND}
    for verdict, reasons in (("rejected", losses), ("neutral", neutral), ("failed", failed)):
        ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        for place, (reason, number) in enumerate(ordered):
            tone = f"{verdict} t{place % _TONES}"
            parts.append((tone, _said(reason, number, total), number))
            chips.append(_chip(tone, reason, number, total))
    cells = [
        tag("td", {"class": "stage-name"}, stage),
        tag("td", {}, kind),
        tag("td", {"class": "number", "data-name": "in"}, wording.count(total)),
        tag("td", {"class": "grow"}, stacked(parts, total), tag("div", {"class": "chips"}, *chips) if chips else None),
        _number("kept", counts["kept"], total),
        _number("rejected", sum(rejected.values()), total),
        _number("failed", sum(failed.values()), total),
    ]
    return tag("tr", {"class": "first" if stage else None}, *cells)


def _said(what: str, number: int, total: int) -> str:
    return f"{what}: {wording.count(number)} ({wording.share(number, total)})"


def _number(name: str, number: int, total: int) -> Html:
    """A cell; its name is shown where the page is too narrow for a head."""
    named = {"data-name": name}
    if not number:
        return tag("td", {"class": "number soft", **named}, "0")
    return tag(
        "td", {"class": "number", **named}, wording.count(number), tag("small", {}, wording.share(number, total))
    )


def _chip(tone: str, reason: str, number: int, total: int) -> Html:
    meaning = REJECTED.get(reason) or FAILED.get(reason) or ""
    return tag(
        "span",
        {"class": "chip", "title": f"{reason}: {meaning}"},
        tag("i", {"class": f"swatch {tone}"}),
        f" {reason} ",
        tag("b", {}, wording.count(number)),
        tag("small", {}, f" {wording.share(number, total)}"),
    )


def _alone(thresholds: list[Figures]) -> Html | None:
    """What each rule rejects alone: so many more would be kept without it."""
    counted = [one for one in thresholds if one["alone"]]
    if not counted:
        return None
    chips = []
    for one in sorted(counted, key=lambda one: -one["alone"]):
        judged = one["alone_judged"]
        said = (
            f"{judged['good']} of {wording.count(judged['judged'])} judged are good"
            if judged and judged["judged"]
            else None
        )
        chips.append(
            tag(
                "span",
                {"class": "chip", "title": f"{one['reason']}: rejected by {one['setting']} and no other rule"},
                tag("code", {}, one["setting"]),
                f" {wording.count(one['alone'])}",
                tag("small", {}, f" ({said})") if said else None,
            )
        )
    return tag(
        "div", {"class": "alone"}, tag("h3", {}, "Rejected by one rule alone"), tag("div", {"class": "chips"}, *chips)
    )


def _reasons(figures: Figures) -> Html | None:
    """What the reasons of this dataset mean, with examples."""
    found: dict[str, list[str]] = {}
    for stage, kinds in figures["funnel"].items():
        for kind, counts in kinds.items():
            for verdict in ("rejected", "failed"):
                for reason, number in counts[verdict].items():
                    where = f"{stage}: {wording.count(number)} of kind {kind}, {verdict}"
                    found.setdefault(reason, []).append(where)
    if not found:
        return tag("p", {"class": "soft"}, "Nothing was left out.")
    rows = []
    for reason in sorted(found):
        examples = figures["examples"].get(reason, [])[:3]
        meaning = REJECTED.get(reason) or FAILED.get(reason) or ""
        rows.append([tag("code", {}, reason), meaning, _lines(found[reason]), _examples(examples)])
    return details("What the reasons mean", table(["reason", "meaning", "where", "for example"], rows, words=4))


def _lines(texts: list[str]) -> Html:
    return tag("ul", {"class": "plain"}, *(tag("li", {}, text) for text in texts))


def _examples(examples: list[dict[str, str]]) -> Html:
    return tag(
        "ul",
        {"class": "plain"},
        *(
            tag(
                "li",
                {},
                tag("code", {}, foreign(example["id"])),
                " " if example["detail"] else None,
                foreign(example["detail"]) if example["detail"] else None,
            )
            for example in examples
        ),
    )
