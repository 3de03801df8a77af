"""The MANIFEST.json of a publication, read as what a stranger may have written, and the check of its files.

Written by `refloom publish` as its last act: {version, options, rows, facts, fingerprint, missing, files: [{path,
bytes, sha256, rows}]}. Paths lie below `data/`, but for the card and croissant.json.
"""

import hashlib
import re
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refloom.schemas import publishedbytes, strict
from refloom.schemas.errors import Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.findings import Findings
from refloom.schemas.fingerprint import of_parts
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.schemas.tables import TABLES
from refloom.schemas.wording import quoted

MANIFEST = "MANIFEST.json"
DATA = "data"
PICTURES = "pictures"
"""The table of a publication without bytes that says which belong where."""
_OR_TEXT = (None, str)
_COUNTS = {"input": int, "kept": int, "rejected": {"*": int}, "failed": {"*": int}}
_FACTS = {
    "pictures": [
        {"source": str, "license": _OR_TEXT, "pictures": int, "permission": str, "conditions": [str]},
    ],
    "withheld": [str],
    "faces_blurred": int,
    "faces": int,
    "funnel": {"*": {"*": _COUNTS}},
    "models": [{"role": str, "model": str, "license": _OR_TEXT}],
    "settings": dict,
    "made": {
        "compose": (None, {"max_side_px": (None, int), "jpeg_quality": (None, int)}),
        "face": (None, {"crop_max_side_px": (None, int), "crop_quality": (None, int)}),
    },
    "left_out?": {"takedown?": (None, {"ids": int, "pictures": int}), "rows?": {"*": int}},
}
_SHAPE = {
    "version": int,
    "options": {"images": bool, "face_embeddings": bool, "shard_bytes": int},
    "rows": {"*": {"*": int}},
    "facts": _FACTS,
    "fingerprint": str,
    "missing?": int,
    "files": [{"path": str, "bytes": int, "sha256": str, "rows?": int}],
}
_SPLIT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LEAST_SHARD_BYTES = 64 << 10
_MOST_SIDE_PX, _MOST_QUALITY = 65_535, 100


def is_publication(folder: Folder) -> bool:
    """Whether a folder holds a publication and no dataset."""
    return folder.exists(MANIFEST) and not folder.exists("dataset.json") and not folder.folders("manifests")


def is_sound(manifest: dict[str, Any]) -> bool:
    """Whether the content of a MANIFEST.json is what `refloom publish` writes."""
    return misfit(manifest, _SHAPE) is None


def parse(data: bytes) -> dict[str, Any]:
    """The content of a MANIFEST.json.

    Raises:
        ValueError: it is not what `refloom publish` writes; says what is wrong.
    """
    value = strict.object_in(data)
    version = value.get("version")
    if type(version) is int and version != VERSION:
        raise ValueError(f"it is of version {version}; this refloom reads version {VERSION}")
    if (wrong := misfit(value, _SHAPE)) is not None:
        raise ValueError(wrong)
    for table, splits in value["rows"].items():
        if (table not in TABLES and table != PICTURES) or not splits:
            raise ValueError(f"it has a table {table!r}, which no publication has")
        if odd := [name for name in splits if not _SPLIT.fullmatch(name)]:
            raise ValueError(f"it has a split {odd[0]!r}, which is no name")
    if not value["rows"] or value["options"]["shard_bytes"] < _LEAST_SHARD_BYTES:
        raise ValueError("it has no rows, or files of no size")
    for made in filter(None, value["facts"]["made"].values()):
        for name, number in made.items():
            if type(number) is int and number > (_MOST_QUALITY if name.endswith("quality") else _MOST_SIDE_PX):
                raise ValueError(f"facts.made says {name} {number}, which no picture has")
    for file in value["files"]:
        path = PurePosixPath(file["path"])
        if path.is_absolute() or ".." in path.parts or "\0" in file["path"] or "\\" in file["path"]:
            raise ValueError(f"it names {file['path']!r}, which leaves the folder")
    return value


def verify(folder: Folder) -> Findings:
    """Check a publication: its files, by their sha256 and rows, and that there are no others.

    Args:
        folder: of the publication.
    """
    findings = Findings()
    remedy = (
        f"publish again with `refloom publish DATASET {quoted(folder.url)}` and the options of then, or get it again"
    )
    try:
        manifest = parse(folder.read(MANIFEST))
    except ValueError as error:
        findings.problems.append(f"{MANIFEST}: {error}")
        findings.remedies.append(remedy)
        return findings
    rows: dict[tuple[str, str], int] = {}
    for file in manifest["files"]:
        findings.checked["files"] += 1
        _check(folder, file, findings)
        parts = file["path"].split("/")
        if parts[0] == DATA and len(parts) == 3:
            key = parts[1], parts[2].split("-")[0]
            rows[key] = rows.get(key, 0) + file.get("rows", 0)
    said = {(table, split): count for table, splits in manifest["rows"].items() for split, count in splits.items()}
    if rows != said:
        findings.problems.append(f"{MANIFEST}: its files hold other numbers of rows than it says")
    made = {file["path"]: file["sha256"] for file in manifest["files"] if file["path"].startswith(f"{DATA}/")}
    if of_parts(made) != manifest["fingerprint"]:
        findings.problems.append(f"{MANIFEST}: its fingerprint is not that of its files")
    named = {file["path"] for file in manifest["files"]}
    for table in folder.folders(DATA):
        for name in folder.names(f"{DATA}/{table}"):
            if f"{DATA}/{table}/{name}" not in named:
                findings.problems.append(f"{DATA}/{table}/{name}: {MANIFEST} does not name it")
    if not findings.problems:  # else a file may not open, and its bytes are wrong anyway
        findings.problems.extend(publishedbytes.problems(folder, sorted(named)))
    if findings.problems:
        findings.remedies.append(remedy)
    return findings


def _check(folder: Folder, file: dict[str, Any], findings: Findings) -> None:
    path = file["path"]
    running, size = hashlib.sha256(), 0
    try:
        with folder.open(path) as source:
            while data := source.read(8 << 20):
                running.update(data)
                size += len(data)
    except FileNotFoundError:
        findings.problems.append(f"{path}: is gone")
        return
    except (OSError, Refused) as error:
        findings.problems.append(f"{path}: cannot be read ({error})")
        return
    if size != file["bytes"] or running.hexdigest() != file["sha256"]:
        findings.problems.append(f"{path}: the bytes are not those that were published")
        return
    if not path.endswith(".parquet"):
        return
    try:
        with folder.open(path) as source, pq.ParquetFile(source) as reader:
            found = reader.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        findings.problems.append(f"{path}: is no Parquet ({' '.join(str(error).split())})")
        return
    findings.checked["rows"] += found
    if found != file.get("rows"):
        findings.problems.append(f"{path}: holds {found} rows, not {file.get('rows')}")
