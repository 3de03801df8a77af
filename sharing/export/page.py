"""The page of an export: some of its first examples, and what came of all. One file, no scripts."""

from typing import Any

from refloom.schemas.pages.markup import Html, document, foreign, join, table, tag
from refloom.sharing.export.folder import Place, Written

MOST = 12
"""Examples that it shows at most."""
NAME = "page.html"

_STYLE = """
main { max-width: 1280px; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
.examples {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: .9rem; margin: 1rem 0;
}
.example {
  background: var(--card); border: 1px solid var(--line); border-radius: var(--round); padding: .7rem .8rem;
  box-shadow: var(--shadow); min-width: 0;
}
.example h4 { margin: 0 0 .3rem; font-weight: 500; color: var(--soft); font-size: .8rem; }
.example p { margin: .1rem 0 .6rem; overflow-wrap: anywhere; }
.images { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-end; }
.images figure { margin: 0; max-width: 100%; }
.images img { display: block; max-width: 100%; max-height: 112px; border: 1px solid var(--line); background: #fff; }
.images figcaption { font-size: .76rem; color: var(--soft); max-width: 112px; overflow-wrap: anywhere; }
.images .target img { outline: 2px solid var(--kept); }
.images .target figcaption { color: var(--kept-ink); font-weight: 600; }
"""


def share(tasks: int) -> int:
    """How many examples each of some tasks keeps for the page: more than it needs, for some tasks have none."""
    return min(MOST, max(1, 4 * MOST // max(tasks, 1)))


def write(place: Place, title: str, lead: str, shown: list[dict[str, Any]], written: Written) -> None:
    """Write `page.html`.

    Args:
        place: the export.
        title: of the page.
        lead: how to read it.
        shown: examples: `title`, `text`, `images` with `caption` and `data`, a data URL; the last image is the target.
        written: counts of all.
    """
    place.write(NAME, html(title, lead, shown, written).encode("utf-8", "surrogatepass"))


def html(title: str, lead: str, shown: list[dict[str, Any]], written: Written) -> str:
    """The page; arguments as of `write`."""
    counts = [(foreign(word), f"{count:,}") for word, count in sorted(written.items())]
    body = tag(
        "body",
        {},
        tag(
            "main",
            {},
            tag("p", {"class": "kicker"}, "refloom export"),
            tag("h1", {}, title),
            tag("p", {"class": "sentence"}, lead),
            table(["what", "count"], counts),
            tag("h2", {}, "The first of them"),
            tag("div", {"class": "examples"}, join(_example(one) for one in shown[:MOST])),
        ),
    )
    return document(f"{title} | refloom export", body, _STYLE)


def _example(one: dict[str, Any]) -> Html:
    last = len(one["images"]) - 1
    images = (
        tag(
            "figure",
            {"class": "target" if number == last else None},
            tag("img", {"src": image["data"], "alt": image["caption"]}),
            tag("figcaption", {}, foreign(image["caption"])),
        )
        for number, image in enumerate(one["images"])
    )
    return tag(
        "article",
        {"class": "example"},
        tag("h4", {}, foreign(one["title"])),
        tag("p", {}, foreign(one["text"])),
        tag("div", {"class": "images"}, join(images)),
    )
