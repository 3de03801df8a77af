"""The results of a search: a grid of tiles whose pictures are fetched when they come into view."""

from urllib.parse import urlencode

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, foreign, tag
from refloom.viewing.browse.drawings import kind_of
from refloom.viewing.browse.index import Index
from refloom.viewing.browse.query import PAGE_SIZE, Query
from refloom.viewing.browse.search import search

_PAGES = {"pictures": "picture", "objects": "picture", "faces": "picture", "groups": "group", "samples": "sample"}


def results(index: Index, query: Query) -> Html:
    """One page of what a query finds."""
    rows = search(index, query)
    pages = max(1, -(-len(rows) // PAGE_SIZE))
    page = min(query.page, pages)
    shown = rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE].tolist()
    tiles: list[Child] = [_tile(index, query.view, row) for row in shown]
    if not tiles:
        tiles = [
            tag("p", {"class": "nothing"}, "Nothing fits. ", tag("a", {"href": f"/?view={query.view}"}, "Start over"))
        ]
    return tag(
        "div",
        {"id": "results", "data-count": len(rows), "data-page": page, "data-pages": pages},
        _count(index, query, len(rows), page, pages),
        tag("div", {"class": "sheet cells"}, *tiles),
        _pager(query, page, pages) if pages > 1 else None,
    )


def _count(index: Index, query: Query, found: int, page: int, pages: int) -> Html:
    total = len(index.listings[query.view])
    noun = query.view if total != 1 else query.view[:-1]
    words = f"{found:,} of {total:,} {noun}" if found != total else f"{total:,} {noun}"
    notes = f", page {page:,} of {pages:,}" if pages > 1 else ""
    left = len(index.left_out)
    more = f" · {left:,} of {len(index.units):,} units are too many to hold and are not searched" if left else ""
    return tag("p", {"class": "count soft", "aria-live": "polite"}, tag("b", {}, words), notes, more)


def _pager(query: Query, page: int, pages: int) -> Html:
    def step(to: int, word: str, rel: str) -> Html:
        if not 1 <= to <= pages:
            return tag("span", {"class": "off"}, word)
        return tag("a", {"href": query.address(page=to), "rel": rel}, word)

    return tag(
        "nav",
        {"class": "pager", "aria-label": "pages"},
        step(page - 1, "← previous", "prev"),
        tag("span", {}, f"{page:,} / {pages:,}"),
        step(page + 1, "next →", "next"),
    )


def link(index: Index, view: str, row: int) -> str:
    """The address of the page of a row: objects and faces are shown on their picture."""
    identity = str(index.listings[view].ids[row].as_py())
    if view in ("objects", "faces"):
        parent = int(index.listings[view].parent[row])
        picture = str(index.listings["pictures"].ids[parent].as_py()) if parent >= 0 else ""
        return f"/picture?{urlencode({'id': picture, 'show': identity})}"
    return f"/{_PAGES[view]}?{urlencode({'id': identity})}"


def _tile(index: Index, view: str, row: int) -> Html:
    listing = index.listings[view]
    identity = str(listing.ids[row].as_py())
    return cell(link(index, view, row), view, identity, *_words(index, view, row))


def _words(index: Index, view: str, row: int) -> tuple[Child, str, str, str]:
    """Caption, badge, class and hover text of a tile."""
    listing = index.listings[view]
    identity = str(listing.ids[row].as_py())
    name, score = listing.name.at(row), wording.value(float(listing.score[row]))
    lines = [identity]
    if view == "pictures":
        count = wording.several(int(listing.size[row]), "object")
        return foreign(identity), str(int(listing.size[row])), "", "\n".join([*lines, count, f"best quality: {score}"])
    if view == "objects":
        verdict = index.verdicts.at(row) or "undecided"
        lines += [f"{listing.kind.at(row)}: {verdict}", f"quality: {score}"]
        tile_kind = {"keep": "kept", "reject": "rejected"}.get(kind_of(verdict), "")
        return _name(name, listing.kind.at(row)), score, tile_kind, "\n".join(lines)
    if view == "faces":
        return _name(name, "face"), score, "", "\n".join([*lines, f"detector score: {score}"])
    if view == "groups":
        size = int(listing.size[row])
        lines += [f"{listing.kind.at(row)} of {size}", f"mean similarity: {score}"]
        return _name(name, listing.kind.at(row)), f"× {size}", "", "\n".join(lines)
    lines += [
        f"{listing.kind.at(row)} sample",
        wording.several(int(listing.size[row]), "subject"),
        f"lowest quality: {score}",
    ]
    return _name(name, listing.kind.at(row)), f"{listing.kind.at(row)}", "", "\n".join(lines)


def _name(name: str | None, otherwise: str | None) -> Html:
    return foreign(name) if name else tag("i", {}, otherwise or "unnamed")


def cell(href: str, view: str, identity: str, caption: Child, badge: str, kind: str, title: str) -> Html:
    """A tile that leads somewhere; its picture comes later, from `/tile`."""
    source = f"/tile?{urlencode({'view': view, 'id': identity})}"
    return tag(
        "a",
        {"class": f"tile cell {kind}".strip(), "href": href, "title": title},
        tag("div", {"class": "shot waits", "data-tile": source}),
        tag("figcaption", {}, tag("span", {"class": "name"}, caption), tag("span", {"class": "badge"}, badge)),
    )
