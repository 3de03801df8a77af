"""What exports read: samples one by one, and pictures one by one with their objects; memory does not grow with either.

Also what they share: how far they are, names of picture files, and pictures as upright pixels.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from refloom.ingest.engine.pool import Pool, Status
from refloom.schemas import headers, parquet, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.metadata.pieces import CannotStrip
from refloom.schemas.metadata.stripping import strip
from refloom.schemas.parquet import File
from refloom.schemas.wording import quoted
from refloom.sharing.export.edit.settings import Edit

Row = dict[str, Any]

_EXTENSIONS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "GIF": ".gif",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
}
_REPORT_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of a dataset is exported.

    Attributes:
        split: train or validation; all by default.
        limit: only the first samples, or pictures where the format has no samples.
        kept: of objects, only those that the selection kept; samples hold no others.
        per_shard: samples in a tar.
        keep_metadata: pictures keep what their files say beside the pixels.
        edit: of `edit`: layout, references, instructions.
        pool: workers, of formats that several write together; None is this process.
    """

    split: str | None = None
    limit: int | None = None
    kept: bool = False
    per_shard: int = 1000
    keep_metadata: bool = False
    edit: Edit | None = None
    pool: Pool | None = None


class Meter:
    """Reports how far an export is.

    Args:
        total: items that there are.
        show: told now and then, and at the end.
    """

    def __init__(self, total: int, show: Callable[[Status], None] | None) -> None:
        self._show = show
        self._status = Status(units=1, weight=total)
        self._shown_at = 0.0

    def step(self, size: int) -> None:
        """One more item of some bytes."""
        self._status.tally["begun"] += 1
        self._status.tally["bytes"] += size
        if self._show is not None and time.monotonic() - self._shown_at > _REPORT_EVERY_S:
            self._shown_at = time.monotonic()
            self._show(self._status)

    def finish(self) -> None:
        """All is done."""
        self._status.done, self._status.weight_done = 1, self._status.weight
        if self._show is not None:
            self._show(self._status)


# -- samples -------------------------------------------------------------------------------------------------------


def sample_files(dataset: Dataset, split: str | None) -> list[File]:
    """The files of `samples`, of one split or all.

    Raises:
        Refused: there are no samples, or none of that split.
    """
    manifests = dataset.manifests("compose").values()
    if not manifests:
        raise Refused(f"{dataset.url} has no samples yet: make them with `refloom curate {quoted(dataset.url)}`")
    directory = f"samples/{split}" if split else "samples"
    files = sorted((file for manifest in manifests for file in manifest.files_of(directory)), key=lambda f: f.path)
    if not files:
        raise Refused(
            f"{dataset.url} has no samples{f' of split {split}' if split else ''}: see "
            f"`refloom status {quoted(dataset.url)}`"
        )
    return files


def samples(dataset: Dataset, choice: Choice, show: Callable[[Status], None] | None = None) -> Iterator[Row]:
    """Rows of `samples` in order of split, unit and row, with `split` beside the columns."""
    files = sample_files(dataset, choice.split)
    total = sum(file.rows for file in files)
    left = total if choice.limit is None else min(choice.limit, total)
    meter = Meter(left, show)
    for file in files:
        split = file.path.split("/")[1]
        for batch in parquet.batches(dataset.folder, [file]) if left else ():
            for position in range(min(batch.num_rows, left)):
                (row,) = batch.slice(position, 1).to_pylist()
                left -= 1
                yield row | {"split": split}
                meter.step(sum(len(image["bytes"]) for image in row["images"]))
            if not left:
                break
    meter.finish()


def source_urls(dataset: Dataset) -> dict[str, str]:
    """Image id to where the source has the picture from; only pictures of sources that say so are held."""
    urls: dict[str, str] = {}
    for batch in dataset.batches("images", ["image_id", "source_url"]):
        known = batch.filter(batch.column("source_url").is_valid())
        ids, found = (known.column(name).to_pylist() for name in ("image_id", "source_url"))
        urls.update(zip(ids, found, strict=True))
    return urls


# -- pictures ------------------------------------------------------------------------------------------------------


def chosen_pictures(dataset: Dataset, unit: str, split: str | None) -> set[str] | None:
    """Ids of a unit's pictures in a split; None means all of them.

    Raises:
        Refused: a split is asked for, and pictures have none yet.
    """
    if split is None:
        return None
    if dataset.manifest("split", unit) is None:
        raise Refused(
            f"{dataset.url} has no splits yet: make them with `refloom curate {quoted(dataset.url)} --until split`"
        )
    rows = dataset.read("splits", ["image_id", "split"], unit=unit)
    return {row["image_id"] for row in rows.to_pylist() if row["split"] == split}


def image_rows(
    dataset: Dataset, unit: str, columns: list[str], chosen: set[str] | None
) -> Iterator[tuple[str, Row | None]]:
    """Ids of a unit's pictures in their order, each with its row if it is chosen; one row in memory at a time."""
    for batch in dataset.batches("images", columns, unit=unit):
        for position, image_id in enumerate(batch.column("image_id").to_pylist()):
            is_chosen = chosen is None or image_id in chosen
            yield image_id, batch.slice(position, 1).to_pylist()[0] if is_chosen else None


