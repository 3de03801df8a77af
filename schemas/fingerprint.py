"""Fingerprints: sha256 over the canonical values of rows, independent of files, row groups and Arrow's buffers.

Every leaf column is hashed as streams of its own (validity, lengths, values), so that the same rows give the same
fingerprint however they are cut into batches. Picture bytes count by their sha256.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Fingerprint:
    """A running fingerprint of rows of one schema.

    Args:
        digests: binary leaf to the column that already holds its sha256 in hexadecimal, so that pictures are not
            hashed twice, e.g. `{"image.bytes": "sha256"}`.
    """

    def __init__(self, digests: dict[str, str] | None = None) -> None:
        self._streams: dict[str, Any] = {}
        self._digests = digests or {}
        self._rows = 0

    def update(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Add rows; the order of rows counts, the cut into batches does not."""
        self._rows += rows.num_rows
        for leaf, column in self._digests.items():
            present = rows.column(leaf.split(".")[0]).is_valid()
            for digest in pc.filter(rows.column(column), present).to_pylist():
                self._feed(leaf, bytes.fromhex(digest))
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                self._add(name, chunk)

    def hexdigest(self) -> str:
        """The fingerprint of all rows so far, hexadecimal."""
        total = hashlib.sha256(str(self._rows).encode())
        for path in sorted(self._streams):
            total.update(path.encode() + b"\0" + self._streams[path].digest())
        return total.hexdigest()

    def _feed(self, path: str, data: Any) -> None:
        if path not in self._streams:
            self._streams[path] = hashlib.sha256()
        self._streams[path].update(data)

    def _add(self, path: str, array: pa.Array) -> None:
        if not len(array):
            return
        self._feed(path + "?", _numpy(array.is_valid()).tobytes())
        valid = array.drop_null() if array.null_count else array
        kind = array.type
        if pa.types.is_struct(kind):
            for index, field in enumerate(kind):
                self._add(f"{path}.{field.name}", valid.flatten()[index])
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            self._feed(path + "#", _numpy(pc.list_value_length(valid)).astype("<i8").tobytes())
            self._add(path + "[]", valid.flatten())
        elif pa.types.is_binary(kind):
            if path in self._digests:
                return
            for value in valid:
                self._feed(path, hashlib.sha256(value.as_buffer()).digest())
        elif pa.types.is_string(kind):
            self._feed(path + "#", _numpy(pc.binary_length(valid)).astype("<i8").tobytes())
            self._feed(path, _string_bytes(valid))
        elif pa.types.is_boolean(kind):
            self._feed(path, _numpy(valid).tobytes())
        else:
            self._feed(path, np.ascontiguousarray(_numpy(valid)).tobytes())


def _numpy(array: pa.Array) -> Any:
    return array.to_numpy(zero_copy_only=False)


def _string_bytes(array: pa.Array) -> memoryview:
    """The characters of a string array without nulls, whatever its offset into its buffers."""
    if not len(array):
        return memoryview(b"")
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data or b"")[offsets[0] : offsets[-1]]


def fraction_of(text: str) -> float:
    """Where a text stands among all, by its hash, from 0 to below 1: a draw that depends on nothing else."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def of_parts(parts: dict[str, str]) -> str:
    """Fingerprint of named fingerprints, for example of a table from those of its units."""
    return of_json(dict(sorted(parts.items())))


def of_json(value: Any) -> str:
    """sha256 of a json value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
