"""One unit of work: the examples of one file of samples, with their images, as a part of the export."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import cv2
import numpy as np
import pyarrow as pa

from refloom.curation.annotate.decoded import shrink
from refloom.ingest.engine.tasks import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas import parquet, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, RefloomError, Rejected
from refloom.schemas.parquet import File, TableWriter
from refloom.schemas.samples import SAMPLES
from refloom.schemas.storage import Folder
from refloom.sharing.export.edit import layouts
from refloom.sharing.export.edit.examples import counted, example
from refloom.sharing.export.edit.images import Image, SampleImages
from refloom.sharing.export.edit.instructions import name_of
from refloom.sharing.export.edit.settings import Edit, Example, LeftOut, Row
from refloom.sharing.export.folder import Written
from refloom.sharing.export.parts import Part
from refloom.sharing.export.reading import Choice, PictureBytes
from refloom.sharing.publish.redistribution import terms

_THUMBNAIL_PX = 200
_QUALITY = 80
_MARK = (53, 224, 200)
_SLICE = 64
"""Rows that are Python's at a time: masks of more would take memory."""
_LICENSES = {
    "forbidden": "a license forbids to give an image away",
    "unknown": "no license is known to let an image be given away",
}

_SUBJECT = "subjects.list.element"
_SEEN = f"{_SUBJECT}.appearances.list.element"
_COLUMNS = (
    *("sample_id", "kind", "target", "instructions", "pictures"),
    *(f"{_SUBJECT}.{name}" for name in ("kind", "category", "phrase")),
    *(f"{_SEEN}.{name}" for name in ("picture", "object_id", "box", "face.box")),
    "images.list.element.bytes",
)
_MASK = f"{_SEEN}.mask"
"""Read only for cut-outs: masks are most of what a row holds beside its images."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one task does.

    Attributes:
        split: of the file.
        file: of samples.
        first: number of its first row in the split.
        rows: of it, from the first.
        shown: how many examples the page may show of them.
    """

    split: str
    file: File
    first: int
    rows: int
    shown: int


@dataclass(frozen=True, slots=True)
class EditJob:
    """Makes workers.

    Attributes:
        dataset, out: URLs.
        edit: settings.
        keep_metadata: images keep what their files say beside the pixels.
    """

    dataset: str
    out: str
    edit: Edit
    keep_metadata: bool

    def start(self) -> "EditWorker":
        """See `refloom.ingest.engine.tasks.Job`."""
        return EditWorker(self)


class EditWorker:
    """Writes parts."""

    def __init__(self, job: EditJob) -> None:
        self._job, self._edit = job, job.edit
        self._dataset, self._folder = Dataset(job.dataset), Folder(job.out)

    def run(self, task: Task, watch: Watch) -> None:
        """One file of samples; a damaged image costs its sample."""
        out = _Output(self._folder, self._edit, task)
        bare = PictureBytes(Choice(keep_metadata=self._job.keep_metadata), out.part.written)
        with out:
            for number, row, images in self._rows(task.payload):
                files = SampleImages(row, images, bare)
                made = self._made(row, files, out.part.written, watch)
                if made is not None:
                    out.add(number, row, *made)
        out.part.commit()

    def _rows(self, work: Rows) -> Iterator[tuple[int, Row, pa.Array]]:
        """Number in the file, row without bytes, and the images of each sample."""
        columns = [*_COLUMNS, *([_MASK] if self._edit.reference == "cutout" else [])]
        number = 0
        for batch in parquet.batches(self._dataset.folder, [work.file], columns, SAMPLES.schema):
            images = batch.column("images")
            scalars = batch.select([name for name in batch.schema.names if name != "images"])
            for start in range(0, len(scalars), _SLICE):
                for offset, row in enumerate(scalars.slice(start, _SLICE).to_pylist()):
                    if number == work.rows:
                        return
                    yield number, row, images[start + offset].values.flatten()[0]
                    number += 1

    def _made(
        self, row: Row, files: SampleImages, written: Written, watch: Watch
    ) -> tuple[Example, list[Image]] | None:
        """The example of a sample and its images, the target's first; None where it gives none, which is counted."""
        sample_id = row["sample_id"]
        try:
            watch.begin(sample_id)
            found = example(row, self._edit)
            license_of = self._bound(row, found)
            made = [files.whole(found.target), *(files.of(reference) for reference in found.references)]
        except LeftOut as reason:
            written[f"left out: sample, {reason}"] += 1
            return None
        except Rejected as problem:
            written[f"left out: sample, an image with {problem.reason}"] += 1
            return None
        except Failed as problem:
            written[f"failed: sample, {problem.reason}"] += 1
            return None
        except RefloomError:
            raise  # a full disk is not the sample's fault
        except Exception as error:  # whatever it is, it costs this sample; the traceback goes to the run's folder
            written[f"failed: sample, {watch.unexpected(sample_id, error).reason}"] += 1
            return None
        watch.read_bytes(sum(len(data) for data, _ in made))
        written.update([f"samples of which {license_of}"] if license_of else [])
        return found, made

    def _bound(self, row: Row, found: Example) -> str | None:
        """What the licenses of an example's images forbid, or nobody knows them to allow; None where they allow it.

        Raises:
            LeftOut: so it is, and only what may be given away is asked for.
        """
        shown = {found.target, *(reference.picture for reference in found.references)}
        said = {terms(row["pictures"][at]["source"], row["pictures"][at]["license"]).permission for at in shown}
        text = next((text for permission, text in _LICENSES.items() if permission in said), None)
        if text is not None and self._edit.redistributable:
            raise LeftOut(text)
        return text


