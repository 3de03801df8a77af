"""What a benchmark asks for: prompts, subjects, places. Pictures are named here and read where they are needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from refloom.inference.adapters.reading import Mask, Pixels, read_mask, read_picture
from refloom.inference.adapters.reference import Box
from refloom.inference.models.crops import cut_out, cut_square, square_face_box
from refloom.schemas import boxes, parquet
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.samples import SAMPLES
from refloom.schemas.wording import some

UNNAMED = "the subject"
"""What adapters are told where nothing says what a subject is; nobody looks for it in a picture."""
MAX_REFERENCES = 28
"""Most pictures that EasyRef saw of a group in training; samples of datasets may have more."""
_FACE_MARGIN = 0.5
"""Around a face that is cut out to be found again, on every side, as a share of it."""
_NAMED = 5
"""Missing files that a message names."""

Average = Literal["parts", "pairs", "samples"]
"""How scores become one number: `parts` is the mean of each part and then of the parts; `pairs` weighs each picture by
the photographs it is compared with, so that it is the mean over pairs; `samples` is the mean over pictures."""


@dataclass(frozen=True, slots=True)
class FilePicture:
    """A picture in a file.

    Attributes:
        file: its path.
        box: the part of it that is meant, xyxy; None for all.
        box_short_px: short side of the picture in whose pixels the box is.
    """

    file: str
    box: Box | None = None
    box_short_px: float = 0.0

    def pixels(self) -> Pixels:
        """(H, W, 3) uint8; what a box cuts out lies in the middle of a white square.

        Raises:
            Refused: the file is no sound picture.
        """
        whole = read_picture(self.file)
        if self.box is None:
            return whole
        scale = min(whole.shape[:2]) / self.box_short_px
        return _on_white(whole, [edge * scale for edge in self.box])


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """A picture of a sample in a dataset.

    Attributes:
        dataset: its URL.
        unit: that holds the sample.
        sample_id: of the sample.
        index: of the picture in the sample.
        box: the part of it that is meant, xyxy in its pixels; None for all.
        face: the box of the face that is meant, where it is known.
    """

    dataset: str
    unit: str
    sample_id: str
    index: int
    box: Box | None = None
    face: Box | None = None

    def pixels(self) -> Pixels:
        """(H, W, 3) uint8; what a box cuts out lies in the middle of a white square.

        Raises:
            Refused: the sample has gone, or the bytes are no sound picture.
        """
        whole = self._whole()
        return whole if self.box is None else _on_white(whole, self.box)

    def face_pixels(self) -> Pixels:
        """(S, S, 3) uint8: the face and what is around it, white where that leaves the picture.

        Raises:
            ValueError: there is no `face`.
            Refused: as for `pixels`.
        """
        if self.face is None:
            raise ValueError("no face of it is known")
        whole = self._whole()
        return cut_square(whole, square_face_box(self.face, whole.shape[1], whole.shape[0], _FACE_MARGIN))

    def part(self, appearance: Mapping[str, Any], kind: str) -> "SamplePicture":
        """What shows a subject, with its face.

        Args:
            appearance: of the subject on this picture, as in `samples`.
            kind: of the subject; of kind `face` the box is the face's.
        """
        box, face = _box(appearance["box"]), appearance["face"]
        return replace(self, box=box, face=box if kind == "face" else _box(face["box"]) if face else None)

    def _whole(self) -> Pixels:
        return read_picture(_sample_bytes(self.dataset, self.unit, self.sample_id)[self.index])


Picture = FilePicture | SamplePicture


def _on_white(whole: Pixels, box: Sequence[float]) -> Pixels:
    part = boxes.pad(box, whole.shape[1], whole.shape[0])
    return cut_out(whole, None, part, max(part[2] - part[0], part[3] - part[1]))


def _box(edges: Sequence[float] | None) -> Box | None:
    if edges is None:
        return None
    x1, y1, x2, y2 = (float(edge) for edge in edges)
    return x1, y1, x2, y2


def held_out(dataset: Dataset, unit: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Samples of a unit that are in the validation split, a row group at a time."""
    manifest = dataset.manifest("compose", unit)
    files = manifest.files_of("samples/validation") if manifest is not None else []
    return parquet.batches(dataset.folder, files, columns, SAMPLES.schema)