class ObjectRows:
    """Rows of `objects` of a unit, asked for picture by picture in their order, with effective masks and phrases.

    Args:
        dataset, unit: where.
        columns: of `objects`.
        kept: leave out objects that the selection did not keep.
    """

    def __init__(self, dataset: Dataset, unit: str, columns: list[str], *, kept: bool) -> None:
        self._rows = _rows(dataset.batches("objects", columns, unit=unit))
        self._next = next(self._rows, None)
        self._phrases = _by_id(dataset, "phrase", "phrases", unit, ["object_id", "phrase"])
        names = ["object_id", "image_id", "box", "area", "mask"]
        self._made = _by_id(dataset, "mask", "masks", unit, [name for name in names if name in columns])
        self._bare: dict[str, list[Row]] = {}
        self._kept: set[str] | None = None
        if kept:
            verdicts = dataset.read("selection", ["object_id", "verdict"], unit=unit).to_pylist()
            self._kept = {row["object_id"] for row in verdicts if row["verdict"] == "keep"}
        for row in self._made.values():
            if "#sam" in row["object_id"]:  # objects that the segmenter found on a bare picture
                bare = dict.fromkeys(columns) | {"kind": "object"} | row
                self._bare.setdefault(row["image_id"], []).append(bare)

    def take(self, image_id: str) -> list[Row]:
        """The objects of the next picture; every picture of the unit must be asked for, in their order."""
        found: list[Row] = []
        while self._next is not None and self._next["image_id"] == image_id:
            found.append(self._next)
            self._next = next(self._rows, None)
        seen = {row["object_id"] for row in found}
        found += [row for row in self._bare.pop(image_id, []) if row["object_id"] not in seen]
        for row in found:
            row |= self._made.get(row["object_id"], {})
            row["phrase"] = self._phrases.get(row["object_id"], row)["phrase"]
        return [row for row in found if self._kept is None or row["object_id"] in self._kept]

    def finish(self) -> None:
        """Check that every object was asked for.

        Raises:
            AssertionError: objects lie in another order than their pictures; they would have been lost.
        """
        if self._next is not None:
            raise AssertionError(f"{self._next['object_id']} does not follow the order of the pictures")


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
    for batch in batches:
        for start in range(0, batch.num_rows, 256):
            yield from batch.slice(start, 256).to_pylist()


def _by_id(dataset: Dataset, stage: str, table: str, unit: str, columns: list[str]) -> dict[str, Row]:
    if dataset.manifest(stage, unit) is None:
        return {}
    return {row["object_id"]: row for row in dataset.read(table, columns, unit=unit).to_pylist()}


class PictureBytes:
    """The bytes of pictures as an export gives them: without their metadata, unless it is to be kept.

    Args:
        choice: says which.
        written: counts pictures whose metadata went.
    """

    def __init__(self, choice: Choice, written: Counter[str]) -> None:
        self._keeps, self._written = choice.keep_metadata, written
        self._seen: set[str] = set()

    def of(self, image_id: str, data: bytes, header: headers.Header | None = None) -> bytes:
        """The bytes to write of a picture, whose header may be known.

        Raises:
            Rejected: its metadata cannot be taken out, so that it is withheld.
        """
        if self._keeps:
            return data
        try:
            made = strip(data, header)
        except CannotStrip as problem:
            raise Rejected("metadata that cannot be stripped", str(problem)) from problem
        if made is not data and image_id not in self._seen:
            self._seen.add(image_id)
            self._written["pictures whose metadata was stripped"] += 1
        return made


# -- picture files -------------------------------------------------------------------------------------------------


def extension(data: bytes) -> str:
    """The usual extension of a picture's format."""
    return _EXTENSIONS.get(headers.read(data).format, ".img")


def upright_png(data: bytes) -> bytes:
    """A picture as a PNG of its upright pixels; one that is that already stays as it is."""
    header = headers.read(data)
    if header.format == "PNG" and header.orientation == 1:
        return data
    return pictures.encode_png(pictures.decode(data, header))


def as_trainers_read(image_id: str, data: bytes, bare: PictureBytes) -> tuple[bytes, str]:
    """A picture as a file, and its extension, that `Image.open(file).convert("RGB")` shows as refloom sees it.

    Trainers of today open pictures so: they take no notice of EXIF orientation, cut 16 bits off and show what lies
    under transparency. Files of which that is no matter keep their bytes; others become upright PNG.

    Args:
        image_id: of the picture.
        data: its bytes.
        bare: takes its metadata out.

    Raises:
        Rejected: it is damaged, or its metadata cannot be taken out.
    """
    header = headers.read(data)
    data = bare.of(image_id, data, header)
    if header.orientation == 1 and (header.format == "JPEG" or _is_plain_png(data) or data[12:16] == b"VP8 "):
        return data, _EXTENSIONS[header.format]
    return pictures.encode_png(pictures.decode(data, header)), ".png"


def _is_plain_png(data: bytes) -> bool:
    """Whether it is a PNG of at most 8 bits without transparency."""
    start = data[: max(data.find(b"IDAT"), 0)]
    return start.startswith(b"\x89PNG") and start[24] <= 8 and start[25] not in (4, 6) and b"tRNS" not in start


def short(value: float) -> float:
    """A float32 of a table with no more digits than tell it apart: 0.1, not 0.10000000149."""
    return float(str(np.float32(value)))
