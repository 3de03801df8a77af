"""The sizes of a dataset, and one row of it in words: bytes as size and format, masks as size and area."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from refloom.schemas import headers, masks, parquet, wording
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.tables import TABLES
from refloom.schemas.wording import quoted
from refloom.viewing.rows import fetch

Row = dict[str, Any]

_KINDS = {
    "images": "source",
    "objects": "kind",
    "source_groups": "kind",
    "duplicates": "by",
    "selection": "verdict",
    "choices": "verdict",
    "groups": "kind",
    "splits": "split",
    "samples": "kind",
}
"""The column that rows of a table are told apart by."""
_FIRST_CHOICE = ("samples", "groups", "objects", "images")
_LONG_LIST = 8
_MOST_ITEMS = 12


@dataclass(frozen=True, slots=True)
class Found:
    """A row: of which table and unit."""

    table: str
    unit: str
    row: Row


# -- sizes ---------------------------------------------------------------------------------------------------------


def sizes(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Rows, files and bytes of every table that there is, with rows and bytes per split and rows per kind."""
    found: dict[str, dict[str, Any]] = {}
    for name, table in TABLES.items():
        manifests = dataset.manifests(table.stage)
        files = [file for manifest in manifests.values() for file in manifest.files_of(name)]
        if not files:
            continue
        entry: dict[str, Any] = {"rows": sum(file.rows for file in files), "bytes": sum(file.bytes for file in files)}
        entry |= {"files": len(files), "units": len(manifests)}
        splits: dict[str, Counter[str]] = {}
        for file in files:
            parts = file.path.split("/")
            if len(parts) > 2:
                splits.setdefault(parts[1], Counter()).update({"rows": file.rows, "bytes": file.bytes})
        if splits:
            entry["splits"] = {split: dict(counts) for split, counts in sorted(splits.items())}
        if name in _KINDS:
            entry["kinds"] = _kinds(dataset, files, _KINDS[name])
        found[name] = entry
    return found


def _kinds(dataset: Dataset, files: list[parquet.File], column: str) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for batch in parquet.batches(dataset.folder, files, [column]):
        for entry in batch.column(0).value_counts().to_pylist():
            counts[entry["values"] or "none"] += entry["counts"]
    return dict(counts.most_common())


