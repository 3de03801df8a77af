"""The top of the page: what the dataset is, its totals, where it comes from and what it was made with."""

import json
from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, details, foreign, join, section, table, tag
from refloom.viewing.report.figures import Figures

_STATES = {
    "done": "done for every unit",
    "partial": "done for some units only",
    "stale": "made from inputs that have changed since: run `refloom curate DATASET`",
    "absent": "not done",
}


def header(figures: Figures) -> Html:
    """Name, one sentence, stages."""
    stages = [
        tag("li", {"class": f"stage {state}", "title": f"{stage}: {_STATES[state]}"}, stage)
        for stage, state in figures["stages"].items()
    ]
    return tag(
        "header",
        {"id": "top"},
        tag("p", {"class": "kicker"}, "refloom report"),
        tag("h1", {}, foreign(figures["name"])),
        tag("p", {"class": "sentence"}, sentence(figures)),
        tag("ol", {"class": "stages"}, *stages),
        _warnings(figures),
        _tiles(figures),
    )


def sentence(figures: Figures) -> str:
    """What the dataset is."""
    totals = figures["totals"]
    if not totals["pictures"]:
        return "No pictures yet: take some in with `refloom ingest`."
    names = [str(entry["source"]) for entry in figures["sources"]]
    videos = f", {wording.several(totals['videos'], 'video')} among them," if totals["videos"] else ""
    start = f"{wording.several(totals['pictures'], 'picture')} from {wording.listed(names)}{videos}"
    start += f" with {wording.listed(_objects(totals))}"
    if totals["kept_objects"] is None:
        return f"{start}; nothing was selected yet."
    end = f"{wording.count(totals['kept_objects'])} of them kept"
    if totals["groups"] is not None:
        end += f", {wording.several(totals['groups'], 'group')}"
    if totals["samples"] is not None:
        end += f", {wording.several(sum(totals['samples'].values()), 'training sample')}"
    return f"{start}; {end}."


def _objects(totals: Figures) -> list[str]:
    """What there is to choose from: whole pictures are nobody's annotation."""
    annotated, wholes, found = (totals[name] for name in ("annotated_objects", "whole_pictures", "found_objects"))
    parts = [wording.several(annotated, "annotated object")] if annotated or not (wholes or found) else []
    parts += (
        [f"{wording.several(wholes, 'whole picture')} as {'a subject' if wholes == 1 else 'subjects'}"]
        if wholes
        else []
    )
    return parts + ([f"{wording.several(found, 'object')} found by a model"] if found else [])


def _warnings(figures: Figures) -> Html | None:
    found = []
    states = figures["stages"]
    stale = [stage for stage, state in states.items() if state == "stale"]
    partial = [stage for stage, state in states.items() if state == "partial"]
    if figures["located_pictures"]:
        found.append(f"{_located(figures)}: `refloom publish` and `export` take it out unless told otherwise.")
    if stale:
        found.append(f"Out of date: {wording.listed(stale)}. Run `refloom curate DATASET` to bring it up to date.")
    if partial:
        found.append(f"Done for some units only: {wording.listed(partial)}. Run the same command again, it resumes.")
    mixed = [stage for stage, entries in figures["settings"].items() if stage != "ingest" and len(entries) > 1]
    if mixed:
        found.append(f"Units were made with different settings in {wording.listed(mixed)}; the most common are shown.")
    return tag("ul", {"class": "warnings"}, *(tag("li", {}, code(text)) for text in found)) if found else None


def code(text: str) -> Html:
    """Text with the parts between backticks set as code."""
    parts = text.split("`")
    return join(tag("code", {}, part) if index % 2 else part for index, part in enumerate(parts))


def _located(figures: Figures) -> str:
    count = figures["located_pictures"]
    return f"{wording.several(count, 'picture')} with a location in {'its file' if count == 1 else 'their files'}"


