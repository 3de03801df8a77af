"""`RUN/index.html`: how a run goes, from what lies in its folder. It runs nothing and loads only pictures beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from refloom.schemas import wording
from refloom.schemas.pages import curves as plots
from refloom.schemas.pages.markup import NONE, Child, Html, asset, details, document, foreign, section, table, tag
from refloom.training.run import log as run_log
from refloom.training.watch import validation

FILE, RECIPE = "index.html", "recipe.yaml"
STEPS_SHOWN, LOST_SHOWN = 24, 200

_HUES = 8
_CURVES = (
    ("loss", "Loss", "mean over all processes since the line before", 1.0, True),
    ("gradient_norm", "Gradient norm", "before clipping, of steps whose gradients are finite", 1.0, True),
    ("lr", "Learning rate", "of the first group", 1.0, False),
    ("samples_per_second", "Samples per second", "over all processes, without validation", 1.0, False),
    (
        "memory_bytes",
        "Memory, GiB",
        "most so far on the first GPU; of the process where there is none",
        2.0**-30,
        False,
    ),
    ("mfu", "MFU, %", "model FLOPs of a step, counted once, over what the device could do at most", 100.0, False),
    ("tflops_per_second", "GFLOP/s", "model FLOPs of a step, counted once; of one process", 1000.0, False),
    ("bad_steps", "Bad steps", "whose gradients were not finite, since the line before", 1.0, False),
)

Line = dict[str, Any]


def write(run: Path) -> Path:
    """Write the page of a run.

    Args:
        run: its folder; see `checkpoint` and `validation`.
    """
    partial = run / f"{FILE}.partial"
    partial.write_text(render(run), "utf-8")
    return partial.rename(run / FILE)


def render(run: Path) -> str:
    """The page."""
    words = (run / RECIPE).read_text("utf-8")
    recipe: dict[str, Any] = yaml.safe_load(words)
    lines = run_log.read(run)
    parts = [
        _top(run, recipe, lines),
        section("curves", "Curves", "Point at a curve for its numbers.", tag("div", {"class": "cards"}, *curves(lines)))
        if lines
        else None,
        pictures(run),
        _lost(lines),
        section("recipe", "Recipe", "With all its values.", details("show", tag("pre", NONE, words))),
    ]
    body = tag("body", NONE, tag("main", NONE, *parts))
    style = asset(__package__, "page.css")
    return document(f"{run.resolve().name} – refloom train", body, style, images="'self' file:")


def _top(run: Path, recipe: dict[str, Any], lines: Sequence[Line]) -> Html:
    base = recipe["models"]["base"]
    heading = [
        tag("p", {"class": "kicker"}, "refloom train"),
        tag("h1", NONE, foreign(run.resolve().name)),
        tag("p", {"class": "sentence"}, foreign(recipe["method"]), " on ", foreign(base)),
    ]
    if not lines:
        return tag("header", NONE, *heading, tag("p", {"class": "soft"}, "No step has been logged yet."))
    last, steps = lines[-1], recipe["steps"]
    left = (steps - last["step"]) * last["seconds_per_step"]
    totals = [
        ("step", wording.count(last["step"]), f"of {wording.count(steps)}"),
        ("loss", wording.value(last["loss"]), ""),
        ("samples seen", wording.count(last["samples"]), ""),
        ("samples per second", wording.value(last["samples_per_second"]), ""),
        ("time left", f"{left / 3600:.1f} h" if left > 5400 else f"{left / 60:.0f} min", "as fast as of late"),
        ("memory", wording.size(last["memory_bytes"]), ""),
        ("MFU", "–" if last.get("mfu") is None else f"{last['mfu']:.0%}", _why_no_mfu(last)),
    ]
    cells = [
        tag(
            "div",
            {"class": "total"},
            tag("dt", NONE, name),
            tag("dd", NONE, tag("b", NONE, number), tag("small", NONE, more)),
        )
        for name, number, more in totals
    ]
    return tag("header", NONE, *heading, tag("dl", {"class": "totals"}, *cells))


def _why_no_mfu(line: Line) -> str:
    return "" if line.get("mfu") is not None else "this device's peak is not known"


def curves(lines: Sequence[Line]) -> list[Html]:
    """A card with a chart of each number of the log that there is."""
    out = []
    for key, title, doc, factor, smooth in _CURVES:
        values = [None if line.get(key) is None else line[key] * factor for line in lines]
        if key == "bad_steps" and not any(values):
            continue
        if chart := plots.curve(title, [line["step"] for line in lines], values, smooth=smooth):
            known = [value for value in values if value is not None]
            head = tag("h4", NONE, title, tag("small", NONE, wording.value(known[-1])))
            out.append(tag("div", {"class": "card"}, head, tag("p", {"class": "doc"}, doc), chart))
    return out


def pictures(run: Path, prefix: str = "") -> Html | None:
    """What validation made, a row for each time; None where there is none.

    Args:
        run: folder of the run.
        prefix: that leads to it from the page.
    """
    file = run / validation.FOLDER / validation.CASES
    if not file.is_file():
        return None
    cases: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    made = validation.steps(run)
    shown = evenly(made, STEPS_SHOWN)
    count = len(cases)
    rows: list[tuple[str, str, list[Html | None]]] = [
        ("", "", [_words(case) for case in cases]),
        ("references", "", [_references(case, prefix) for case in cases]),
        (
            "places" if all(case["target"] is None for case in cases) else "held out",
            "",
            [_place(case, prefix) for case in cases],
        ),
    ]
    for step, folder in reversed(shown):
        rows.append((wording.count(step), "step", [_made(folder, at, prefix) for at in range(count)]))
    body = [
        tag(
            "tr",
            NONE,
            tag("th", {"class": "name"}, tag("small", NONE, kind) if kind else None, tag("b", NONE, name)),
            *(tag("td", NONE, cell) for cell in cells),
        )
        for name, kind, cells in rows
        if any(cells)
    ]
    lead = "The same prompts, references and noise each time, the newest first; before the first step it is step 0."
    if len(shown) < len(made):
        lead += f" {len(shown)} of {len(made)} validations are shown; the others lie in {validation.FOLDER}/."
    grid = tag("div", {"class": "scroll"}, tag("table", {"class": "validation"}, tag("tbody", NONE, *body)))
    return section("validation", "Validation", lead, grid)


def _words(case: dict[str, Any]) -> Html:
    small = tag("small", NONE, foreign(case["sample_id"])) if case["sample_id"] else None
    words: Child = foreign(case["prompt"]) if case["prompt"] else "no text"
    return tag("div", {"class": "words"}, words, small)


def _references(case: dict[str, Any], prefix: str) -> Html:
    figures = [
        tag(
            "figure",
            {"class": f"s{number % _HUES}"},
            _picture(f"{prefix}{validation.FOLDER}/{image}", f"reference {number + 1}"),
            tag("figcaption", NONE, foreign(one["phrase"])) if one["phrase"] else None,
        )
        for number, one in enumerate(case["references"])
        for image in one["images"]
    ]
    return tag("div", {"class": "references"}, *figures)


def _place(case: dict[str, Any], prefix: str) -> Html | None:
    """The held-out picture with the references' places; the places alone where there is no such picture."""
    boxes = [(number, box) for number, one in enumerate(case["references"]) for box in one["boxes"] or ()]
    if case["target"] is None and not boxes:
        return None
    height, width = case["height"], case["width"]
    size = {"width": width, "height": height}
    marks = [
        tag(
            "rect",
            {
                "class": f"mark s{number % _HUES}",
                "x": x0 * width,
                "y": y0 * height,
                "width": (x1 - x0) * width,
                "height": (y1 - y0) * height,
            },
        )
        for number, (x0, y0, x1, y1) in boxes
    ]
    under = (
        tag("rect", {"class": "empty", **size})
        if case["target"] is None
        else tag("image", {"href": f"{prefix}{validation.FOLDER}/{case['target']}", **size})
    )
    return tag("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": "target"}, under, *marks)


