"""Admission: one picture with its annotations and captions becomes rows, or ledger rows with the reason.

What all formats share is judged here, all annotations of a picture at once: bytes, frames, boxes, masks, captions.
"""

import hashlib
import math
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.ingest import frames, jsons
from refloom.ingest.annotationfile import is_number
from refloom.ingest.frames import Choice
from refloom.ingest.numbers import four_numbers, is_absent_box, is_absent_mask, plain_mask
from refloom.ingest.source import Annotation, Picture, Problem
from refloom.schemas import boxes, headers, ids, masks
from refloom.schemas.errors import Failed, Rejected
from refloom.schemas.headers import Header
from refloom.schemas.masks import Mask
from refloom.schemas.metadata.location import has_location
from refloom.schemas.unit import UnitWriter

MAX_CAPTION_CHARACTERS = 10_000
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")
_FLOAT32_MAX = 3.4e38
_NO_BOX = (math.nan,) * 4
MAX_SCORE = 1.2
"""SAM's predicted IoU is a regression and passes 1 now and then; beyond this it is no score."""


@dataclass(slots=True)
class Verdicts:
    """What became of one picture and all that lies on it.

    Attributes:
        image: its row, or None.
        objects: rows of the annotations that were kept, and of the whole picture.
        settled: (kind, id, problem or None, occurrence) of every item.
        tracks: track ids of the annotations that were kept, with repeats.
        notes: word of `refloom.schemas.notes` to how often it holds of what was kept.
    """

    file: str
    image: dict[str, Any] | None = None
    objects: list[dict[str, Any]] = field(default_factory=list)
    settled: list[tuple[str, str, Problem | None, int]] = field(default_factory=list)
    tracks: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def write(self, out: UnitWriter) -> None:
        """Write the rows and ledger rows; the items must have been announced."""
        if self.image is not None:
            image = self.image["image"]
            out.add("images", self.image, weight=len(image["bytes"]) if image else 0)
        for row in self.objects:
            out.add("objects", row)
        for kind, kept in Counter(kind for kind, _, problem, _ in self.settled if problem is None).items():
            out.keep(kind, kept)
        for kind, item_id, problem, occurrence in self.settled:
            if problem is not None:
                settle(out, kind, item_id, problem, file=self.file, occurrence=occurrence)
        for word, count in self.notes.items():
            out.note(word, count)


def settle(
    out: UnitWriter, kind: str, item_id: str, problem: Problem, *, file: str | None = None, occurrence: int = 0
) -> None:
    """Write the ledger row of one item."""
    write = out.reject if isinstance(problem, Rejected) else out.fail
    write(kind, item_id, problem.reason, problem.detail, file=file, occurrence=occurrence)


def judge(picture: Picture, source: str, *, link: bool = False, unit: frames.Unit | None = None) -> Verdicts:
    """Judge one picture and all that lies on it.

    Args:
        picture: as the source has it.
        source: kind of source, for the `source` column.
        link: keep a pointer to the bytes instead of the bytes.
        unit: which frame other pictures of its unit are drawn in; asked where the picture does not tell by itself.
    """
    try:
        if picture.problem is not None:
            raise picture.problem
        data = picture.load()
        header = headers.read(data)
        size = frames.declared_size(picture.declared_size)
    except (Rejected, Failed) as problem:
        return refuse(picture, problem)
    verdicts = Verdicts(picture.file)
    verdicts.settled.append(("image", picture.image_id, None, 0))
    captions = _captions(picture, verdicts)
    where = picture.link() if link and picture.link is not None else None
    verdicts.image = {
        "image_id": picture.image_id,
        "source": source,
        "split": picture.split,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": header.width,
        "height": header.height,
        "orientation": header.orientation,
        "original_size": picture.original_size,
        "captions": captions,
        "video_id": picture.video_id,
        "frame_index": picture.frame_index,
        "time_s": picture.time_s,
        "license": picture.license,
        "source_url": picture.source_url,
        "faces_blurred": picture.faces_blurred,
        "located": has_location(data),
        "cut_from": asdict(picture.cut) if picture.cut is not None else None,
        "link": None
        if where is None
        else {"root": where.root, "file": where.file, "offset": where.offset, "length": where.length},
        "image": None if where is not None else {"bytes": data, "path": picture.file},
    }
    if picture.whole:
        object_id, box = ids.object_id(picture.image_id, "whole"), [0.0, 0.0, float(header.width), float(header.height)]
        row = {"object_id": object_id, "image_id": picture.image_id, "kind": "whole", "box": box}
        verdicts.objects.append(row | {"category": picture.whole_category, "phrase": picture.whole_phrase})
        verdicts.settled.append(("whole", object_id, None, 0))
    for own, annotations in frames.by_size(picture, size):
        _annotations(picture.image_id, annotations, header, own, unit, verdicts)
    return verdicts