def _tiles(figures: Figures) -> Html:
    totals = figures["totals"]
    samples = totals["samples"]
    kept, wholes, found = totals["kept_objects"], totals["whole_pictures"], totals["found_objects"]
    notes = ["annotated" if found else "annotated in the source"]
    notes += [f"{wording.count(found)} found"] if found else []
    notes += [f"and {wording.several(wholes, 'whole picture')}"] if wholes else []
    everything = totals["objects"] + found
    splits = ", ".join(f"{wording.count(number)} {split}" for split, number in sorted((samples or {}).items()))
    entries: list[tuple[str, int | None, str]] = [
        ("pictures", totals["pictures"], f"in {wording.several(totals['units'], 'unit')}"),
        ("objects", totals["annotated_objects"], ", ".join(notes)),
        (
            "objects kept",
            kept,
            "" if kept is None else f"{wording.share(kept, everything)} of {'both' if wholes else 'all'}",
        ),
        ("faces", totals["faces"], "with crop and identity"),
        ("groups", totals["groups"], "of one subject"),
        ("samples", None if samples is None else sum(samples.values()), splits),
    ]
    tiles = [_tile(title, "–" if number is None else wording.count(number), note) for title, number, note in entries]
    tiles.append(_tile("on disk", wording.size(totals["bytes"]), "tables and ledgers"))
    return tag("dl", {"class": "totals"}, *tiles)


def _tile(title: str, number: str, note: str) -> Html:
    empty = number == "–"
    return tag(
        "div",
        {"class": "total none" if empty else "total"},
        tag("dt", {}, title),
        tag("dd", {}, tag("b", {}, number), tag("small", {}, "not made yet" if empty else note)),
    )


def origins(figures: Figures) -> Html:
    """Sources, licenses, models and settings."""
    sources = table(
        ["source", "pictures", "videos"],
        [
            [foreign(str(entry["source"])), wording.count(entry["pictures"]), wording.count(entry["videos"])]
            for entry in figures["sources"]
        ],
    )
    licenses = table(
        ["license", "source", "pictures"],
        [
            [
                foreign(entry["license"]) if entry["license"] else tag("i", {}, "not stated by the source"),
                foreign(str(entry["source"])),
                wording.count(entry["pictures"]),
            ]
            for entry in figures["licenses"]
        ],
        words=2,
    )
    keys = table(
        ["ingest", "units", "pictures", "objects and wholes", "kept", "", "samples"],
        [
            [
                tag("code", {}, foreign(entry["key"])),
                *(wording.count(entry[name]) for name in ("units", "pictures", "objects", "kept_objects")),
                wording.share(entry["kept_objects"], entry["objects"]),
                wording.count(entry["samples"]),
            ]
            for entry in figures["keys"]
        ],
    )
    blurred = figures["blurred_pictures"]
    note = f"{wording.several(blurred, 'picture')} from a source that blurs faces." if blurred else None
    places = f"{_located(figures)}." if figures["located_pictures"] else None
    return section(
        "origins",
        "Origin and making",
        None,
        tag("div", {"class": "columns"}, _block("Sources", sources, note, places), _block("Licenses", licenses)),
        _block("Ingests", keys),
        _models(figures),
        details(
            "Settings in force, by stage",
            tag("div", {"class": "settings"}, *(_settings(*entry) for entry in figures["settings"].items())),
        ),
    )


def _block(title: str, *children: Child) -> Html:
    return tag("div", {"class": "block"}, tag("h3", {}, title), *children)


def _models(figures: Figures) -> Html:
    rows = [
        [role.replace("_", " "), tag("code", {}, name), wording.count(units)]
        for role, models in figures["models"].items()
        for name, units in models.items()
    ]
    if not rows:
        return _block("Models", tag("p", {"class": "soft"}, "No stage with a model was run yet."))
    return _block("Models", table(["role", "model and revision", "units"], rows, words=2))


def _settings(stage: str, entries: list[dict[str, Any]]) -> Html:
    """The settings of a stage; where its units differ, one table for each."""
    parts = []
    for entry in entries:
        rows = [[tag("code", {}, key), _value(value)] for key, value in sorted(entry["settings"].items())]
        title = f"{stage}: {wording.several(entry['units'], 'unit')}"
        body = table(["setting", "value"], rows, words=2) if rows else tag("p", {"class": "soft"}, "nothing to set")
        parts.append(tag("div", {"class": "block"}, tag("h4", {}, title), body))
    return join(parts)


def _value(value: object) -> Html:
    return tag("code", {}, foreign(json.dumps(value, ensure_ascii=False)))