def size_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The sizes as lines of text."""
    lines = [f"{'table':14} {'rows':>12} {'bytes':>10} {'files':>6}"]
    for name, entry in found.items():
        lines.append(f"{name:14} {entry['rows']:>12,} {wording.size(entry['bytes']):>10} {entry['files']:>6,}")
        for split, counts in entry.get("splits", {}).items():
            lines.append(f"  {split:12} {counts['rows']:>12,} {wording.size(counts['bytes']):>10}")
        if entry.get("kinds"):
            lines.append("  " + ", ".join(f"{kind} {count:,}" for kind, count in entry["kinds"].items()))
    total = sum(entry["bytes"] for entry in found.values())
    return [*lines, f"{'all':14} {'':>12} {wording.size(total):>10}"]


# -- one row -------------------------------------------------------------------------------------------------------


def find(dataset: Dataset, identity: str | None, table: str | None) -> Found | None:
    """The row of an id, or the first row of a table.

    Args:
        dataset: where.
        identity: of the row; the first one by default.
        table: a name in `TABLES`; by default the one whose ids look like this one, or samples, else what there is.

    Returns:
        The row with all its columns; None if the dataset has no rows at all.

    Raises:
        Refused: no row has this id, or the table has no rows.
    """
    if identity is None:
        tables = [table] if table is not None else list(_FIRST_CHOICE)
        found = next((first for first in (_first(dataset, name) for name in tables) if first is not None), None)
        if found is None and table is not None:
            raise Refused(f"{dataset.url} has no rows in {table}: see `refloom status {quoted(dataset.url)}`")
        return found
    tried = [table] if table is not None else _tables_of(identity)
    for name in tried:
        units = list(dataset.manifests(TABLES[name].stage))
        for unit in units:
            row = next(fetch(dataset, name, {unit: {identity}}, TABLES[name].schema.names), None)
            if row is not None:
                return Found(name, unit, row)
    raise Refused(f"no row of {', '.join(tried)} has the id {identity!r}: `refloom browse` searches parts of ids")


def _tables_of(identity: str) -> list[str]:
    """Tables that may hold an id, the likeliest first."""
    prefix = identity.partition("/")[0]
    if prefix in ("image", "video", "group", "cross"):
        return ["samples", "images"]
    if prefix in ("track", "identity", "look", "folder"):
        return ["groups", "images", "objects", "source_groups"]
    likely = ["faces"] if "@" in identity else ["objects", "masks", "source_groups"] if "#" in identity else []
    return [*likely, "images", "source_groups"] if not likely else [*likely, "groups"]


def _first(dataset: Dataset, table: str) -> Found | None:
    for unit, manifest in dataset.manifests(TABLES[table].stage).items():
        for batch in parquet.batches(dataset.folder, manifest.files_of(table)):
            if batch.num_rows:
                return Found(table, unit, batch.slice(0, 1).to_pylist()[0])
    return None


def as_json(found: Found | None) -> dict[str, Any]:
    """The row as plain values: bytes by their size and format, masks with their area."""
    if found is None:
        return {"table": None, "unit": None, "row": None}
    return {"table": found.table, "unit": found.unit, "row": _plain(found.row)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _about_bytes(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        more = {"area": int(masks.areas([value])[0])} if _is_mask(value) else {}  # type: ignore[list-item]
        return {key: _plain(item) for key, item in value.items()} | more
    return value


def _about_bytes(data: bytes) -> dict[str, Any]:
    try:
        header = headers.read(data)
    except Rejected as problem:
        return {"bytes": len(data), "problem": problem.reason}
    return {"bytes": len(data), "format": header.format, "width": header.width, "height": header.height}


def _is_mask(value: Any) -> bool:
    return (
        isinstance(value, dict) and value.keys() == {"size", "counts"} and masks.check([value]) == [None]  # type: ignore[list-item]
    )


def row_lines(found: Found | None) -> list[str]:
    """The row as lines of text."""
    if found is None:
        return ["no rows"]
    return [f"{found.table}, unit {found.unit}", *_lines(found.row, 1)]


def _lines(row: Row, depth: int) -> list[str]:
    lines = []
    pad = "  " * depth
    for key, value in row.items():
        text = brief(value)
        if text is not None:
            lines.append(f"{pad}{key}: {text}")
        elif isinstance(value, dict):
            lines += [f"{pad}{key}:", *_lines(value, depth + 1)]
        else:
            lines.append(f"{pad}{key}: {len(value)}")
            for number, item in enumerate(value[:_MOST_ITEMS]):
                text = brief(item)
                if text is not None:
                    lines.append(f"{pad}  {number}: {text}")
                else:
                    nested = item if isinstance(item, dict) else {str(place): one for place, one in enumerate(item)}
                    lines += [f"{pad}  {number}:", *_lines(nested, depth + 2)]
            if len(value) > _MOST_ITEMS:
                lines.append(f"{pad}  and {len(value) - _MOST_ITEMS:,} more")
    return lines


def brief(value: Any) -> str | None:
    """A value on one line; None for one that needs several."""
    if value is None:
        return "–"
    if isinstance(value, bytes):
        about = _about_bytes(value)
        what = about.get("problem") or f"{about['format']} {about['width']}x{about['height']}"
        return f"{what}, {wording.size(len(value))}"
    if isinstance(value, float):
        return wording.value(value)
    if isinstance(value, str | int | bool):
        return str(value)
    if isinstance(value, dict):
        return _brief_mask(value) if _is_mask(value) else None
    return _brief_list(value)


def _brief_mask(mask: Any) -> str:
    height, width = mask["size"]
    area = int(masks.areas([mask])[0])
    return f"mask of {width}x{height}, {area:,} px set ({wording.share(area, width * height)})"


def _brief_list(values: list[Any]) -> str | None:
    if not values:
        return "none"
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in values):
        if len(values) <= _LONG_LIST:
            return "[" + ", ".join(wording.value(float(item)) for item in values) + "]"
        length = math.sqrt(sum(float(item) ** 2 for item in values))
        return f"{len(values):,} numbers, length {wording.value(length)}"
    if len(values) <= _LONG_LIST and all(isinstance(item, list) and len(item) == 2 for item in values):
        points = [_brief_list(item) for item in values]
        return " ".join(point for point in points if point) if all(points) else None
    return None
