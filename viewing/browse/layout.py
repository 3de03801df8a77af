"""What every page has around it, and the search form."""

import math

from refloom.schemas.pages.markup import Child, Html, foreign, join, tag
from refloom.schemas.reasons import REJECTED
from refloom.viewing.browse.index import Index
from refloom.viewing.browse.query import ORDERS, VIEWS, Query

_SCORES = {
    "pictures": "quality",
    "objects": "quality",
    "faces": "detector score",
    "groups": "similarity",
    "samples": "lowest quality",
}
_ORDERS = {"stored": "as stored", "lowest": "lowest first", "highest": "highest first"}
_KEYS = (
    ("/", "search"),
    ("arrows or h j k l", "move among the pictures"),
    ("Enter", "open"),
    ("n, p", "next and previous page, or item"),
    ("1 to 5", "pictures, objects, faces, groups, samples"),
    ("o", "outlines on and off"),
    ("r", "rejected objects on and off"),
    ("Esc", "back to the results"),
    ("?", "this list"),
)


Keys = tuple[tuple[str, str], ...]


def page(name: str, title: str, *children: Child, part: str = "", keys: Keys = _KEYS) -> str:
    """A page.

    Args:
        name: of the dataset.
        title: of the page.
        children: what it shows.
        part: name of a style sheet of its own, and of the script that it has instead of the usual one.
        keys: with what they do.
    """
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "referrer", "content": "no-referrer"}),
        tag("title", {}, f"{title} – {name}" if title else f"{name} – refloom browse"),
        tag("link", {"rel": "stylesheet", "href": "/theme.css"}),
        tag("link", {"rel": "stylesheet", "href": "/report.css"}),
        tag("link", {"rel": "stylesheet", "href": "/browse.css"}),
        tag("link", {"rel": "stylesheet", "href": f"/{part}.css"}) if part else None,
        tag("script", {"src": f"/{part or 'browse'}.js", "defer": True}),
    )
    listed = [join([tag("dt", {}, tag("kbd", {}, key)), tag("dd", {}, does)]) for key, does in keys]
    help_ = tag("dialog", {"id": "keys"}, tag("h2", {}, "Keys"), tag("dl", {}, *listed))
    body = tag("body", {"class": "browse"}, *children, help_)
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def top(name: str, *children: Child, has_switches: bool = True) -> Html:
    """The bar at the top: the name of the dataset, which leads to all of it, and what a page puts beside it."""
    switches = [
        _switch("outlines", "outlines", "show masks, boxes and landmarks (o)"),
        _switch("rejects", "rejected", "show objects that were rejected (r)"),
    ]
    if not has_switches:
        switches = []
    home = tag("a", {"class": "home", "href": "/"}, foreign(name))
    right = tag("span", {"class": "switches"}, *switches, tag("button", {"type": "button", "id": "help"}, "?"))
    return tag("header", {}, tag("div", {"class": "topbar"}, home, *children, right))


def _switch(identity: str, word: str, title: str) -> Html:
    box = tag("input", {"type": "checkbox", "id": identity, "checked": True, "autocomplete": "off"})
    return tag("label", {"class": "switch", "title": title}, box, f" {word}")


def form(index: Index, query: Query) -> Html:
    """The search form; without scripts it is sent by its button."""
    score = _SCORES[query.view]
    search = {
        "type": "search",
        "name": "q",
        "id": "q",
        "value": query.text,
        "placeholder": "id, phrase or category",
        "aria-label": "search",
        "autocomplete": "off",
        "spellcheck": "false",
    }
    fields = [tag("input", search), _select("source", "every source", index.sources.present(), query.source)]
    kinds = index.listings["objects" if query.view == "pictures" else query.view].kind.present()
    if kinds:
        noun = "object" if query.view in ("pictures", "objects") else query.view[:-1]
        fields.append(_select("kind", f"every kind of {noun}", kinds, query.kind))
    if query.view in ("pictures", "objects"):
        fields.append(_verdicts(index, query))
    fields += [
        tag(
            "span",
            {"class": "range"},
            _bound("min", query.low, f"least {score}"),
            tag("span", {}, f"≤ {score} ≤"),
            _bound("max", query.high, f"most {score}"),
        ),
        _select("order", "", [(order, 0) for order in ORDERS], query.order),
        tag("button", {"type": "submit", "class": "go"}, "Search"),
    ]
    hidden = tag("input", {"type": "hidden", "name": "view", "value": query.view})
    return tag("form", {"id": "search", "action": "/", "method": "get", "role": "search"}, hidden, *fields)


def _bound(name: str, value: float, title: str) -> Html:
    shown = None if math.isnan(value) else f"{value:g}"
    attributes = {"type": "number", "name": name, "value": shown, "step": "any", "title": title, "aria-label": title}
    return tag("input", attributes)


def _select(name: str, nothing: str, options: list[tuple[str, int]], chosen: str) -> Html:
    rows = [tag("option", {"value": ""}, nothing)] if nothing else []
    for value, count in options:
        words = f"{value} ({count:,})" if count else _ORDERS.get(value, value)
        rows.append(tag("option", {"value": value, "selected": value == chosen}, words))
    return tag("select", {"name": name, "aria-label": name, "autocomplete": "off"}, *rows)


def _verdicts(index: Index, query: Query) -> Html:
    found = dict(index.verdicts.present())
    kept, undecided = found.pop("keep", 0), found.pop("undecided", 0)
    rejected = sum(found.values())
    options = [tag("option", {"value": ""}, "every verdict")]
    for value, word, count in (
        ("keep", "kept", kept),
        ("reject", "rejected", rejected),
        ("undecided", "undecided", undecided),
    ):
        if count:
            options.append(tag("option", {"value": value, "selected": value == query.verdict}, f"{word} ({count:,})"))
    reasons = [
        tag(
            "option",
            {"value": reason, "selected": reason == query.verdict, "title": REJECTED.get(reason)},
            f"{reason} ({count:,})",
        )
        for reason, count in found.items()
    ]
    groups = [tag("optgroup", {"label": "rejected as"}, *reasons)] if reasons else []
    return tag("select", {"name": "verdict", "aria-label": "verdict", "autocomplete": "off"}, *options, *groups)


def tabs(index: Index, query: Query) -> Html:
    """One tab for each kind of thing, with how many there are; a search goes along as far as it fits."""
    links = []
    for view in VIEWS:
        keeps_kind = {query.view, view} <= {"pictures", "objects"}
        changes: dict[str, str | int] = {"view": view, "page": 1}
        if not keeps_kind:
            changes |= {"kind": "", "verdict": "", "low": math.nan, "high": math.nan}  # type: ignore[dict-item]
        count = tag("small", {}, f" {len(index.listings[view]):,}")
        here = "page" if view == query.view else None
        links.append(tag("a", {"href": query.address(**changes), "aria-current": here}, view, count))
    return tag("nav", {"class": "tabs", "aria-label": "lists"}, *links)
