"""The whole page: one HTML file that needs nothing else, and that may load nothing else."""

import base64
import hashlib
from importlib import resources

from curation.report import closing, contact, funnel, groupsheet, overview, pairsheet, samplesheet, scoresheet
from curation.report.album import Album
from curation.report.choice import Choice
from curation.report.figures import Figures
from curation.report.markup import Html, tag

_TITLES = {
    "top": "Overview",
    "origins": "Origin and making",
    "funnel": "Funnel",
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
    style, script = _file("page.css"), _file("page.js")
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": _policy(style, script)}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "referrer", "content": "no-referrer"}),
        tag("title", {}, f"{figures['name']} – refloom report"),
        tag("style", {}, style),
    )
    body = tag(
        "body",
        {},
        _contents(list(present)),
        tag("main", {}, *present.values()),
        tag("div", {"id": "tip", "role": "status", "hidden": True}),
        tag("script", {}, script),
    )
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def _contents(anchors: list[str]) -> Html:
    links = [tag("li", {}, tag("a", {"href": f"#{anchor}"}, _TITLES[anchor])) for anchor in anchors]
    switch = tag(
        "label",
        {"class": "switch", "title": "show the pictures with or without outlines"},
        tag("input", {"type": "checkbox", "id": "outlines", "checked": True}),
        " outlines",
    )
    return tag("nav", {"aria-label": "contents"}, tag("ul", {}, *links), switch)


def _file(name: str) -> Html:
    return Html(resources.files(__package__).joinpath(name).read_text("utf-8"))


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded or run but this style, this script, and pictures inside the page."""
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
