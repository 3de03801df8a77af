"""Files of directed records, read record by record: lists in json, lines of json, CSV; and folders of controls."""

import hashlib
import posixpath
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from refloom.ingest import captionlines, companions, jsons
from refloom.ingest.files import PictureFile, picture_names
from refloom.ingest.sources.pairs.files import Numbered
from refloom.ingest.sources.pairs.layouts import LAYOUTS, Directed, told_by
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.fingerprint import of_json
from refloom.schemas.storage import Folder

_LOOKED_AT = 100
_KEYS_SHOWN = 8
_NUMBER_BEHIND = re.compile(r"_\d{1,6}$")
_ENDS = (".gz", ".parquet", ".jsonl", ".ndjson", ".json", ".csv")

Rows = list[tuple[int, dict[str, Any] | Rejected]]


@dataclass(frozen=True, slots=True)
class Read:
    """What a file holds: its records, and the sha256 of its bytes."""

    records: list[Numbered]
    layout: str
    sha256: str


def stem(path: str) -> str:
    """`/data/train.jsonl` to `train`, of a folder its name: what ids and keys call it."""
    base = posixpath.basename(path.rstrip("/"))
    for end in _ENDS:
        base = base.removesuffix(end)
    return base


def read(path: str, layout: str, limit: int | None) -> Read:
    """The records of a file. Those of a list count from 0, lines are called by their number in the file.

    Args:
        path: of the file.
        layout: a word of `LAYOUTS`, or auto.
        limit: only so many.

    Raises:
        Refused: it cannot be read, holds no records, or its records are of no known layout.
    """
    rows, digest = _listed(path) if _is_list(path) else _lines(path)
    if not rows:
        raise Refused(f"{path} holds no records: give a file of one of the layouts {', '.join(LAYOUTS)}")
    chosen = _layout(path, rows) if layout == "auto" else layout
    return Read([(number, _parsed(chosen, row)) for number, row in rows[:limit]], chosen, digest)


def _is_list(path: str) -> bool:
    return path.removesuffix(".gz").endswith(".json")


def _listed(path: str) -> tuple[Rows, str]:
    document = jsons.load(path)
    if not isinstance(document.value, list):
        raise Refused(f"{path} holds a {type(document.value).__name__}, not a list of records: give the json of a set")
    return list(enumerate(map(_object, document.value))), document.sha256


def _object(record: Any) -> dict[str, Any] | Rejected:
    if isinstance(record, dict):
        return record
    return Rejected("bad_record", f"the record is {type(record).__name__}, not an object")


def _lines(path: str) -> tuple[Rows, str]:
    folder, name = jsons.split(path)
    digest = hashlib.sha256()
    try:
        with folder.open(name) as file:
            return list(captionlines.rows(file, name, digest, path)), digest.hexdigest()
    except FileNotFoundError:
        raise Refused(f"{path} does not exist") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error


def _layout(path: str, rows: Rows) -> str:
    """The layout of the first record that is of one."""
    sound = [row for _, row in rows[:_LOOKED_AT] if isinstance(row, dict)]
    for row in sound:
        if (layout := told_by(key for key, value in row.items() if value is not None)) is not None:
            return layout
    keys = ", ".join(str(key) for key in sound[0])[:200] if sound else "nothing that is a record"
    raise Refused(f"the first records of {path} are of no known layout (they have {keys}): give --layout, see the docs")


def _parsed(layout: str, row: dict[str, Any] | Rejected) -> Directed | Rejected:
    if isinstance(row, Rejected):
        return row
    try:
        return LAYOUTS[layout](row)
    except Rejected as problem:
        return problem


def of_folders(folder: Folder, targets: str, controls: list[str], limit: int | None) -> Read:
    """Records of a folder of targets and folders of controls, matched by their names without the extension.

    A control of `a.jpg` is `a.png` (ai-toolkit: one folder for each), or `a_0.png`, `a_1.png` ... (musubi-tuner). The
    instruction is the text beside the target, `a.txt`.

    Args:
        folder: that all of them lie in.
        targets, controls: their paths in it, the controls in the order that texts count them.
        limit: only so many targets.

    Raises:
        Refused: there are no targets.
    """
    names, others = picture_names(folder, targets)
    if not names:
        raise Refused(f"{posixpath.join(folder.url, targets)} holds no pictures: give the folder of the targets")
    stems = {_stem_below(targets, name) for name in names}
    found: dict[str, list[str]] = defaultdict(list)
    for control in controls:
        for name in sorted(picture_names(folder, control)[0], key=_order):
            own = _stem_below(control, name)
            found[own if own in stems else _NUMBER_BEHIND.sub("", own)].append(name)
    beside = companions.beside(names, [name for name in others if not name.lower().endswith(".json")])
    records: list[Numbered] = []
    digests = []
    for number, name in enumerate(names[:limit]):
        texts: list[bytes] = []
        try:
            texts = [PictureFile(folder, text, "").load() for text in beside.get(name, [])]
            records.append((number, _of_target(name, found.get(_stem_below(targets, name), []), texts)))
        except Rejected as problem:
            records.append((number, problem))
        digests += [hashlib.sha256(text).hexdigest() for text in texts]
    return Read(records, "musubi", of_json([digests, [[name, found[name]] for name in sorted(found)]]))


def _of_target(name: str, controls: list[str], texts: list[bytes]) -> Directed:
    if not controls:
        raise Rejected("incomplete_pair", f"no folder of controls has an image of {name}"[:200])
    said, _ = companions.read([(f"{number}.txt", text) for number, text in enumerate(texts)], lines=False)
    caption = said.texts or None
    return LAYOUTS["musubi"](
        {"image_path": name, "caption": caption} | {f"control_path_{at}": path for at, path in enumerate(controls)}
    )


def _stem_below(folder: str, name: str) -> str:
    return posixpath.splitext(posixpath.relpath(name, folder or "."))[0]


def _order(name: str) -> tuple[str, int]:
    """Numbers behind a name count as numbers: `a_2` before `a_10`."""
    base = posixpath.splitext(name)[0]
    number = _NUMBER_BEHIND.search(base)
    return (base[: number.start()], int(number[0][1:])) if number else (base, -1)