@lru_cache(maxsize=4)
def _sample_bytes(url: str, unit: str, sample_id: str) -> tuple[bytes, ...]:
    for batch in held_out(Dataset(url), unit, ["sample_id", "images"]):
        ids = batch.column("sample_id").to_pylist()
        if sample_id in ids:
            images = batch.column("images")[ids.index(sample_id)].as_py()
            return tuple(image["bytes"] for image in images)
    raise Refused(f"the sample {sample_id} has gone from {url}: give a new --out, the dataset has changed")


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject of a case.

    Attributes:
        phrase: what the prompt calls it.
        references: what the adapter may see of it.
        photographs: what results are compared with.
        box: where it may be in the result, xyxy in 0–1; None for anywhere.
        crops: the photographs cut down to it, with which parts of results are compared; none where they are not known.
        truth: the same of the picture that was left out.
    """

    phrase: str
    references: tuple[Picture, ...]
    photographs: tuple[Picture, ...]
    box: Box | None = None
    crops: tuple[Picture, ...] = ()
    truth: Picture | None = None

    @property
    def closest(self) -> tuple[Picture, ...]:
        """What shows it with the least besides: the crops, else the photographs."""
        return self.crops or self.photographs


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt with its subjects, of which one or several pictures are made.

    Attributes:
        case_id: unique in the benchmark.
        part: what it belongs to: a combination of subjects, a subject, a kind.
        prompt: of the picture.
        subjects: at least one.
        source: the picture to edit; None where one is made from nothing.
        mask: file that is white where the source may change; without, the subject's box is.
        target: the picture that was left out of a group, which the references stand for.
    """

    case_id: str
    part: str
    prompt: str
    subjects: tuple[Subject, ...]
    source: FilePicture | None = None
    mask: str | None = None
    target: Picture | None = None

    def shown(self, limit: int | None) -> int:
        """Pictures that an adapter sees in all.

        Args:
            limit: most of a subject; None for all.
        """
        return sum(len(subject.references[:limit]) for subject in self.subjects)

    def area(self, source: Pixels) -> Mask:
        """Where a source may change, (H, W).

        Raises:
            Refused: the mask is none, or of another size than the source.
        """
        height, width = source.shape[:2]
        if self.mask is not None:
            found = read_mask(self.mask)
            if found.shape != (height, width):
                raise Refused(f"{self.mask} is {found.shape[1]}x{found.shape[0]}, its picture {width}x{height}")
            return found
        area = np.zeros((height, width), np.bool_)
        x1, y1, x2, y2 = pixel_box(self.subjects[0].box or (0.0, 0.0, 1.0, 1.0), width, height)
        area[y1:y2, x1:x2] = True
        return area


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark as it is read from its files.

    Attributes:
        name: on the command line.
        title: of the outcome.
        cases: all of them, in their order.
        images: pictures of each case.
        average: how its papers average.
        references: of a subject that adapters usually see; None for all.
        notes: what a reader of the scores should know.
        identity: of a dataset's content, where the cases are out of one.
    """

    name: str
    title: str
    cases: tuple[Case, ...]
    images: int
    average: Average
    references: int | None = None
    notes: tuple[str, ...] = ()
    identity: str = ""


def pixel_box(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int]:
    """A box in 0–1 as whole pixels inside a picture, at least 1x1."""
    x1, y1, x2, y2 = box
    return boxes.pad((x1 * width, y1 * height, x2 * width, y2 * height), width, height)


def refuse_missing(what: str, folder: str | Path, missing: Sequence[str]) -> None:
    """Raise Refused, naming the first ones, if files of a benchmark are missing."""
    if missing:
        raise Refused(f"{folder} is not all of {what}: {some(missing, _NAMED)} missing; get the published files whole")


def refuse_count(what: str, counted: str, found: int, wanted: int) -> None:
    """Raise Refused if a benchmark is not of its published size."""
    if found != wanted:
        raise Refused(
            f"{what} has {wanted:,} {counted}, these files make {found:,}: scores of other prompts cannot stand beside "
            "the published ones; get the published files"
        )


def fields(values: Any, *names: str, where: str) -> list[Any]:
    """Values of a json object by name.

    Raises:
        Refused: it is no object, or lacks one.
    """
    if not isinstance(values, dict) or any(name not in values for name in names):
        raise Refused(f"{where} has no {' or no '.join(names)}: it is not of the published form")
    return [values[name] for name in names]
