"""MIP-Adapter's subject_dataset_10k.

    images/<id>.png    masks/<id>.png   label map, smallest value = background; labels are not linked to the json
    jsons/<id>.json    {text, original_size [W, H], final_masks: [{label, box [x1, y1, x2, y2], logit}, ...]}

An object is an entry of final_masks with a box; those without one are background. Its mask is the most frequent label
inside the box, where the smallest value in there is background. Box and mask come from two models, so the object's box
is that of its mask, and the detector's own stays beside it. The pictures are SA-1B's, so faces are blurred.
"""

import io
import pickle
import pickletools
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from refloom.ingest import jsons
from refloom.ingest.annotationfile import as_float, is_text, texts_of
from refloom.ingest.files import PictureFile, is_junk, occurrences, stem, table_name, weigh
from refloom.ingest.labelmap import with_labels
from refloom.ingest.numbers import whole
from refloom.ingest.source import Annotation, Item, Picture, Plan, Problem, Record, UnitPlan
from refloom.ingest.sources.sa1b import LICENSE
from refloom.schemas import boxes, ids, masks
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.fingerprint import of_json
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 1000
_EXTENSIONS = {"images": ".png", "masks": ".png", "jsons": ".json"}
_OPCODES = frozenset(
    {"PROTO", "FRAME", "STOP", "EMPTY_LIST", "MARK", "LIST", "APPEND", "APPENDS"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"}
)
"""All that a pickled list of texts is made of: none of them calls, imports or makes anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject10k:
    """A folder with images, masks and jsons.

    Attributes:
        directory: that folder, or the one that its zip unpacks into.
        select: file of ids to take: one a line, or the published pickle of a list of texts; all by default.
        name: first part of the key.
        unit_size: pictures in a unit.
        limit: only the first pictures.
    """

    directory: str
    select: str | None = None
    name: str = "subject10k"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    kind: str = "subject10k"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the name of the folder."""
        return ids.unit_key(f"{self.name}.{stem(self.directory)}")

    def roots(self) -> dict[str, str]:
        """The folder that was given."""
        return {self.key: self.directory}

    def plans(self) -> list[Plan]:
        """List the three folders and cut the ids into units.

        Raises:
            Refused: the folders are not there, or the selection is no list of ids that are.
        """
        folder = Folder(self.directory)
        prefix = _prefix(folder)
        present, notes = _present(folder, prefix)
        wanted = sorted(present)
        if self.select is not None:
            wanted = _selection(self.select)
            if present.keys().isdisjoint(wanted):
                raise Refused(f"none of the {len(wanted)} ids of {self.select} is in {self.directory}: check --select")
            unselected = len(present.keys() - set(wanted))
            notes += [f"{unselected:,} ids of {self.directory} are not selected"] if unselected else []
        if not wanted:
            raise Refused(f"{self.directory} holds nothing in images, masks and jsons: nothing to ingest")
        wanted = wanted[: self.limit]
        counts = occurrences(map(ids.encode, wanted))
        units = []
        for number, start in enumerate(range(0, len(wanted), self.unit_size)):
            rows = wanted[start : start + self.unit_size]
            entries = [(row, sorted(present.get(row, ())), counts[start + at]) for at, row in enumerate(rows)]
            size, files = weigh(folder, [_file(prefix, part, row) for row, parts, _ in entries for part in parts])
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task={"prefix": prefix},
                    items={"image": len(rows)},
                    size=size,
                    identity={"files": files, "ids": of_json(rows)},
                    image_ids=tuple(ids.image_id("subject10k", row) for row in rows if row in present),
                    payload=jsons.dumps(entries, plain=False),
                )
            )
        config = {"source": self.kind, "unit_size": self.unit_size, "limit": self.limit, "prefix": prefix}
        return [Plan(self.key, tuple(units), config, tuple(notes))]

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """The pictures of one unit with their objects, and the selected ids that are not there."""
        folder = Folder(self.directory)
        for identity, parts, occurrence in jsons.loads(unit.payload):
            if parts:
                yield self._picture(identity, parts, occurrence, unit.task["prefix"], folder)
            else:
                image = ids.image_id("subject10k", identity)
                yield Item("image", image, _problem(parts, occurrence), occurrence=occurrence)

    def _picture(self, identity: str, parts: list[str], occurrence: int, prefix: str, folder: Folder) -> Picture:
        image, record, png = (
            PictureFile(folder, _file(prefix, part, identity), self.key) for part in ("images", "jsons", "masks")
        )
        is_sa1b = re.fullmatch(r"sa_\d+", identity) is not None
        picture = Picture(
            image_id=ids.image_id("subject10k", identity),
            file=table_name(image.name),
            load=image.load,
            link=image.linker,
            license=LICENSE if is_sa1b else None,
            faces_blurred=is_sa1b,
            problem=_problem(parts, occurrence),
            occurrence=occurrence,
        )
        if picture.problem is None:
            try:
                _describe(picture, record)
            except (Rejected, Failed) as problem:
                picture.problem = problem
        picture.load = with_labels(picture, png, partial(_trace, picture))
        return picture


def _prefix(folder: Folder) -> str:
    for prefix in ("", "subject_dataset_10k"):
        if _EXTENSIONS.keys() <= set(folder.folders(prefix)):
            return prefix
    raise Refused(f"{folder.url} has no folders images, masks and jsons: give the unpacked subject_dataset_10k")


def _file(prefix: str, part: str, identity: str) -> str:
    return posixpath.join(prefix, part, identity + _EXTENSIONS[part])


