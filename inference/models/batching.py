"""Batches that fit into memory: halved when it runs out, grown again when it does not. Not for any one model."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from refloom.schemas.errors import Failed

Result = TypeVar("Result")

_GROW_AFTER = 8
_CPU_ALLOCATOR = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")


class MicroBatches:
    """Runs a function over items in batches of at most a limit, and remembers what fitted.

    A batch that runs out of memory is halved and tried again; after `grow_after` full batches in a row that fitted, the
    next one is twice as large, up to the limit. The results are those of one batch, except for the rounding of the
    function itself.

    Args:
        limit: items in a batch, from 1.
        grow_after: full batches that must fit before a larger one is tried.

    Raises:
        ValueError: `limit` or `grow_after` is below 1.
    """

    def __init__(self, limit: int, *, grow_after: int = _GROW_AFTER) -> None:
        if limit < 1 or grow_after < 1:
            raise ValueError(f"limit and grow_after are at least 1, not {limit} and {grow_after}")
        self._limit, self._grow_after = limit, grow_after
        self._size, self._fitted = limit, 0

    @property
    def size(self) -> int:
        """Items in the next batch, 1 to the limit."""
        return self._size

    def run(self, fn: Callable[[Any], Sequence[Result]], items: Any, *, cap: int | None = None) -> list[Result]:
        """The results of `fn` for all items, in their order.

        Args:
            fn: takes a slice of `items`, gives a sequence; it must be safe to call again after it ran out of memory.
            items: whatever has a length and slices: a list, an array (N, ...), a tensor (N, ...).
            cap: items in a batch of this call, from 1, where these are larger than usual.

        Raises:
            Failed: `out_of_memory`, for a batch of one.
        """
        done: list[Result] = []
        start = 0
        while start < len(items):
            part = items[start : start + min(self._size, max(1, cap or self._limit))]
            results = _attempt(fn, part)
            if results is None:
                self._shrink(len(part))
                continue
            done.extend(results)
            start += len(part)
            self._grow(len(part))
        return done

    def _shrink(self, tried: int) -> None:
        # only now: the failed attempt's tensors lived as long as its traceback
        torch.cuda.empty_cache()  # does nothing before CUDA is in use
        self._fitted = 0
        self._size = max(1, tried // 2)
        if tried <= 1:
            raise Failed("out_of_memory", "a batch of one does not fit")

    def _grow(self, fitted: int) -> None:
        if fitted < self._size or self._size == self._limit:
            return
        self._fitted += 1
        if self._fitted == self._grow_after:
            self._size, self._fitted = min(self._limit, 2 * self._size), 0


def _attempt(fn: Callable[[Any], Sequence[Result]], part: Any) -> Sequence[Result] | None:
    """What the function gives, or None if memory ran out."""
    try:
        return fn(part)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the host or the device ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error)  # torch raises a plain RuntimeError where the host has no more, cuBLAS and cuDNN for the device
    return (
        "out of memory" in said.lower()
        or "CUBLAS_STATUS_ALLOC_FAILED" in said
        or any(words in said for words in _CPU_ALLOCATOR)
    )
