"""Masks for objects that have none, and for bare pictures. Pictures that need none are not decoded.

A stage of its own before all others that look at pixels: they see the masks that it has committed.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from refloom.curation.annotate.settings import Masking

from refloom.curation.annotate.isolate import unforeseen
from refloom.curation.objects import Objects, ObjectStream
from refloom.inference.models.segmenters import Segment, Segmenter
from refloom.ingest.admission import settle
from refloom.ingest.engine.watch import Watch
from refloom.schemas import ids
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.unit import UnitWriter

VERSION = 1

Row = dict[str, Any]
Pixels = npt.NDArray[np.uint8]
Pictures = Callable[[Iterable[Row]], Iterable[tuple[Row, Callable[[], Pixels]]]]
"""Rows of `images` to the same rows, each with a function that decodes it."""

_COLUMNS = ("image_id", "sha256", "width", "height", "link", "image")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one picture needs.

    Attributes:
        boxes: positions of the objects that have a box and no mask.
        everything: the picture shows no object, so all of its masks are asked for.
    """

    boxes: list[int]
    everything: bool


def wanted(objects: Objects, config: Masking, has_automatic: bool) -> Wanted:
    """What to ask the segmenter for one picture."""
    bare = "object" not in objects.kinds and "face" not in objects.kinds
    boxes = [i for i, kind in enumerate(objects.kinds) if kind == "object" and objects.masks[i] is None]
    return Wanted(boxes if config.boxes else [], bare and config.bare_pictures and has_automatic)


def rows_of(dataset: Dataset, unit: str, columns: Sequence[str], only: Container[str] | None = None) -> Iterator[Row]:
    """Rows of `images`, one picture in memory at a time.

    Args:
        dataset, unit: where.
        columns: wanted, `image_id` among them.
        only: image ids; all by default.
    """
    for batch in dataset.batches("images", columns, unit=unit):
        for position, image_id in enumerate(batch.column("image_id").to_pylist()):
            if only is None or image_id in only:
                yield from batch.slice(position, 1).to_pylist()


def mask_unit(
    dataset: Dataset,
    unit: str,
    config: Masking,
    segmenter: Segmenter,
    decoding: Pictures,
    out: UnitWriter,
    watch: Watch,
) -> None:
    """Masks of one unit.

    Args:
        dataset, unit: where.
        config: settings.
        segmenter: the model.
        decoding: gives the pixels of pictures.
        out: the unit's writer; counts objects without a mask, and bare pictures.
        watch: notes the picture under work.
    """
    stream = ObjectStream(dataset, unit, with_made_masks=False)
    tasks: dict[str, tuple[Objects, Wanted]] = {}
    for image_id in dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist():
        objects = stream.take(image_id)
        asked = wanted(objects, config, segmenter.has_automatic)
        if asked.boxes or asked.everything:
            tasks[image_id] = (objects, asked)
            out.expect("object", len(asked.boxes))
            out.expect("image", int(asked.everything))
    for image, decode in decoding(rows_of(dataset, unit, _COLUMNS, tasks)) if tasks else ():
        image_id = image["image_id"]
        _mask_picture(image_id, decode, *tasks[image_id], config, segmenter, out, watch)


def _mask_picture(
    image_id: str,
    decode: Callable[[], Pixels],
    objects: Objects,
    asked: Wanted,
    config: Masking,
    segmenter: Segmenter,
    out: UnitWriter,
    watch: Watch,
) -> None:
    try:
        watch.begin(image_id)
        pixels = decode()
        found = segmenter.segment(pixels, objects.boxes[asked.boxes])
        everything = segmenter.segment_everything(pixels) if asked.everything else []
    except (Rejected, Failed) as problem:
        _lose(image_id, objects, asked, problem, out)
    except Exception as error:  # costs this picture
        _lose(image_id, objects, asked, unforeseen(watch, image_id, error), out)
    else:
        _write(image_id, objects, asked, found, everything[: config.max_per_picture], out)


def _write(
    image_id: str,
    objects: Objects,
    asked: Wanted,
    found: list[Segment | None],
    everything: list[Segment],
    out: UnitWriter,
) -> None:
    for index, segment in zip(asked.boxes, found, strict=True):
        if segment is None:
            out.reject("object", objects.ids[index], "no_mask")
        else:
            out.add("masks", _row(objects.ids[index], image_id, segment))
            out.keep("object")
    if not asked.everything:
        return
    for number, segment in enumerate(everything):
        out.add("masks", _row(ids.object_id(image_id, f"sam{number}"), image_id, segment))
    if everything:
        out.keep("image")
    else:
        out.reject("image", image_id, "no_mask")


def _row(object_id: str, image_id: str, segment: Segment) -> dict[str, Any]:
    return {
        "object_id": object_id,
        "image_id": image_id,
        "box": segment.box,
        "area": segment.area,
        "predicted_iou": segment.predicted_iou,
        "stability_score": segment.stability_score,
        "mask": segment.mask,
    }


def _lose(image_id: str, objects: Objects, asked: Wanted, problem: Rejected | Failed, out: UnitWriter) -> None:
    follow = type(problem)("image_rejected" if isinstance(problem, Rejected) else "image_failed", problem.reason)
    for index in asked.boxes:
        settle(out, "object", objects.ids[index], follow)
    if asked.everything:
        settle(out, "image", image_id, problem)