def _present(folder: Folder, prefix: str) -> tuple[dict[str, set[str]], list[str]]:
    """Id to the folders that have a file of it, and a note on files that are of no id."""
    present: dict[str, set[str]] = defaultdict(set)
    others = 0
    for part, extension in _EXTENSIONS.items():
        for name in folder.names(posixpath.join(prefix, part)):
            if name.endswith(extension) and not is_junk(name):
                present[name.removesuffix(extension)].add(part)
            else:
                others += not is_junk(name)
    return present, [f"{others:,} files are neither .png in images and masks nor .json in jsons"] if others else []


def _problem(parts: list[str], occurrence: int) -> Problem | None:
    if occurrence:
        return Rejected("duplicate", "the id came before")
    if not parts:
        return Failed("missing_file", "selected, and not in images, masks or jsons")
    missing = [part for part in _EXTENSIONS if part not in parts]
    return Rejected("incomplete_pair", f"not in {', '.join(missing)}") if missing else None


def _describe(picture: Picture, file: PictureFile) -> None:
    """Caption, original size and objects from the json; the masks come later."""
    try:
        record = jsons.loads(file.load())
    except ValueError as error:
        raise Rejected("bad_record", f"the record is not json ({error})"[:200]) from error
    if not isinstance(record, dict) or not isinstance(record.get("final_masks"), list):
        raise Rejected("bad_record", "the record has no list `final_masks`")
    size = record.get("original_size")
    if size is not None:
        width, height = map(whole, size) if isinstance(size, list) and len(size) == 2 else (None, None)
        if not width or not height:
            raise Rejected("bad_record", f"original_size is {size!r}"[:100])
        picture.original_size = (height, width)
    texts = texts_of(record.get("text"))
    picture.captions = [(f"{picture.image_id}#caption{number}", text) for number, text in enumerate(texts)]
    picture.annotations = [
        _annotation(ids.object_id(picture.image_id, index), entry)
        for index, entry in enumerate(record["final_masks"])
        if not (isinstance(entry, dict) and "box" not in entry)
    ]


def _annotation(object_id: str, entry: Any) -> Annotation:
    if not isinstance(entry, dict):
        return Annotation(object_id, problem=Rejected("bad_record", "the entry of final_masks is no object"))
    label = entry.get("label")
    return Annotation(
        object_id,
        phrase=label if is_text(label) else None,
        confidence=as_float(entry.get("logit")),
        needs_box=False,
        source_fields=entry,
        problem=None if is_text(label) else Rejected("bad_record", f"the label is {label!r}"[:100]),
    )


def _trace(picture: Picture, labels: npt.NDArray[Any]) -> None:
    for annotation in picture.annotations:
        if annotation.problem is None:
            try:
                annotation.segmentation = object_mask(labels, annotation.source_fields["box"])
            except Rejected as problem:
                annotation.problem = problem


def object_mask(labels: npt.NDArray[Any], box: Any) -> masks.Mask:
    """The object that a detector's box means in a label map.

    Args:
        labels: (h, w) whole numbers.
        box: xyxy, pixels, as it stands in the json.

    Returns:
        The pixels of the most frequent label in the box, where the smallest value in the box is background; of two
        equally frequent ones the smaller.

    Raises:
        Rejected: `bad_box` or `empty_mask`.
    """
    height, width = labels.shape
    values = [as_float(value) for value in box] if isinstance(box, list) and len(box) == 4 else []
    if not values or not all(type(value) is float for value in values):
        raise Rejected("bad_box", f"box is {box!r}"[:100])
    with np.errstate(over="ignore"):
        clipped, sound = boxes.clip(np.array([values], np.float64).astype(np.float32), width, height)
    if not sound[0]:
        raise Rejected("bad_box", f"box {box!r} in a frame of {width}x{height}"[:200])
    x0, y0, x1, y1 = window = boxes.pad(clipped[0], width, height)
    inside = labels[y0:y1, x0:x1]
    found, counts = np.unique(inside, return_counts=True)
    if len(found) < 2:
        raise Rejected("empty_mask", "the label map has nothing but background in the box")
    label = found[1:][counts[1:].argmax()]
    return masks.encode_box(inside == label, window, height, width)


def _selection(path: str) -> list[str]:
    """The ids of a selection file.

    Raises:
        Refused: it is neither a text file nor the pickle of a list of texts.
    """
    folder, name = jsons.split(path)
    try:
        data = folder.read(name)
        if name.endswith((".pkl", ".pickle")) or data[:1] == b"\x80":
            return _unpickled(data)
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except (OSError, *_NOT_A_SELECTION) as error:
        raise Refused(
            f"{path} cannot be read as a text file of ids, nor as a pickle of one list of texts ({error}): give one"
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


class _ListOfTexts(pickle.Unpickler):
    """Builds lists and texts; what a pickle wants to import or to look up elsewhere is refused."""

    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}")

    def persistent_load(self, identity: Any, /) -> NoReturn:
        raise pickle.UnpicklingError("it wants an object from elsewhere")


_NOT_A_SELECTION = (pickle.UnpicklingError, ValueError, EOFError, LookupError, TypeError, AttributeError, MemoryError)
"""What a damaged or hostile pickle raises, and text that is not UTF-8."""


def _unpickled(data: bytes) -> list[str]:
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"it holds {opcode.name}")
        if (
            "PUT" in opcode.name and isinstance(argument, int) and argument > len(data)
        ):  # a memo of that length would be allocated
            raise pickle.UnpicklingError(f"{opcode.name} {argument} in a file of {len(data)} bytes")
    texts = _ListOfTexts(io.BytesIO(data)).load()
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise pickle.UnpicklingError("it is no flat list of texts")
    return texts
