"""Features that a stranger made: what is of no type or shape is said in a line, and nothing is made of it."""

import json
import zlib

import pytest

from refloom.schemas.errors import Refused, Rejected
from refloom.training.features.store import FEATURES, Store, Summary
from refloom.training.features.tables import unpack

SOUND = {"settings": {}, "variants": 1, "samples": "x", "whole": True, "units": {"a": 3}}


def row(data: bytes = bytes(16), **values: object) -> dict[str, object]:
    return {"key": "k", "dtype": "float32", "shape": [4], "crc32": zlib.crc32(data), "data": data} | values


def test_a_tensor_that_is_sound_is_unpacked():
    assert unpack(row()).shape == (4,)


@pytest.mark.parametrize(
    "values",
    [
        {"dtype": "no such type"},
        {"dtype": None},
        {"shape": [1 << 40]},
        {"shape": [-1, -1]},
        {"shape": None},
        {"shape": [3]},
        {"data": b"", "crc32": 0},
        {"data": b"abc", "crc32": zlib.crc32(b"abc"), "shape": [1]},
        {"crc32": 1},
    ],
)
def test_what_is_of_no_tensor_is_rejected(values):
    with pytest.raises(Rejected, match="the features 'k'"):
        unpack(row(**values))


@pytest.mark.parametrize(
    "values",
    [
        *({name: wrong} for name in SOUND for wrong in (None, [], 1.5)),
        {"variants": 0},
        {"variants": True},
        {"units": {"a": -1}},
        {"units": {"a": "b"}},
        {"more": 1},
    ],
)
def test_a_summary_of_other_types_is_refused(tmp_path, values):
    (tmp_path / FEATURES).write_text(json.dumps(SOUND | values))
    with pytest.raises(Refused, match="is not what `refloom cache` writes"):
        Store(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 200_000, '{"settings": ' * 100_000])
def test_what_is_no_summary_is_refused(tmp_path, text):
    (tmp_path / FEATURES).write_text(text)
    with pytest.raises(Refused, match="is not what `refloom cache` writes"):
        Store(str(tmp_path))


def test_a_sound_summary_is_read(tmp_path):
    (tmp_path / FEATURES).write_bytes(Summary(**SOUND).to_json())
    assert Store(str(tmp_path)).summary == Summary(**SOUND)
