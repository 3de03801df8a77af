"""Picture records of COCO-like json: which file one means, and several of them that mean the same.

LVIS names a file by the end of `coco_url` alone. SA-Co has a record for each phrase of a picture, LIVECell two where a
picture was annotated twice: such records join the first of their file.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import Any

from refloom.ingest.annotationfile import is_number, is_text
from refloom.ingest.files import find_prefix, safe_name, safe_names
from refloom.ingest.references import exact
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

_SAMPLE = 20


def file_name(record: Any, levels: int = 1) -> Any:
    """The file that a record names, as it stands there; of a record without one, the end of its `coco_url`.

    Args:
        record: of a picture.
        levels: parts of the URL's path that make the name: 1 for the file, 2 for its folder too (`val2017/...`).
    """
    if not isinstance(record, dict):
        return None
    name: Any = record.get("file_name")
    url: Any = record.get("coco_url")
    if name is None and is_text(url):
        return "/".join(re.split("[?#]", url, maxsplit=1)[0].split("/")[-levels:])
    return name


def place(folder: Folder, records: Sequence[Any], guesses: Sequence[str], what: str) -> tuple[str, int]:
    """Below which folder the files of records lie, and how many `levels` of a URL their names have.

    Args:
        folder: that the user gave.
        records: the first ones.
        guesses: subfolders to try, best first.
        what: names the option, for the message.

    Raises:
        Refused: none of the files lies below any of them.
    """

    def prefix(levels: int) -> str:
        names = safe_names([file_name(record, levels) for record in records])
        return find_prefix(folder, names[:_SAMPLE], guesses, what)

    if any(isinstance(record, dict) and record.get("file_name") is None for record in records):
        try:
            return prefix(2), 2
        except Refused:
            pass  # all pictures in one folder
    return prefix(1), 1


def joined(records: Sequence[Any], levels: int) -> dict[int, int]:
    """Row of a record to the row of the first record of its file, for those whose annotations go to the first.

    A record that has no id or no size of its own, or the id of an earlier one, joins nothing.
    """
    first: dict[str, int] = {}
    known: set[Any] = set()
    joins = {}
    for row, record in enumerate(records):
        identity = exact(record.get("id")) if isinstance(record, dict) else None
        if identity is None or identity in known:
            continue
        known.add(identity)
        name = file_key(record, levels)
        if name is None:
            continue
        owner = first.setdefault(name, row)
        if owner != row and size_of(record) is not None:
            joins[row] = owner
    return joins


def file_key(record: Any, levels: int) -> str | None:
    """The file that a record means, the same for `a.jpg` and `./a.jpg`; None where it means none.

    The two ways to write an accent stay two: on most disks they are two files.
    """
    try:
        return safe_name(file_name(record, levels))
    except Rejected:
        return None


def size_of(record: Any) -> tuple[Any, Any] | None:
    """(width, height) as a record declares them; None if it does not, or no number and no text."""
    size = (record.get("width"), record.get("height")) if isinstance(record, dict) else (None, None)
    return size if all(exact(side) is not None for side in size) else None


def said_of_annotations(record: Any) -> dict[str, Any]:
    """What a record says of the annotations on it: their size and phrase."""
    return {"size": size_of(record), "phrase": record.get("text_input") if isinstance(record, dict) else None}


def phrase_of(annotation: dict[str, Any], said: dict[str, Any]) -> str | None:
    """The words for an object: SA-Co's noun phrase, of the annotation itself or of its picture's record."""
    return next((text for text in (annotation.get("noun_phrase"), said.get("phrase")) if is_text(text)), None)


def in_pixels(annotation: dict[str, Any], said: dict[str, Any]) -> tuple[Any, Any]:
    """Box and area of an annotation in pixels; SA-Co gives them as shares of the picture.

    Returns:
        As they stand, unless the record has a phrase and all four numbers lie in 0 to 1.
    """
    box: Any = annotation.get("bbox")
    area: Any = annotation.get("area")
    size: Any = said.get("size")
    is_share = (
        is_text(said.get("phrase"))
        and isinstance(box, list)
        and len(box) == 4
        and all(is_number(side) and 0 <= side <= 1 for side in box)
        and size is not None
        and all(is_number(side) for side in size)
    )
    if not is_share:
        return box, area
    width, height = size
    scaled = [side * (height if index % 2 else width) for index, side in enumerate(box)]
    return scaled, area * width * height if is_number(area) and area <= 1 else area


def refuse_panoptic(annotations: Sequence[Any], path: str, wanted: str) -> None:
    """Refuse panoptic json: its masks lie in pictures beside it, so that it has no objects to read.

    Args:
        annotations: as they are listed.
        path: of the file, for the message.
        wanted: what to give instead.

    Raises:
        Refused: the first annotation has segments.
    """
    first = next((item for item in annotations if isinstance(item, dict)), {})
    inner = first.get("annotations")
    if isinstance(inner, list) and inner and isinstance(inner[0], dict):  # of videos, a list in a list
        first = inner[0]
    if isinstance(first.get("segments_info"), list):
        raise Refused(
            f"{path} is panoptic json: its masks are colours of the PNGs beside it ({posixpath.basename(path)} lists "
            f"only `segments_info`). Give {wanted}; panopticapi's panoptic2detection_coco_format.py makes it from "
            "panoptic json"
        )
