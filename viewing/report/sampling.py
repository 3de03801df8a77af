"""A sample of rows that depends on their ids alone: those whose ids have the smallest hashes."""

import zlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]


def hashes(ids: pa.Array | pa.ChunkedArray) -> Hashes:
    """A hash of each id, (N,): the same on every machine, and fast enough for hundreds of millions."""
    sums = np.fromiter((zlib.crc32(key) for key in ids.cast(pa.binary()).to_pylist()), np.uint64, len(ids))
    # ids that differ in a digit have checksums that differ in a few bits: mix them (the finaliser of splitmix64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        sums = (sums ^ (sums >> np.uint64(shift))) * np.uint64(factor)
    mixed: Hashes = sums ^ (sums >> np.uint64(31))
    return mixed


class LowestHashes:
    """Keeps at most `limit` of the rows that are added: those with the smallest hashes of their id.

    Args:
        limit: rows to keep.
        key: the column that holds the id.
    """

    def __init__(self, limit: int, key: str = "id") -> None:
        self._limit, self._key = limit, key
        self._parts: list[pa.Table] = []
        self._hashes: list[Hashes] = []
        self._waiting = 0

    def add(self, rows: pa.Table) -> None:
        """Add rows; all calls must give the same columns."""
        if not len(rows):
            return
        self._parts.append(rows)
        self._hashes.append(hashes(rows[self._key]))
        self._waiting += len(rows)
        if self._waiting > 2 * self._limit:
            self._prune()

    def rows(self) -> pa.Table | None:
        """The rows by rising hash; None if there never was one."""
        self._prune()
        return self._parts[0] if self._parts else None

    def _prune(self) -> None:
        if not self._parts:
            return
        marks = np.concatenate(self._hashes)
        order = np.argsort(marks, kind="stable")[: self._limit]
        self._parts, self._hashes = [pa.concat_tables(self._parts).take(order).combine_chunks()], [marks[order]]
        self._waiting = len(order)
