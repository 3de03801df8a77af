"""The order of the stream without any file: permutations, weights, buckets, positions far out."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.schemas.errors import Refused
from refloom.training.data.buckets import Buckets, around
from refloom.training.data.catalogue import Catalogue
from refloom.training.data.mixture import BLOCK, Mixture, quotas
from refloom.training.data.order import Order
from refloom.training.data.plan import Plan
from refloom.training.data.state import State


def of_counts(counts: np.ndarray) -> Catalogue:
    """A catalogue whose rows have one target each, landscape or portrait in turn."""
    rows = int(counts.sum())
    sizes = np.where(np.arange(rows)[:, None] % 2, [[64, 48]], [[48, 64]]).astype(np.uint16)
    return Catalogue(
        counts.astype(np.int64),
        counts.astype(np.int64) * 1000,
        np.concatenate([np.arange(count) for count in counts]).astype(np.int32),
        np.arange(rows + 1),
        np.zeros(rows, np.uint16),
        sizes,
        {},
    )


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    window_bytes=st.integers(1, 400),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_epoch_holds_every_row_once_and_windows_are_read_one_after_the_other(
    counts: list[int], window_bytes: int, seed: int
) -> None:
    sizes = np.array(counts) * 10
    order = Order(np.array(counts), sizes, seed=seed, window_bytes=window_bytes)
    wanted = {(group, row) for group, count in enumerate(counts) for row in range(count)}
    for epoch in range(3):
        places = [order(number) for number in range(epoch * order.rows, (epoch + 1) * order.rows)]
        assert {(place.group, place.row) for place in places} == wanted
        assert [place.window for place in places] == sorted(place.window for place in places)
        assert {place.epoch for place in places} == {epoch}
        for window in {place.window for place in places}:
            groups = {place.group for place in places if place.window == window}
            assert sizes[list(groups)].sum() <= window_bytes + sizes.max()


def test_epochs_windows_and_datasets_are_mixed_differently() -> None:
    counts = np.full(8, 50)
    order = Order(counts, counts, seed=1, window_bytes=200)
    first = [(order(number).group, order(number).row) for number in range(400)]
    assert first != [(order(400 + number).group, order(400 + number).row) for number in range(400)]
    other = Order(counts, counts, seed=1, source=1, window_bytes=200)
    assert first != [(other(number).group, other(number).row) for number in range(400)]
    assert [row for _, row in first[:200]] != [row for _, row in first[200:]]


def test_rows_of_one_row_group_are_in_another_order_in_every_epoch() -> None:
    """Where there is one group its place cannot change, so that rows alone tell epochs apart."""
    order = Order(np.array([40]), np.array([1]), seed=1, window_bytes=100)
    epochs = [tuple(order(40 * epoch + at).row for at in range(40)) for epoch in range(3)]
    assert len(set(epochs)) == 3
    assert all(sorted(rows) == list(range(40)) for rows in epochs)


def test_a_sample_far_out_is_found_in_the_time_of_the_first() -> None:
    counts = np.random.default_rng(0).integers(100, 500, 20_000)
    plan = Plan([of_counts(counts[:4000]), of_counts(counts[4000:6000])], [2, 1], Buckets(around(64, step_px=8)),
                global_batch=32, seed=3, window_bytes=4_000_000)  # fmt: skip
    began = time.process_time()
    far = plan.next(State(10**9 - 16, 10**9, ((),) * (len(plan.buckets) - 1) + (tuple(range(10**9 - 16, 10**9)),)))
    taken = time.process_time() - began
    assert taken < 0.5, f"{taken} s"
    assert far.state.samples == 10**9 + 16
    assert all(10**9 - 16 <= draw.position < far.state.position for draw in far.draws)
    assert [draw.place.epoch > 100 for draw in far.draws] == [True] * 32


@settings(max_examples=50, deadline=None)
@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_weights_hold_in_every_block_and_each_dataset_counts_on_by_one(weights: list[float], seed: int) -> None:
    mixture = Mixture(weights, seed=seed)
    start = 5 * BLOCK
    seen = [mixture(position) for position in range(start, start + BLOCK)]
    for source, weight in enumerate(weights):
        numbers = [number for found, number in seen if found == source]
        assert abs(len(numbers) - weight / sum(weights) * BLOCK) <= 1
        assert numbers == list(range(5 * len(numbers), 6 * len(numbers)))


def test_datasets_of_a_block_are_mixed() -> None:
    mixture = Mixture([1, 1], seed=0)
    sources = [mixture(position)[0] for position in range(64)]
    assert 20 < sum(sources) < 44
    assert sources != [mixture(position)[0] for position in range(BLOCK, BLOCK + 64)]


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, 1e-6]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(Refused, match="weights"):
        quotas(weights)


@given(width=st.integers(16, 4000), height=st.integers(16, 4000))
def test_the_bucket_is_the_nearest_aspect(width: int, height: int) -> None:
    buckets = Buckets(around(512))
    distances = [abs(np.log(width / height / (size[1] / size[0]))) for size in buckets.sizes]
    assert distances[buckets.of(width, height)] == pytest.approx(min(distances))


def test_buckets_have_about_one_area_and_stay_within_their_aspect() -> None:
    sizes = around(1024)
    assert (1024, 1024) in sizes
    assert {(832, 1216), (1216, 832), (896, 1152), (768, 1344)} <= set(sizes)  # of SDXL's own list
    assert all(max(size) <= 2 * min(size) for size in sizes)
    assert all(0.92 < height * width / 1024**2 <= 1 for height, width in sizes)
    assert len({size[1] / size[0] for size in sizes}) == len(sizes)


def test_global_batches_have_one_bucket_and_take_their_samples_in_order() -> None:
    plan = Plan(
        [of_counts(np.full(10, 30))], [1], Buckets(((64, 48), (48, 64))), global_batch=16, seed=9, window_bytes=90_000
    )
    state, taken = plan.begin(), []
    for _ in range(40):
        planned = plan.next(state)
        assert len({draw.bucket for draw in planned.draws}) == 1
        assert planned.size == plan.buckets.sizes[planned.draws[0].bucket]
        assert list(planned.draws) == sorted(planned.draws, key=lambda draw: draw.place)
        taken += [draw.position for draw in planned.draws]
        state = planned.state
    left = [position for waiting in state.waiting for position in waiting]
    assert sorted(taken + left) == list(range(state.position)), "no sample is lost or taken twice"
    assert state.samples == 640