class _Output:
    """Where the examples of a unit go: files, or rows of Parquet. Use as a context, then commit its part."""

    def __init__(self, folder: Folder, edit: Edit, task: Task) -> None:
        self._folder, self._edit, self._unit = folder, edit, task.unit
        self._work: Rows = task.payload
        self.part = Part(folder, task.unit)
        is_table = edit.layout == "bagel"
        self._table = TableWriter(folder, self._work.split, task.unit, layouts.BAGEL) if is_table else None

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._table is None:
            return
        if kind is not None:
            self._table.abort()
            return
        self._table.close()
        for file in self._table.files:
            self.part.add({"file": file.path, "row_groups": layouts.row_groups(self._folder, file.path)})

    def add(self, number: int, row: Row, found: Example, made: list[Image]) -> None:
        """An example of a row, and its images, the target's first."""
        record = _record(found, row, self._work.split, f"{self._work.first + number:08d}")
        if self._table is not None:
            images = [data for data, _ in (*made[1:], made[0])]
            text = {"instruction": found.instruction, "instruction_list": [found.instruction]}
            own = {**text, "sample_id": row["sample_id"], "image_list": images}
            self._table.add(own, weight=sum(map(len, images)))
        else:
            record |= self._write(record, made)
        self.part.add(record)
        self.part.written.update({"samples": 1, "images": len(made)})
        self.part.written.update([*counted(found.references), f"instructions from {found.instruction_from}"])
        if len(self.part.shown) < self._work.shown:
            self.part.shown.append(_shown(found, made, row))

    def _write(self, record: Row, made: list[Image]) -> Row:
        """The files of an example; returns their names."""
        names = layouts.paths(self._edit, self._unit, record["split"], record["key"], [end for _, end in made])
        for name, (data, _) in zip(names, made, strict=True):
            self._folder.write(name, data)
        for name, data in layouts.beside(self._edit, record):
            self._folder.write(name, data)
        return {"target": names[0], "references": names[1:]}


def _record(found: Example, row: Row, split: str, key: str) -> Row:
    """What is kept of an example beside its files."""
    used = [found.target, *(reference.picture for reference in found.references)]
    return {
        "split": split,
        "key": key,
        "sample_id": row["sample_id"],
        "kind": row["kind"],
        "instruction": found.instruction,
        "instruction_from": found.instruction_from,
        "image_ids": [row["pictures"][index]["image_id"] for index in used],
        "licenses": [row["pictures"][index]["license"] for index in used],
    }


def _shown(found: Example, made: list[Image], row: Row) -> Row:
    """An example as the page shows it: small pictures with captions, the target's last."""
    captions = [
        f"{number}: {', '.join(name_of(row['subjects'][one]) for one in reference.subjects) or 'given'}"
        for number, reference in enumerate(found.references, 1)
    ]
    images = [*zip(captions, made[1:], strict=True), ("target", made[0])]
    return {
        "title": row["sample_id"],
        "text": found.instruction,
        "images": [{"caption": caption, "data": thumbnail(data)} for caption, (data, _) in images],
    }


def thumbnail(data: bytes, boxes: Sequence[Sequence[float]] = ()) -> str:
    """A small JPEG of a picture as a data URL.

    Args:
        data: its file.
        boxes: xyxy of 0 to 1, drawn on it.
    """
    small = np.ascontiguousarray(shrink(pictures.decode(data), _THUMBNAIL_PX))
    height, width = small.shape[:2]
    for x0, y0, x1, y1 in boxes:
        corners = ((round(x0 * width), round(y0 * height)), (round(x1 * width) - 1, round(y1 * height) - 1))
        cv2.rectangle(small, *corners, _MARK)
    return f"data:image/jpeg;base64,{base64.b64encode(pictures.encode_jpeg(small, _QUALITY)).decode()}"
