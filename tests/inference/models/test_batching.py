"""Batches that run out of memory: halved, grown back, and nothing lost."""

from collections.abc import Callable

import pytest
import torch

from refloom.inference.models import batching
from refloom.inference.models.batching import MicroBatches
from refloom.schemas.errors import Failed


def runs_out_above(most: int, error: Callable[[], Exception]) -> tuple[Callable[[list[int]], list[int]], list[int]]:
    """A function that squares up to `most` numbers at once, and the sizes it was asked for."""
    sizes: list[int] = []

    def square(part: list[int]) -> list[int]:
        sizes.append(len(part))
        if len(part) > most:
            raise error()
        return [number**2 for number in part]

    return square, sizes


ERRORS = [
    MemoryError,
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["host", "cuda", "torch on the host", "cublas"])
def test_batches_halve_until_they_fit_and_lose_nothing(error: Callable[[], Exception]):
    square, sizes = runs_out_above(3, error)
    batches = MicroBatches(16)
    assert batches.run(square, list(range(10))) == [n**2 for n in range(10)]
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert batches.size == 2
    assert batches.run(square, []) == []


def test_batches_grow_back_step_by_step_to_the_limit():
    most = [1]

    def fits(part: list[int]) -> list[int]:
        if len(part) > most[0]:
            raise MemoryError
        return part

    batches = MicroBatches(8, grow_after=3)
    assert batches.run(fits, list(range(20))) == list(range(20))
    assert batches.size <= 2
    most[0] = 100
    seen = []
    for _ in range(12):
        batches.run(fits, list(range(8)))
        seen.append(batches.size)
    assert seen[-1] == 8
    assert seen == sorted(seen)
    assert 4 in seen


def test_a_batch_of_one_that_does_not_fit_fails_and_the_next_picture_goes_on():
    square, sizes = runs_out_above(0, MemoryError)
    batches = MicroBatches(4)
    with pytest.raises(Failed) as failed:
        batches.run(square, list(range(4)))
    assert failed.value.reason == "out_of_memory"
    assert sizes == [4, 2, 1]
    assert batches.run(lambda part: part, [1, 2]) == [1, 2]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    square, sizes = runs_out_above(0, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        MicroBatches(4).run(square, [1, 2])
    assert sizes == [2]
    with pytest.raises(ValueError, match="at least 1"):
        MicroBatches(0)


def test_a_cap_bounds_one_call_only():
    square, sizes = runs_out_above(99, MemoryError)
    batches = MicroBatches(4)
    batches.run(square, list(range(4)), cap=3)
    batches.run(square, list(range(4)))
    assert sizes == [3, 1, 4]


def test_is_out_of_memory_knows_what_it_is_not():
    assert not batching.is_out_of_memory(ValueError("shape"))
    assert not batching.is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