def refuse(picture: Picture, problem: Problem) -> Verdicts:
    """A lost picture takes its annotations and captions along, one ledger row each."""
    lost: Problem = (
        Rejected("image_rejected", problem.reason)
        if isinstance(problem, Rejected)
        else Failed("image_failed", problem.reason)
    )
    verdicts = Verdicts(picture.file)
    verdicts.settled.append(("image", picture.image_id, problem, picture.occurrence))
    if picture.whole:
        verdicts.settled.append(("whole", ids.object_id(picture.image_id, "whole"), lost, picture.occurrence))
    for annotation in picture.annotations:
        verdicts.settled.append(("annotation", annotation.object_id, annotation.problem or lost, annotation.occurrence))
    verdicts.settled += [("caption", caption_id, lost, 0) for caption_id, _ in picture.captions]
    return verdicts


def _captions(picture: Picture, verdicts: Verdicts) -> list[str]:
    problems = [text_problem(text) for _, text in picture.captions]
    verdicts.settled += [
        ("caption", caption_id, problem, 0) for (caption_id, _), problem in zip(picture.captions, problems, strict=True)
    ]
    return [text for (_, text), problem in zip(picture.captions, problems, strict=True) if problem is None]


def text_problem(text: Any, what: str = "caption") -> Rejected | None:
    """What is wrong with a text that a table is to hold; None for a sound one.

    Args:
        text: as it stands in the source.
        what: names it, for the message.
    """
    if not isinstance(text, str):
        return Rejected("bad_text", f"the {what} is {type(text).__name__}, not text")
    if not text.strip():
        return Rejected("bad_text", f"the {what} is empty")
    if len(text) > MAX_CAPTION_CHARACTERS:
        return Rejected("bad_text", f"the {what} has {len(text)} characters")
    if _NOT_TEXT.search(text):
        return Rejected("bad_text", f"the {what} holds NUL or a lone surrogate")
    return None


def _annotations(
    image_id: str,
    annotations: list[Annotation],
    header: Header,
    size: tuple[int, int] | Rejected | None,
    unit: frames.Unit | None,
    verdicts: Verdicts,
) -> None:
    if not annotations:
        return
    problems: list[Problem | None] = [annotation.problem for annotation in annotations]
    sound = [one for one in annotations if one.problem is None]
    frame = size if isinstance(size, Rejected) else frames.choose(size, header, sound, unit)
    if isinstance(frame, Rejected):
        problems = [problem or frame for problem in problems]
        frame = Choice("upright", header.width, header.height)
    elif frame.note is not None:
        verdicts.notes[frame.note] += 1
    width, height = frame.width, frame.height
    for index, annotation in enumerate(annotations):
        problems[index] = problems[index] or _score_problem(annotation)

    found, pixels = _read_masks(annotations, problems, height, width)
    masked = [index for index, mask in enumerate(found) if mask is not None]
    tight = masks.tight_boxes([mask for mask in found if mask is not None])
    placed = _place_boxes(annotations, problems, masked, tight, width, height)
    differing = _compare(annotations, problems, masked, placed, tight, pixels)

    if header.orientation != 1 and frame.frame == "stored":
        placed = boxes.orient(placed, header.orientation, header.stored_width, header.stored_height)
        found = [mask and masks.orient(mask, header.orientation) for mask in found]
    for index, annotation in enumerate(annotations):
        verdicts.settled.append(("annotation", annotation.object_id, problems[index], annotation.occurrence))
        if problems[index] is not None:
            continue
        if index in differing:
            verdicts.notes["area_differs"] += 1
        row = _object_row(annotation, image_id, placed[index], found[index], int(pixels[index]))
        verdicts.objects.append(row)
        if annotation.track_id is not None:
            verdicts.tracks.append(annotation.track_id)


def _read_masks(
    annotations: list[Annotation], problems: list[Problem | None], height: int, width: int
) -> tuple[list[Mask | None], npt.NDArray[np.int64]]:
    """Masks and set pixels (N,) of the annotations without a problem; what is wrong with others goes to `problems`."""
    found: list[Mask | None] = [None] * len(annotations)
    pixels = np.zeros(len(annotations), np.int64)
    wanted = [
        index
        for index, annotation in enumerate(annotations)
        if problems[index] is None and (annotation.needs_mask or not is_absent_mask(annotation.segmentation))
    ]
    read, pixels[wanted] = masks.read([plain_mask(annotations[index].segmentation) for index in wanted], height, width)
    for index, mask in zip(wanted, read, strict=True):
        if isinstance(mask, Rejected):
            problems[index] = mask
        else:
            found[index] = mask
    return found, pixels


