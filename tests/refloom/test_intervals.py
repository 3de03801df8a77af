"""Shares of the benchmarks: their intervals come from whole clusters, and do not vanish where nothing differs."""

import pytest

from benchmarks.intervals import share


def test_the_interval_is_that_of_clusters():
    even = share({f"c{number}": (8, 10) for number in range(20)})
    uneven = share({f"c{number}": ((10, 10) if number % 5 else (0, 10)) for number in range(20)})
    assert even.value == uneven.value == 0.8
    assert even.low == even.high == 0.8
    assert uneven.low < 0.65
    assert uneven.high > 0.9
    assert even.count == 200


def test_all_or_none_of_few_clusters_says_little():
    every, none = share({f"c{number}": (5, 5) for number in range(8)}), share({"a": (0, 3), "b": (0, 9)})
    assert (every.value, every.high) == (1, 1)
    assert every.low == pytest.approx(0.05 ** (1 / 8))
    assert (none.value, none.low) == (0, 0)
    assert none.high > 0.7


def test_nothing_to_count_is_an_error():
    with pytest.raises(ValueError, match="nothing to count"):
        share({"a": (0, 0)})
