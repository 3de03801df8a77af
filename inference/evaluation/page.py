"""One self-contained page of an evaluation: scores, published tables, pictures beside their references.

Texts come from benchmarks and datasets, so whatever is not made here is escaped; the page loads and runs nothing.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from PIL import Image

from refloom.inference.adapters.reading import Pixels
from refloom.inference.evaluation import gallery, outcome
from refloom.inference.evaluation.cases import Benchmark, Case, Picture
from refloom.inference.evaluation.gallery import Exhibit
from refloom.inference.evaluation.metrics import BY_NAME, PARTS
from refloom.inference.evaluation.outcome import Line, Outcome, Published, Table
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder

SHOWN = 40
"""Cases with pictures, evenly over the benchmark; all pictures are in the folder."""

HEAD = ("metric", "value", "pictures", "protocol", "what", "95 % of draws of cases")
"""Of a table of scores."""

_THUMB_PX = 160
_PHOTOS = 4
_NAMED = 6
"""Scores beside a picture; how much it copies stands there besides."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } tr.ours { background: #eef5ff; }
code { font-size: .8rem; overflow-wrap: anywhere; }
td code { display: block; min-width: 16rem; } .case { border-top: 1px solid #ddd; padding: .8rem 0; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; } figure { margin: 0; max-width: 160px; }
figcaption { font-size: .8rem; color: #555; } img { display: block; max-width: 160px; }
figure.made img { outline: 2px solid #1971c2; }
"""


def page(
    folder: Folder, benchmark: Benchmark, exhibits: Sequence[Exhibit], found: Outcome, tables: Sequence[Published]
) -> str:
    """The page as HTML.

    Args:
        folder: of the evaluation, for its pictures.
        benchmark: it is of.
        exhibits: cases that were asked for.
        found: the outcome.
        tables: published ones.
    """
    title = _text(f"{benchmark.title}: {found.settings['models']['adapter']} on {found.settings['models']['base']}")
    counts = f"{found.measured:,} of {found.asked:,} pictures measured, {len(found.failures):,} failures"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>{counts}{'' if found.whole else '; not the whole benchmark'}.</p>",
        "".join(f"<p>{_text(note)}</p>" for note in benchmark.notes),
        "<h2>Scores</h2>",
        _scores(found.lines),
        *(_by_references(table) for table in found.tables),
        *(_published(table, found) for table in tables),
        "<h2>Pictures</h2>",
        *(_case(folder, exhibit, found) for exhibit in chosen(exhibits)),
    ]
    if found.failures:
        rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(why)}</td></tr>" for name, why in found.failures.items())
        parts.append(f'<h2>Failures</h2><div class="scroll"><table>{rows}</table></div>')
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(benchmark.title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(parts)}</body></html>\n'


def chosen(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    """Cases that are shown: all, or `SHOWN` at even distances."""
    if len(exhibits) <= SHOWN:
        return list(exhibits)
    return [exhibits[at * len(exhibits) // SHOWN] for at in range(SHOWN)]


def _by_references(table: Table) -> str:
    said = f"<p>{_text(table.held)} <code>{_text(table.protocol)}</code></p>"
    return f"<h2>{_text(table.title)}</h2>{said}{_scores(table.present)}"


def _scores(lines: Sequence[Line]) -> str:
    rows = [
        (
            _text(line.metric.title),
            _number(line.value) if line.why is None else "null",
            f"{line.pictures:,}",
            f"<code>{_text(line.protocol)}</code>" if line.protocol else "",
            _text(line.said),
            _text(line.spread),
        )
        for line in lines
    ]
    return _table(HEAD, rows, numbers=(1, 2))


def _published(table: Published, found: Outcome) -> str:
    ours, comparable = outcome.beside(table, found.lines, whole=found.whole)
    rows = [(_text(str(row[0])), *map(_number, row[1:])) for row in table.rows]
    rows.append(("this evaluation", *map(_number, ours)))
    head = ("method", *(BY_NAME[name].title for name in table.columns))
    said = f"{table.source}. {table.protocol}. Beside this evaluation: {comparable}."
    numbers = tuple(range(1, len(head)))
    return (
        f"<h2>Published: {_text(table.title)}</h2><p>{_text(said)}</p>{_table(head, rows, numbers=numbers, ours=True)}"
    )


def _case(folder: Folder, exhibit: Exhibit, found: Outcome) -> str:
    case = exhibit.case
    scores = {row["image"]: row["scores"] for row in found.rows if row["case"] == case.case_id}
    figures = [_figure(picture.pixels, caption) for picture, caption in _beside(case)]
    gone = gallery.missing(folder, exhibit)
    for image in range(exhibit.images):
        if image in gone:
            figures.append(f'<figure class="made"><figcaption>{_text(_why(case, image, found))}</figcaption></figure>')
            continue
        measured = {name: score for name, score in scores.get(image, {}).items() if score is not None}
        named = dict.fromkeys([*list(measured)[:_NAMED], *(name for name in measured if PARTS.get(name) == "copy")])
        words = ", ".join(f"{BY_NAME[name].title} {measured[name][0]:.3f}" for name in named)
        figures.append(_figure(partial(gallery.read_made, folder, exhibit, image), words, made=True))
    head = f"<p>{_text(case.prompt)} <code>{_text(case.case_id)}</code></p>"
    return f'<div class="case">{head}<div class="row">{"".join(figures)}</div></div>'


def _beside(case: Case) -> Iterable[tuple[Picture, str]]:
    for subject in case.subjects:
        yield from ((picture, subject.phrase) for picture in subject.photographs[:_PHOTOS])
    if case.source is not None:
        yield case.source, "source"
    if case.target is not None:
        yield case.target, "left out"


def _why(case: Case, image: int, found: Outcome) -> str:
    return found.failures.get(case.case_id) or found.failures.get(f"{case.case_id}/{image}") or "not made"


def _figure(read: Callable[[], Pixels], caption: str, *, made: bool = False) -> str:
    try:
        return _shown(read(), caption, made=made)
    except Refused as error:
        return f"<figure><figcaption>{_text(caption)}: {_text(str(error))}</figcaption></figure>"


def _shown(pixels: Pixels, caption: str, *, made: bool) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((_THUMB_PX, _THUMB_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    kind = ' class="made"' if made else ""
    picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    return f"<figure{kind}>{picture}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int], ours: bool = False) -> str:
    """Cells are markup already; with `ours` the last row is."""
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = []
    for at, row in enumerate(rows):
        kind = ' class="ours"' if ours and at == len(rows) - 1 else ""
        cells = (
            f'<td class="number">{cell}</td>' if n in numbers else f"<td>{cell}</td>" for n, cell in enumerate(row)
        )
        body.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _text(text: str) -> str:
    return f"<bdi>{html.escape(text)}</bdi>"
