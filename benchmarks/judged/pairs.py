"""Pairs of things that share a group, against who or what they truly are."""

from collections import defaultdict
from collections.abc import Callable, Mapping

Pair = tuple[str, str]


def right(grouped: set[Pair], true: Callable[[str], str]) -> dict[str, tuple[int, int]]:
    """True name to its right pairs and its pairs; a wrong pair counts for the first of the two.

    Args:
        grouped: pairs that share a group.
        true: member to the person or subject that it shows.
    """
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for one, other in sorted(grouped):
        hits, every = counts[true(one)]
        counts[true(one)] = hits + (true(one) == true(other)), every + 1
    return counts


def found(grouped: Mapping[str, set[Pair]], expected: Mapping[str, set[Pair]]) -> dict[str, tuple[int, int]]:
    """True name to its pairs that were found, and all of its pairs.

    Args:
        grouped: true name to the pairs that share a group, as they are grouped for it.
        expected: true name to its pairs.
    """
    return {name: (len(grouped[name] & wanted), len(wanted)) for name, wanted in expected.items()}


def wrong(grouped: set[Pair], true: Callable[[str], str]) -> list[Pair]:
    """Pairs that share a group and should not."""
    return sorted(pair for pair in grouped if true(pair[0]) != true(pair[1]))


def best(
    by_bound: Mapping[float, set[Pair]],
    expected: Mapping[str, set[Pair]],
    true: Callable[[str], str],
    *,
    without: str,
    strictest: bool,
    least: float = 0.98,
) -> float:
    """The bound with the largest recall at enough precision, on all but one person or subject.

    Args:
        by_bound: bound to the pairs that share a group by it.
        expected: true name to its pairs.
        true: member to its true name.
        without: the true name that is left out.
        strictest: whether the highest or the lowest of equals is taken.
        least: precision.
    """
    scored = []
    for bound, pairs in by_bound.items():
        left = [pair for pair in pairs if without not in map(true, pair)]
        hits = sum(true(one) == true(other) for one, other in left)
        recalled = sum(len(pairs & wanted) for name, wanted in expected.items() if name != without)
        scored.append((bool(left) and hits / len(left) >= least, recalled, bound if strictest else -bound, bound))
    return max(scored)[3]
