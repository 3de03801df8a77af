"""The end of the page: sizes, rates, and what to do next."""

from refloom.ingest.engine.progress import duration
from refloom.schemas import wording
from refloom.schemas.pages.markup import Html, foreign, section, table, tag
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.overview import code

_EXIT_CODES = (
    ("0", "done"),
    ("1", "done, but some rows failed: `--retry-failed` tries them again"),
    ("2", "refused: the request contradicts what is on disk; nothing was changed"),
    ("3", "the job could not finish: run the same command again, it resumes"),
    ("4", "an error that was not foreseen: one line says where its trace was kept"),
)


def sizes(figures: Figures) -> Html:
    """Rows and bytes of every table, rates of the last runs."""
    rows = [
        [
            tag("code", {}, name),
            wording.count(size["rows"]),
            wording.count(size["units"]),
            wording.count(size["files"]),
            wording.size(size["bytes"]),
            wording.size(size["bytes"] / size["rows"]) if size["rows"] else "–",
            wording.size(size["bytes"] / size["files"]) if size["files"] else "–",
        ]
        for name, size in figures["tables"].items()
    ]
    head = ["table", "rows", "units", "files", "size", "a row", "a file"]
    return section("sizes", "Sizes and rates", None, table(head, rows), tag("h3", {}, "Last runs"), _runs(figures))


def _runs(figures: Figures) -> Html:
    if not figures["runs"]:
        return tag("p", {"class": "soft"}, "No run has left a record.")
    rows = []
    for run in figures["runs"]:
        items, read = run["items_per_second"], run["bytes_per_second"]
        rows.append(
            [
                foreign(run["run"]),
                foreign(run["command"]),
                wording.count(run["items"]),
                wording.size(run["bytes"]),
                duration(run["seconds"]) if run["seconds"] >= 10 else f"{run['seconds']:.2f} s",
                "this process" if run["workers"] == 0 else wording.count(run["workers"]),
                f"{wording.value(items)}/s" if items else "–",
                f"{wording.size(read)}/s" if read else "–",
            ]
        )
    return table(["run", "what", "items", "read", "took", "workers", "items rate", "bytes rate"], rows, words=2)


def next_steps(figures: Figures) -> Html:
    """How to change what the page shows."""
    steps = [
        ("Change a threshold", "refloom curate DATASET [--config FILE] --set select.min_quality=0.5 --replace"),
        ("See all settings and their defaults", "refloom curate DATASET --print-config"),
        ("Say what would be done, without doing it", "refloom curate DATASET --dry-run"),
        ("Check the files, counts, masks and ids", "refloom verify DATASET"),
        ("The figures of this page as json", "refloom report DATASET --json"),
    ]
    failed = {"ingest": 0, "curate": 0}
    for stage, kinds in figures["funnel"].items():
        failed["ingest" if stage == "ingest" else "curate"] += sum(
            number for counts in kinds.values() for number in counts["failed"].values()
        )
    again = {"ingest": "refloom ingest SOURCE ... --retry-failed", "curate": "refloom curate DATASET --retry-failed"}
    steps = [
        (f"Try {wording.several(number, 'item')} again that failed in {command}", again[command])
        for command, number in failed.items()
        if number
    ] + steps
    return section(
        "next",
        "Where to go from here",
        code(
            "Selection reads stored scores only, so a new threshold takes seconds; groups and samples follow from it. "
            "What was left out, and why, is in `ledger/` row by row; verdicts on objects are in `selection/`."
        ),
        tag("dl", {"class": "steps"}, *(_step(title, command) for title, command in steps)),
        tag("h3", {}, "Exit codes"),
        table(["code", "meaning"], [[number, code(meaning)] for number, meaning in _EXIT_CODES], words=2),
    )


def _step(title: str, command: str) -> Html:
    return tag("div", {}, tag("dt", {}, title), tag("dd", {}, tag("code", {}, command)))
