"""`OUT/index.html` of the demo: for each method that it has trained losses, batches and pictures."""

from pathlib import Path

from refloom.inference import results
from refloom.schemas.pages.markup import NONE, Html, asset, document, section, tag
from refloom.training.run import log as run_log
from refloom.training.watch import page

FILE = "index.html"


def write(out: Path) -> Path:
    """Write the page from what lies in the demo's folder."""
    body = tag("body", NONE, tag("main", NONE, _top(), *map(_method, sorted((out / "runs").iterdir()))))
    style = asset("refloom.training.watch", "page.css")
    partial = out / f"{FILE}.partial"
    partial.write_text(document("refloom demo", body, style, images="'self' file:"), "utf-8")
    return partial.rename(out / FILE)


def _top() -> Html:
    links = (
        ("dataset/report.html", "the dataset: what came in, what was kept, and why not the rest"),
        ("dataset/README.md", "its card"),
    )
    return tag(
        "header",
        NONE,
        tag("p", {"class": "kicker"}, "refloom demo"),
        tag("h1", NONE, "From photographs to an adapter"),
        tag(
            "p", {"class": "sentence"}, "Sample data, a dataset of it, a tiny base trained on that, and adapters on it."
        ),
        tag("ul", NONE, *(tag("li", NONE, tag("a", {"href": place}, words)) for place, words in links)),
    )


def _method(run: Path) -> Html:
    name, lines = run.name, run_log.read(run)
    sheet = f"pictures/{name}/{results.SHEET}"
    made = (run.parent.parent / sheet).is_file()
    links = ((f"batches-{name}.html", "the first batches"), (f"runs/{name}/{page.FILE}", "the run, with its recipe"))
    return section(
        name,
        name,
        None,
        tag("p", NONE, *(part for place, words in links for part in (tag("a", {"href": place}, words), " "))),
        tag("div", {"class": "cards"}, *page.curves(lines)),
        page.pictures(run, f"runs/{name}/"),
        tag("h3", NONE, "Made by refloom generate, with the references of the first column") if made else None,
        tag("img", {"class": "sheet", "src": sheet, "alt": "references and pictures"}) if made else None,
    )