def _place_boxes(
    annotations: list[Annotation],
    problems: list[Problem | None],
    masked: list[int],
    tight: boxes.Boxes,
    width: int,
    height: int,
) -> boxes.Boxes:
    """Boxes as the source gives them, xyxy and clipped; the mask's where the source need not give one."""
    raw: list[Any] = []
    place = {index: position for position, index in enumerate(masked)}
    for index, annotation in enumerate(annotations):
        absent = not annotation.needs_box and is_absent_box(annotation.bbox)
        values = None if absent else four_numbers(annotation.bbox)
        if values is not None:
            short = annotation.box_px_short
            x, y, third, fourth = values
            raw.append(values if annotation.box_is_xyxy else (x, y, x + third + short, y + fourth + short))
        else:
            raw.append(tight[place[index]] if absent and index in place else _NO_BOX)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and so no box
        placed, sound = boxes.clip(np.array(raw, np.float32), width, height)
    if sound.all():
        return placed
    for index in np.flatnonzero(~sound).tolist():
        annotation = annotations[index]
        told = f"box {_short(annotation.bbox)} in a frame of {width}x{height}"
        if not annotation.needs_box and is_absent_box(annotation.bbox):
            if index in place:
                continue  # no box and an empty mask: `_compare` says so
            told = "neither a box nor a mask"
        problems[index] = problems[index] or Rejected("bad_box", told)
    return placed


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _compare(
    annotations: list[Annotation],
    problems: list[Problem | None],
    masked: list[int],
    placed: boxes.Boxes,
    tight: boxes.Boxes,
    pixels: npt.NDArray[np.int64],
) -> set[int]:
    """Empty masks, and boxes that disagree with their masks.

    Args:
        annotations, problems, placed, pixels: of the N annotations.
        masked: indices of the M annotations that have a mask.
        tight: of these masks, (M, 4).

    Returns:
        Indices of annotations whose declared area is not that of their mask: many tools write the box's or none, so
        the mask is the better word for it.
    """
    if not masked:
        return set()
    own, areas = (placed, pixels) if len(masked) == len(annotations) else (placed[masked], pixels[masked])
    declared = np.array([_number(annotations[index].area) for index in masked])
    boxes_fit, areas_fit = boxes.agree(own, tight), boxes.areas_agree(declared, areas, tight)
    for position in np.flatnonzero(~(boxes_fit & (areas > 0))).tolist():
        index = masked[position]
        if problems[index] is not None:
            continue
        if areas[position] == 0:
            problems[index] = Rejected("empty_mask", "no pixel of the mask lies in the picture")
        else:
            told, seen = (", ".join(f"{edge:g}" for edge in box) for box in (own[position], tight[position]))
            problems[index] = Rejected("box_mask_mismatch", f"box ({told}) but the mask fills ({seen}), xyxy")
    return {masked[position] for position in np.flatnonzero(~areas_fit).tolist()}


def _number(value: Any) -> float:
    """The value as a float; NaN where the source has none, infinite where no float32 can hold it."""
    if not is_number(value):
        return math.nan
    return float(value) if abs(value) <= _FLOAT32_MAX else math.inf


def _score_problem(annotation: Annotation) -> Rejected | None:
    if annotation.predicted_iou is None and annotation.stability_score is None and annotation.confidence is None:
        return None
    for name in ("predicted_iou", "stability_score"):
        value = getattr(annotation, name)
        if value is not None and not 0 <= _number(value) <= MAX_SCORE:
            return Rejected("bad_record", f"{name} is {_short(value)}")
    if annotation.confidence is not None and not math.isfinite(_number(annotation.confidence)):
        return Rejected("bad_record", f"confidence is {_short(annotation.confidence)}")
    return None


def _object_row(
    annotation: Annotation, image_id: str, box: npt.NDArray[np.float32], mask: Mask | None, area: int
) -> dict[str, Any]:
    fields = annotation.source_fields
    return {
        "object_id": annotation.object_id,
        "image_id": image_id,
        "track_id": annotation.track_id,
        "kind": annotation.kind,
        "category": annotation.category,
        "phrase": annotation.phrase,
        "box": box,
        "area": area if mask is not None else None,
        "confidence": None if annotation.confidence is None else float(annotation.confidence),
        "predicted_iou": annotation.predicted_iou,
        "stability_score": annotation.stability_score,
        "source_json": jsons.compact(fields) if fields else None,
        "mask": mask,
    }
