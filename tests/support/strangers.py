"""What a stranger may hand us: a sound document with one thing changed, and values of every type."""

import copy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 3, 10**6, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e300, float("nan"), float("inf")]),
    st.sampled_from(["", "x", "1", "../x", "/etc/passwd", "a\0b", "\ud800", "é", "%s{}", "a" * 3000, "\n", "`id`"]),
)
_KEYS = st.sampled_from(["", "id", "path", "*", "é", "a.b"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3))

often = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
seldom = settings(often, max_examples=20)


def places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document, the document itself first."""
    found = [where]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*where, key))
    return found


@st.composite
def changed(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """A document with one thing replaced, taken away, doubled or nested."""
    where = draw(st.sampled_from(places(document)))
    how = draw(st.sampled_from(["replace", "replace", "take", "wrap", "deep", "more"]))
    if not where:
        return draw(values)
    whole = copy.deepcopy(document)
    inner = whole
    for key in where[:-1]:
        inner = inner[key]
    last, present = where[-1], inner[where[-1]]
    if how == "take":
        del inner[last]
    elif how == "wrap":
        inner[last] = [present]
    elif how == "deep":
        inner[last] = _deep(draw(st.sampled_from([3, 90, 400])))
    elif how == "more" and isinstance(present, dict):
        present[draw(_KEYS)] = draw(values)
    elif how == "more" and isinstance(present, list):
        present.append(draw(values))
    else:
        inner[last] = draw(values)
    return whole


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def spoilt(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with a few of them replaced, or cut."""

    def spoil(changes: list[tuple[int, bytes]], end: int) -> bytes:
        raw = bytearray(data)
        for start, new in changes:
            raw[start : start + len(new)] = new
        return bytes(raw[:end])

    pieces = st.binary(min_size=1, max_size=24) | st.sampled_from(
        [b"\xff" * 12, b"\x80" + b"\x00" * 11, b"77777777777", b"-1", b" " * 12, b"x", b"L", b"S", b"g", b"K"]
    )
    where = st.tuples(st.integers(0, len(data) - 1), pieces)
    return st.builds(spoil, st.lists(where, min_size=1, max_size=4), st.integers(0, len(data)) | st.just(len(data)))
