"""What a view accepts of a dataset, and the size of every picture it may take as a target; found once and cached.

The arrays are small (about 10 bytes a row and 6 a target), and mapped from the cache, so that ranks of one machine
share them.
"""

import json
import shutil
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.schemas import strict, tables
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json
from refloom.schemas.storage import local_path
from refloom.schemas.storeerrors import full_disk_stops
from refloom.training.data.index import Index
from refloom.training.views.view import View, targets_of

VERSION = 2
"""Hand-bumped when what a view accepts changes without its settings changing."""

_ARRAYS = ("counts", "group_bytes", "rows", "offsets", "pictures", "sizes")
_COLUMNS = [name for name in tables.TABLES["samples"].schema.names if name != "images"]
_COUNTS_FILE = "reasons.json"


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The accepted rows of a dataset, by row group.

    Attributes:
        counts: (G,) accepted rows of each row group.
        group_bytes: (G,) bytes of them, about.
        rows: (N,) number of each accepted row in its row group.
        offsets: (N + 1,) where the targets of each accepted row begin.
        pictures: (T,) targets: numbers of pictures.
        sizes: (T, 2) their width and height, pixels.
        reasons: why rows were not accepted, and how many.
    """

    counts: npt.NDArray[np.int64]
    group_bytes: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    pictures: npt.NDArray[np.uint16]
    sizes: npt.NDArray[np.uint16]
    reasons: dict[str, int]

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """(G,) number of the first accepted row of each row group."""
        return np.cumsum(self.counts) - self.counts

    def targets(self, row: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Of an accepted row: (t,) pictures and (t, 2) widths and heights."""
        inside = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return self.pictures[inside], self.sizes[inside]


def catalogue(
    index: Index,
    view: View,
    kinds: Collection[str] | None = None,
    cache: str | Path | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Catalogue:
    """Look through a dataset, or take what an earlier look found.

    Args:
        index: the dataset.
        view: that is to accept rows.
        kinds: of samples (image, video, group, cross); all by default.
        cache: local folder where what is found is kept; None keeps nothing.
        show: told now and then how many rows of how many are done.

    Raises:
        Refused: the view accepts no row; says why not.
    """
    key = of_json([VERSION, index.fingerprint, view.settings(), None if kinds is None else sorted(kinds)])
    place = None if cache is None else local_path(cache, "what a view accepts (data.cache)") / key
    result = _load(place) if place is not None and place.is_dir() else _look(index, view, kinds, show)
    if place is not None and not place.is_dir():
        _save(result, place)
    if not len(result.rows):
        most = Counter(result.reasons).most_common(3)
        why = "; ".join(f"{reason}: {count}" for reason, count in most) or "there are none"
        raise Refused(
            f"the view {view.name} accepts none of the samples of {index.url}, split {index.split} ({why}): "
            "loosen its settings or give it another dataset"
        )
    return result


def _look(index: Index, view: View, kinds: Collection[str] | None, show: Callable[[int, int], None]) -> Catalogue:
    counts: list[int] = []
    rows, lengths, pictures, sizes = array("i"), array("q"), array("H"), array("H")
    reasons: Counter[str] = Counter()
    done, total = 0, int(index.group_rows.sum())
    for key in index.groups:
        accepted = 0
        for number, row in enumerate(index.read(key, _COLUMNS).to_pylist()):
            found: Any = targets_of(view, row) if kinds is None or row["kind"] in kinds else f"is of kind {row['kind']}"
            if isinstance(found, str):
                reasons[found] += 1
                continue
            accepted += 1
            rows.append(number)
            lengths.append(len(found))
            pictures.extend(found)
            for picture in found:
                sizes.extend((row["pictures"][picture]["width"], row["pictures"][picture]["height"]))
        counts.append(accepted)
        done += int(index.group_rows[len(counts) - 1])
        show(done, total)
    shares = np.array(counts) / np.maximum(index.group_rows, 1)
    return Catalogue(
        np.array(counts, np.int64),
        np.ceil(np.array(index.group_bytes) * shares).astype(np.int64),
        np.array(rows, np.int32),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        np.array(pictures, np.uint16),
        np.array(sizes, np.uint16).reshape(-1, 2),
        dict(reasons),
    )


def _save(result: Catalogue, place: Path) -> None:
    """Under a temporary name first: another rank may be saving the same."""
    partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}.partial")
    try:
        with full_disk_stops(str(place.parent)):
            _fill(partial, result)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    try:
        partial.rename(place)
    except OSError:
        shutil.rmtree(partial)
        if not place.is_dir():  # else the other was first, with the same content
            raise


def _fill(partial: Path, result: Catalogue) -> None:
    partial.mkdir(parents=True)
    for name in _ARRAYS:
        np.save(partial / f"{name}.npy", getattr(result, name), allow_pickle=False)
    (partial / _COUNTS_FILE).write_text(strict.dumps(result.reasons, sort_keys=True))


def _load(place: Path) -> Catalogue:
    try:
        arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        return Catalogue(**arrays, reasons=json.loads((place / _COUNTS_FILE).read_text()))
    except (OSError, ValueError, EOFError) as error:
        raise Refused(f"{place} is damaged: remove it, it is made again") from error
