"""HTML out of Python values. Whatever is not marked as `Html` is escaped, so nothing a dataset holds becomes markup."""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping
from importlib import resources

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"br", "img", "input", "link", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None
Attributes = Mapping[str, object]

NONE: Attributes = {}


def escape(text: str) -> Html:
    """Text as markup that shows it; characters that HTML does not allow become U+FFFD."""
    return text if isinstance(text, Html) else Html(html.escape(_CONTROLS.sub("\ufffd", text)))


def tag(name: str, attributes: Attributes = NONE, *children: Child) -> Html:
    """An element.

    Args:
        name: of the element.
        attributes: name to value; None leaves one out, True gives it without a value, numbers are written short.
        children: markup, or text, which is escaped; None is nothing.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is True:
            parts.append(f" {key}")
        elif value is not None and value is not False:
            written = f"{round(value, 2):g}" if isinstance(value, float) else str(value)
            parts.append(f' {key}="{escape(written)}"')
    parts.append(">")
    if name in _VOID:
        return Html("".join(parts))
    return Html("".join([*parts, *(escape(child) for child in children if child is not None), f"</{name}>"]))


def join(parts: Iterable[Child], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(escape(between).join(escape(part) for part in parts if part is not None))


def foreign(text: str) -> Html:
    """Words of the dataset: marks of writing direction in them do not reach the page around them."""
    return tag("bdi", NONE, text)


def table(head: Iterable[Child], rows: Iterable[Iterable[Child]], *, words: int = 1, kind: str = "") -> Html:
    """A table that scrolls sideways by itself where the page is narrow.

    Args:
        head: titles of the columns.
        rows: cells.
        words: this many columns from the left hold words, the others numbers, which are set to the right.
        kind: further class of the table.
    """

    def cells(name: str, values: Iterable[Child]) -> Html:
        return tag(
            "tr",
            NONE,
            *(tag(name, {"class": None if index < words else "number"}, cell) for index, cell in enumerate(values)),
        )

    body = tag("tbody", NONE, *(cells("td", row) for row in rows))
    return tag(
        "div", {"class": "scroll"}, tag("table", {"class": kind or None}, tag("thead", NONE, cells("th", head)), body)
    )


def details(title: Child, *children: Child, is_open: bool = False) -> Html:
    """A part that folds away."""
    return tag("details", {"open": is_open}, tag("summary", NONE, title), *children)


def section(anchor: str, title: str, lead: Child, *children: Child) -> Html:
    """A section of the page.

    Args:
        anchor: its id, for the table of contents.
        title: its heading.
        lead: a sentence or two on how to read it.
        children: the rest.
    """
    return tag(
        "section",
        {"id": anchor},
        tag("h2", NONE, title),
        tag("p", {"class": "lead"}, lead) if lead else None,
        *children,
    )


def document(title: str, body: Html, style: str, script: str = "", *, images: str = "data:") -> str:
    """A whole page in refloom's looks, which may load and run nothing but what it is given here.

    Args:
        title: of the window.
        body: its `body` element, with the script at its end if there is one.
        style: beside `theme.css`.
        script: whose digest is allowed to run; empty for none.
        images: where pictures may come from, as a content security policy says it.
    """
    style = asset("schemas", "theme.css") + style
    allowed = _digest(script) if script else "'none'"
    policy = (
        f"default-src 'none'; img-src {images}; style-src {_digest(style)}; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "referrer", "content": "no-referrer"}),
        tag("title", {}, title),
        tag("style", {}, Html(style)),
    )
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def asset(package: str, name: str) -> Html:
    """The text of a style sheet or script that ships with a package."""
    return Html(resources.files(package).joinpath(name).read_text("utf-8"))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
