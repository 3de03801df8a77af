"""What a dataset is made of, as small tables: categories, samples by kind, source and split, subjects, mentions."""

from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, foreign, section, table, tag
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.histogram import stacked

_MANY = 5
"""Samples with so many subjects or more are one column."""


def content(figures: Figures) -> Html | None:
    """The tables of what there is anything of."""
    found = figures["content"]
    blocks = [_samples(found["samples"]), _subjects(found["subjects_per_sample"]), _mentions(found["mentions"])]
    present = [block for block in blocks if block is not None]
    categories = _categories(found)
    if categories is None and not present:
        return None
    small = tag("div", {"class": "columns"}, *present) if present else None
    return section("content", "What is in it", None, categories, small)


def _block(title: str, note: str | None, *children: Child) -> Html:
    return tag("div", {"class": "block"}, tag("h3", {}, title, tag("small", {}, note) if note else None), *children)


def _categories(found: dict[str, Any]) -> Html | None:
    entries = list(found["categories"])
    others = found["other_categories"]
    if not entries:
        return None
    names: list[Child] = [foreign(one["category"]) if one["category"] else tag("i", {}, "no class") for one in entries]
    if others["objects"]:
        entries.append(others)
        names.append(tag("i", {}, f"{wording.count(others['categories'])} other categories"))
    most = max(one["objects"] for one in entries)
    rows = [_category(name, one, most) for name, one in zip(names, entries, strict=True)]
    # in two halves side by side, or a long list of short lines would leave the page half empty
    half = -(-len(rows) // 2) if len(rows) > 8 else len(rows)
    head: list[Child] = ["category", "", "objects", "kept", ""]
    parts = [table(head, part, kind="categories") for part in (rows[:half], rows[half:]) if part]
    return _block("Categories", "objects kept and rejected, of each class", tag("div", {"class": "columns"}, *parts))


def _category(name: Child, one: dict[str, Any], most: int) -> list[Child]:
    parts = [(verdict, f"{verdict}: {wording.count(one[verdict])}", one[verdict]) for verdict in _SERIES]
    decided = one["kept"] + one["rejected"]
    kept = (wording.count(one["kept"]), wording.share(one["kept"], one["objects"])) if decided else ("–", "")
    return [name, stacked([part for part in parts if part[2]], most), wording.count(one["objects"]), *kept]


_SERIES = ("kept", "rejected", "undecided")


def _samples(entries: list[dict[str, Any]]) -> Html | None:
    if not entries:
        return None
    splits = sorted({one["split"] for one in entries})
    counts = {(one["kind"], one["source"], one["split"]): one["samples"] for one in entries}
    rows: list[list[Child]] = []
    for kind, source in sorted({(one["kind"], one["source"]) for one in entries}):
        mine = [counts.get((kind, source, split), 0) for split in splits]
        rows.append([kind, foreign(source), *(wording.count(one) for one in mine), wording.count(sum(mine))])
    if len(rows) > 1:
        totals = [sum(one["samples"] for one in entries if one["split"] == split) for split in splits]
        rows.append([tag("i", {}, "all"), "", *(wording.count(one) for one in totals), wording.count(sum(totals))])
    return _block(
        "Samples", "kind, source of the first picture, split", table(["kind", "source", *splits, "all"], rows, words=2)
    )


def _subjects(entries: list[dict[str, Any]]) -> Html | None:
    if not entries:
        return None
    kinds = sorted({one["kind"] for one in entries})
    sizes = sorted({min(one["subjects"], _MANY) for one in entries})
    rows: list[list[Child]] = []
    for kind in kinds:
        mine = [one for one in entries if one["kind"] == kind]
        counts = [sum(one["samples"] for one in mine if min(one["subjects"], _MANY) == size) for size in sizes]
        mean = sum(one["subjects"] * one["samples"] for one in mine) / max(sum(one["samples"] for one in mine), 1)
        rows.append([kind, *(wording.count(count) for count in counts), wording.value(mean)])
    head = ["kind", *(f"{size} or more" if size == _MANY else str(size) for size in sizes), "mean"]
    return _block("Subjects a sample", "samples with so many", table(head, rows))


def _mentions(entries: list[dict[str, Any]]) -> Html | None:
    if not entries:
        return None
    rows: list[list[Child]] = [
        [
            one["kind"],
            wording.count(one["subjects"]),
            wording.count(one["mentioned"]),
            wording.share(one["mentioned"], one["subjects"]),
        ]
        for one in entries
    ]
    return _block("Mentions", "subjects that a caption names", table(["kind", "subjects", "mentioned", ""], rows))
