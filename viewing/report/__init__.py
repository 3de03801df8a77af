"""The report of a dataset: its figures, and one self-contained HTML page that shows them with contact sheets."""

import os
import posixpath
from typing import Any

from refloom.schemas import copies
from refloom.schemas.dataset import Dataset, Place, opened
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.storeerrors import store_errors_stop
from refloom.viewing.report.album import fill
from refloom.viewing.report.figures import collect
from refloom.viewing.report.page import render
from refloom.viewing.report.picks import choose
from refloom.viewing.report.survey import survey
from refloom.viewing.report.threshold import pair_settings, select_settings

_NAME = "report.html"


def figures(dataset: Dataset) -> dict[str, Any]:
    """What the page shows in numbers, as plain values for json.

    Args:
        dataset: in any state.
    """
    return collect(dataset, survey(dataset))


@store_errors_stop()
def report(dataset: Place, out: str | os.PathLike[str] | None = None) -> str:
    """Write the page of a dataset: what `refloom report` does.

        print(refloom.report("DATASET"))      # DATASET/report.html: open it in a browser

    Args:
        dataset: a folder, an fsspec URL, or a dataset; in any state.
        out: path or URL of the page; by default `report.html` in the dataset.

    Returns:
        Path or URL of the page, one HTML file that loads nothing else.

    Raises:
        Refused: it is no dataset, or the place can only be read.
    """
    found = opened(dataset)
    page = write_page(found, None if out is None else absolute_url(out))
    if out is not None:
        copies.note(found.folder, "page", page)
    return page


def write_page(dataset: Dataset, out: str | None = None) -> str:
    """Write the page: the same bytes for the same dataset, but for the rates of its runs.

    Args:
        dataset: in any state.
        out: path or URL of the page; by default `report.html` in the dataset.

    Returns:
        Path or URL of the page.

    Raises:
        Refused: the place can only be read.
    """
    found = survey(dataset)
    choice = choose(found, select_settings(dataset), pair_settings(dataset))
    page = render(collect(dataset, found), choice, fill(dataset, choice)).encode()
    if out is None:
        dataset.folder.write(_NAME, page)
        return posixpath.join(dataset.url, _NAME)
    folder, name = posixpath.split(out)
    Folder(folder or ".").write(name, page)
    return out
