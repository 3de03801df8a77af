"""The whole page: one HTML file that needs nothing else, and that may load nothing else."""

from refloom.schemas.pages.markup import Html, asset, document, tag
from refloom.viewing.report import (
    contact,
    contentsheet,
    funnel,
    groupsheet,
    labelsheet,
    overview,
    pairsheet,
    samplesheet,
    scoresheet,
)
from refloom.viewing.report import footer as closing
from refloom.viewing.report.album import Album
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.picks import Choice

_TITLES = {
    "top": "Overview",
    "origins": "Origin and making",
    "funnel": "Funnel",
    "content": "What is in it",
    "labels": "What people say",
    "scores": "Scores",
    "thresholds": "At the thresholds",
    "pictures": "Pictures",
    "objects": "Objects",
    "duplicates": "Duplicates",
    "faces": "Faces",
    "groups": "Groups",
    "samples": "Samples",
    "sizes": "Sizes and rates",
    "next": "Where to go",
}


def render(figures: Figures, choice: Choice, album: Album) -> str:
    """The page.

    Args:
        figures: what it says in numbers.
        choice: what its sheets show.
        album: drawings of that.
    """
    sections = {
        "top": overview.header(figures),
        "funnel": funnel.funnel(figures),
        "content": contentsheet.content(figures),
        "labels": labelsheet.labelled(figures, choice, album),
        "scores": scoresheet.scores(figures),
        "thresholds": scoresheet.at_thresholds(figures, choice, album),
        "objects": contact.objects(figures, choice, album),
        "duplicates": pairsheet.duplicates(figures, choice, album),
        "faces": contact.faces(figures, choice, album),
        "groups": groupsheet.groups(figures, choice, album),
        "samples": samplesheet.samples(figures, choice, album),
        "pictures": contact.pictures(choice, album),
        "origins": overview.origins(figures),
        "sizes": closing.sizes(figures),
        "next": closing.next_steps(figures),
    }
    present = {anchor: part for anchor, part in sections.items() if part is not None}
    style, script = asset(__package__, "page.css"), asset(__package__, "page.js")
    body = tag(
        "body",
        {},
        _contents(list(present)),
        tag("main", {}, *present.values()),
        tag("div", {"id": "tip", "role": "status", "hidden": True}),
        tag("script", {}, script),
    )
    return document(f"{figures['name']} – refloom report", body, style, script)


def _contents(anchors: list[str]) -> Html:
    links = [tag("li", {}, tag("a", {"href": f"#{anchor}"}, _TITLES[anchor])) for anchor in anchors]
    switch = tag(
        "label",
        {"class": "switch", "title": "show the pictures with or without outlines"},
        tag("input", {"type": "checkbox", "id": "outlines", "checked": True}),
        " outlines",
    )
    return tag("nav", {"aria-label": "contents"}, tag("ul", {}, *links), switch)
