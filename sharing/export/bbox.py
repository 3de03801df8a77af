"""SimpleTuner's grounding: every image with boxes, masks and names of what it shows.

    <split>/images/<unit>/<name>.jpg   the image's own bytes where trainers read them right, else upright PNG
                          <name>.txt   its caption
                          <name>.bbox  [{label, bbox: [x1, y1, x2, y2] of 0 to 1, mask}, ...]; mask where there is one
    <split>/masks/<unit>/<name>_1.png  0 and 255, of the image's size; not where the trainer looks for images
    <split>.parquet                    filename below <split>/images, caption, width, height, bounding_boxes: that json
    <split>.json                       what `multidatabackend.json` says of it

Format: bghira/SimpleTuner, documentation/DATALOADER.md, "Grounding (Spatial Annotations)". Names of masks are relative
to the export's folder; today's trainer keeps them and does not open them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import cv2
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas import masks
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, RefloomError, Rejected
from refloom.schemas.storage import Folder
from refloom.sharing.export import page
from refloom.sharing.export.edit.unit import thumbnail
from refloom.sharing.export.folder import Names, Place, Written, flat
from refloom.sharing.export.parts import Part, Parts, Record
from refloom.sharing.export.reading import (
    Choice,
    ObjectRows,
    PictureBytes,
    Row,
    as_trainers_read,
    chosen_pictures,
    image_rows,
)

_IMAGE_COLUMNS = ["image_id", "width", "height", "captions", "license", "source_url", "sha256", "link", "image"]
_OBJECT_COLUMNS = ["object_id", "image_id", "kind", "category", "phrase", "box", "area", "mask"]
_ROWS = 4096
_DIGITS = 6
_PNG_LEVEL = 3
_LEAD = "What a trainer is given: images, with what lies in the boxes of each."
SCHEMA = pa.schema(
    [
        pa.field("filename", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bounding_boxes", pa.string()),
        pa.field("image_id", pa.string()),
        pa.field("license", pa.string()),
        pa.field("source_url", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Images:
    """What one task does.

    Attributes:
        unit: of the dataset.
        images: how many of it, from the first that is chosen.
        shown: how many the page may show of them.
    """

    unit: str
    images: int
    shown: int


@dataclass(frozen=True, slots=True)
class BoxJob:
    """Makes workers.

    Attributes:
        dataset, out: URLs.
        choice: what of it, without workers.
    """

    dataset: str
    out: str
    choice: Choice

    def start(self) -> "BoxWorker":
        """See `refloom.ingest.engine.tasks.Job`."""
        return BoxWorker(self)


def write_bbox(dataset: Dataset, place: Place, choice: Choice, show: Callable[[Status], None] | None = None) -> Written:
    """Write images with their boxes.

    Args:
        dataset: in any state; without splits all of it is `train`.
        place: where.
        choice: what of it.
        show: told how far it is.
    """
    tasks = _tasks(dataset, choice)
    parts = Parts(Folder(place.url), tuple(task.unit for task in tasks))
    plain = Choice(split=choice.split, kept=choice.kept, keep_metadata=choice.keep_metadata)
    job = BoxJob(dataset.url, place.url, plain)
    written, shown = parts.work(job, tasks, choice.pool or Pool(workers=0), show)
    for split in ("train", "validation"):
        records = (one for unit in parts.units for one in parts.records(unit) if one["split"] == split)
        _join(place, split, records)
    page.write(place, "Boxes for SimpleTuner", _LEAD, shown, written)
    if not any(word.startswith("failed") for word in written):
        parts.remove()
    return +written


def _tasks(dataset: Dataset, choice: Choice) -> list[Task]:
    """One for each unit of the dataset, up to the limit."""
    tasks, left, units = [], choice.limit, dataset.units()
    for number, unit in enumerate(units):
        chosen = chosen_pictures(dataset, unit, choice.split)
        count = len(dataset.read("images", ["image_id"], unit=unit)) if chosen is None else len(chosen)
        images = count if left is None else min(left, count)
        left = None if left is None else left - images
        if images:
            work = Images(unit, images, page.share(len(units)))
            tasks.append(Task(f"{number:05d}", work, weight=images))
    return tasks


def _join(place: Place, split: str, records: Iterable[Record]) -> None:
    """The Parquet file of a split and the trainer's settings, where it has any images."""
    records = iter(records)
    first = next(records, None)
    if first is None:
        return
    left = chain([first], records)
    with place.create(f"{split}.parquet") as sink, pq.ParquetWriter(sink, SCHEMA) as writer:
        while chunk := list(islice(left, _ROWS)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))
    about = {
        "id": f"refloom-{split}",
        "type": "local",
        "dataset_type": "image",
        "instance_data_dir": f"{split}/images",
        "caption_strategy": "textfile",
        "metadata_backend": "discovery",
        "grounding": {"enabled": True},
    }
    place.write(f"{split}.json", orjson.dumps([about], option=orjson.OPT_INDENT_2) + b"\n")


