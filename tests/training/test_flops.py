"""FLOPs of a micro-batch: those that torch counts itself, once each, without a trace."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from traindata import recipe

from refloom.training.data.loader import Loader
from refloom.training.methods.known import METHODS
from refloom.training.run import flops, optimizer


@pytest.fixture(scope="module")
def counted(models: Path, url: str) -> dict[bool, tuple[int, int, int]]:
    """By whether activations are kept: our count, torch's, and our count of a micro-batch twice as large."""
    found = {}
    for again in (False, True):
        one = recipe("ip_adapter", models, url, f"gradient_checkpointing={str(again).lower()}")
        method = METHODS[one.method]
        with Loader(one.data.sources, one.view, one.loading) as loader:
            examples = next(loader).examples
        with method.ready(one, torch.device("cpu")) as adapter:
            named = optimizer.tune(adapter, one.tuned)
            step = method.step(adapter, one)
            ours = [flops.of_micro_batch(step, many, named.values()) for many in (examples[:2], examples)]
            assert all(parameter.grad is None for parameter in adapter.parameters())
            with ExitStack() as conditioned, FlopCounterMode(display=False) as counter:
                step(examples[:2], conditioned).backward()
            found[again] = (ours[0], counter.get_total_flops(), ours[1])
    return found


def test_they_are_those_that_torch_counts(counted: dict[bool, tuple[int, int, int]]) -> None:
    ours, theirs, _ = counted[False]
    assert ours == theirs > 10**6


def test_what_is_computed_again_to_save_memory_counts_once(counted: dict[bool, tuple[int, int, int]]) -> None:
    ours, theirs, _ = counted[True]
    assert ours == counted[False][0]
    assert theirs > 1.1 * ours


def test_twice_the_samples_are_twice_the_work(counted: dict[bool, tuple[int, int, int]]) -> None:
    assert counted[False][2] == pytest.approx(2 * counted[False][0], rel=0.02)