def _made(folder: Path, at: int, prefix: str) -> Html:
    file = folder / f"{at}.png"
    if not file.is_file():
        return tag("span", {"class": "missing"}, "not made")
    return _picture(f"{prefix}{validation.FOLDER}/{folder.name}/{file.name}", "what was made")


def _picture(place: str, title: str) -> Html:
    return tag("img", {"src": place, "alt": title, "loading": "lazy"})


def _lost(lines: Sequence[Line]) -> Html | None:
    lost = [(line["step"], one) for line in lines for one in line.get("lost", ())]
    if not lost:
        return None
    rows = [
        (
            foreign(one["sample_id"]),
            foreign(one["by"]),
            foreign(one["reason"]),
            foreign(one.get("dataset", "")),
            wording.count(step),
        )
        for step, one in lost[:LOST_SHOWN]
    ]
    lead = "Damaged rows, and the rows that were taken in their place, as the first process met them."
    if len(lost) > LOST_SHOWN:
        lead += f" The first {LOST_SHOWN} of {wording.count(len(lost))}."
    return section(
        "replaced", "Replaced rows", lead, table(("sample", "replaced by", "why", "dataset", "by step"), rows, words=4)
    )


def evenly(many: Sequence[Any], most: int) -> list[Any]:
    """All, or `most` of them at even distances, the first and the last among them."""
    if len(many) <= most:
        return list(many)
    return [many[at * (len(many) - 1) // (most - 1)] for at in range(most)]