class BoxWorker:
    """Writes parts."""

    def __init__(self, job: BoxJob) -> None:
        self._choice, self._dataset, self._folder = job.choice, Dataset(job.dataset), Folder(job.out)

    def run(self, task: Task, watch: Watch) -> None:
        """One unit of the dataset; a damaged image costs itself."""
        work: Images = task.payload
        part = Part(self._folder, task.unit)
        bare, names = PictureBytes(self._choice, part.written), Names()
        splits = self._splits(work.unit)
        for image, rows in self._images(work):
            objects = [row for row in rows if row["kind"] != "whole"]
            made = self._bytes(image, objects, bare, part, watch)
            if made is None:
                continue
            data, end = made
            place = splits.get(image["image_id"], "train")
            name = names.take(f"{flat(image['image_id'])}{end}")
            record = self._write(image, objects, data, f"{task.unit}/{name}", place)
            part.add(record)
            part.written["images"] += 1
            if len(part.shown) < work.shown:
                part.shown.append(_shown(record, objects, data))
            part.written["boxes"] += len(objects)
            part.written["masks"] += sum(row["mask"] is not None for row in objects)
        part.commit()

    def _splits(self, unit: str) -> dict[str, str]:
        if self._dataset.manifest("split", unit) is None:
            return {}
        rows = self._dataset.read("splits", ["image_id", "split"], unit=unit).to_pylist()
        return {row["image_id"]: row["split"] for row in rows}

    def _images(self, work: Images) -> Iterator[tuple[Row, list[Row]]]:
        """Rows of `images`, each with its objects, as many as are wanted."""
        stream = ObjectRows(self._dataset, work.unit, _OBJECT_COLUMNS, kept=self._choice.kept)
        chosen, left = chosen_pictures(self._dataset, work.unit, self._choice.split), work.images
        for image_id, image in image_rows(self._dataset, work.unit, _IMAGE_COLUMNS, chosen):
            rows = stream.take(image_id)
            if image is not None and left:
                left -= 1
                yield image, rows

    def _bytes(
        self, image: Row, objects: list[Row], bare: PictureBytes, part: Part, watch: Watch
    ) -> tuple[bytes, str] | None:
        """The bytes to write and their extension; None where there are none, which is counted."""
        try:
            watch.begin(image["image_id"])
            if not objects:
                part.written["left out: image, no object on it"] += 1
                return None
            made = as_trainers_read(image["image_id"], self._dataset.checked_picture(image), bare)
        except (Rejected, Failed) as problem:
            word = "failed" if isinstance(problem, Failed) else "left out"
            part.written[f"{word}: image, {problem.reason}"] += 1
            return None
        except RefloomError:
            raise  # a full disk is not the image's fault
        except Exception as error:  # whatever it is, it costs this image; the traceback goes to the run's folder
            part.written[f"failed: image, {watch.unexpected(image['image_id'], error).reason}"] += 1
            return None
        watch.read_bytes(len(made[0]))
        return made

    def _write(self, image: Row, objects: list[Row], data: bytes, name: str, split: str) -> Record:
        """The files of an image, and its row of the Parquet file."""
        stem, caption = name.rpartition(".")[0], _caption(image, objects)
        entries = []
        for number, row in enumerate(objects, 1):
            entry: dict[str, Any] = {"label": label(row), "bbox": relative(row["box"], image["width"], image["height"])}
            if row["mask"] is not None:
                entry["mask"] = f"{split}/masks/{stem}_{number}.png"
                self._folder.write(entry["mask"], _mask_png(row["mask"]))
            entries.append(entry)
        text = orjson.dumps(entries)
        self._folder.write(f"{split}/images/{stem}.bbox", text)
        self._folder.write(f"{split}/images/{stem}.txt", caption.encode())
        self._folder.write(f"{split}/images/{name}", data)
        kept = {key: image[key] for key in ("width", "height", "image_id", "license", "source_url")}
        return {"split": split, "filename": name, "caption": caption, "bounding_boxes": text.decode(), **kept}


def label(row: Row) -> str:
    """What an object is called: its phrase, its class, else `face` or `object`."""
    text = " ".join((row["phrase"] or row["category"] or "").split())
    return text or ("face" if row["kind"] == "face" else "object")


def relative(box: list[float], width: int, height: int) -> list[float]:
    """A box (4,) xyxy in pixels as shares of the image's sides, inside it and not empty."""
    sides = np.array([width, height, width, height], np.float64)
    edges = np.clip(np.asarray(box, np.float64) / sides, 0.0, 1.0).round(_DIGITS)
    return [float(edge) for edge in edges]


def _caption(image: Row, objects: list[Row]) -> str:
    """The image's first caption on one line, else the names of what it shows."""
    for text in image["captions"] or []:
        if line := " ".join(text.split()):
            return line
    return ", ".join(Counter(label(row) for row in objects))


def _mask_png(mask: masks.Mask) -> bytes:
    _, encoded = cv2.imencode(".png", masks.decode(mask) * np.uint8(255), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    return bytes(encoded)


def _shown(record: Record, objects: list[Row], data: bytes) -> Record:
    boxes = [entry["bbox"] for entry in orjson.loads(record["bounding_boxes"])]
    names = ", ".join(f"{count} {name}" for name, count in Counter(label(row) for row in objects).items())
    return {
        "title": record["image_id"],
        "text": record["caption"],
        "images": [{"caption": names, "data": thumbnail(data, boxes)}],
    }
