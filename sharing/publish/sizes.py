"""Bytes of single rows of Arrow arrays, as a function of their values alone: not of batches, buffers or files."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Sizes = npt.NDArray[np.int64]


def row_sizes(rows: pa.RecordBatch | pa.StructArray) -> Sizes:
    """Bytes of each of N rows (N,): values, and 4 for every text or list; nothing for what is null."""
    columns = rows.columns if isinstance(rows, pa.RecordBatch) else rows.flatten()
    total = np.zeros(len(rows), np.int64)
    for column in columns:
        total += array_sizes(column)
    return total


def array_sizes(array: pa.Array) -> Sizes:
    """Bytes of each of N values of any type (N,)."""
    kind = array.type
    if pa.types.is_struct(kind):
        sizes = row_sizes(array)
    elif pa.types.is_list(kind):
        lengths = _lengths(pc.list_value_length(array))
        inner = np.concatenate([[0], np.cumsum(array_sizes(array.flatten()))])  # flatten leaves out null lists
        ends = np.cumsum(lengths)
        sizes = inner[ends] - inner[ends - lengths] + 4
    elif pa.types.is_fixed_size_list(kind):
        valid = array.drop_null() if array.null_count else array
        inner = array_sizes(valid.flatten()).reshape(len(valid), kind.list_size).sum(axis=1)
        sizes = np.zeros(len(array), np.int64)
        sizes[array.is_valid().to_numpy(zero_copy_only=False)] = inner
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        sizes = _lengths(pc.binary_length(array)) + 4
    elif pa.types.is_null(kind):
        sizes = np.zeros(len(array), np.int64)
    else:
        sizes = np.full(len(array), max(kind.bit_width // 8, 1), np.int64)
    if array.null_count:
        sizes = np.where(array.is_valid().to_numpy(zero_copy_only=False), sizes, 0)
    return sizes


def _lengths(array: pa.Array) -> Sizes:
    return np.asarray(pc.fill_null(array, 0).to_numpy(zero_copy_only=False), np.int64)
