"""`--format edit`: files of samples become parts, parts the files that a trainer is started with, and a page."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby

import orjson

from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.sharing.export import page
from refloom.sharing.export.edit import layouts
from refloom.sharing.export.edit.settings import LAYOUTS
from refloom.sharing.export.edit.unit import EditJob, Rows
from refloom.sharing.export.folder import Place, Written
from refloom.sharing.export.parts import Parts, Record
from refloom.sharing.export.reading import Choice, sample_files, source_urls

_LEAD = "What a trainer is given: the references in the order in which the text counts them, then the image to be made."


def write_edit(dataset: Dataset, place: Place, choice: Choice, show: Callable[[Status], None] | None = None) -> Written:
    """Write examples in the layout of a trainer.

    Args:
        dataset: with samples.
        place: where.
        choice: what of it; `edit` says how.
        show: told how far it is.

    Raises:
        Refused: no layout is named, or there are no samples.
    """
    edit = choice.edit
    if edit is None:
        raise Refused(f"--format edit needs --layout: give one of {', '.join(LAYOUTS)}")
    tasks = _tasks(dataset, choice)
    parts = Parts(Folder(place.url), tuple(task.unit for task in tasks))
    job = EditJob(dataset.url, place.url, edit, choice.keep_metadata)
    written, shown = parts.work(job, tasks, choice.pool or Pool(workers=0), show)
    for split, own in groupby(tasks, key=lambda task: str(task.payload.split)):
        units = [task.unit for task in own]
        files = {one["file"]: one["row_groups"] for one in _records(parts, units) if "file" in one}
        layouts.join(place, edit, split, (one for one in _records(parts, units) if "key" in one), files)
    _write_sources(dataset, place, parts)
    page.write(place, f"{edit.layout}: {edit.reference} references", _LEAD, shown, written)
    if not any(word.startswith("failed") for word in written):
        parts.remove()
    return +written


def _tasks(dataset: Dataset, choice: Choice) -> list[Task]:
    """One for each file of samples, up to the limit."""
    tasks: list[Task] = []
    first: Counter[str] = Counter()
    files, left = sample_files(dataset, choice.split), choice.limit
    shown = page.share(len(files))
    for number, file in enumerate(files):
        split = file.path.split("/")[1]
        rows = file.rows if left is None else min(left, file.rows)
        if rows == 0:
            break
        tasks.append(Task(f"{split}-{number:05d}", Rows(split, file, first[split], rows, shown), weight=rows))
        first[split] += file.rows
        left = None if left is None else left - rows
    return tasks


def _records(parts: Parts, units: list[str]) -> Iterator[Record]:
    for unit in units:
        yield from parts.records(unit)


def _write_sources(dataset: Dataset, place: Place, parts: Parts) -> None:
    """Which sample and images each example is made of, their licenses and addresses."""
    urls = source_urls(dataset)
    with place.create("sources.jsonl") as sink:
        for record in _records(parts, list(parts.units)):
            if "key" in record:
                about = {name: value for name, value in record.items() if name != "instruction"}
                sink.write(orjson.dumps(about | {"source_urls": list(map(urls.get, record["image_ids"]))}) + b"\n")
