"""What is written as json is json: every reader takes it, whatever numbers came out."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refloom.ingest import jsons
from refloom.schemas import strict
from refloom.schemas.manifest import Counts
from refloom.sharing.publish import spill
from refloom.training.features.store import Summary
from refloom.training.run import checkpoint

ODD = {"a": [math.nan, {"b": -math.inf, "c": 1.5}], "d": (np.float64("nan"), "é")}
EVEN = {"a": [None, {"b": None, "c": 1.5}], "d": [None, "é"]}


def read(text: str | bytes) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no json")

    return json.loads(text, parse_constant=refuse)


def saved(folder: Path, write: Callable[[Path], object]) -> bytes:
    write(folder)
    (file,) = [one for one in folder.iterdir() if one.is_file()]
    return file.read_bytes()


def test_numbers_that_are_not_finite_are_null() -> None:
    assert read(strict.dumps(ODD)) == EVEN
    assert read(strict.dumps(ODD, indent=1, sort_keys=True, ensure_ascii=False)) == EVEN
    assert strict.finite(ODD) == EVEN
    assert strict.dumps({"b": 1, "a": 0.1}) == json.dumps({"b": 1, "a": 0.1})


def test_a_table_of_what_a_source_said_holds_no_bare_nan() -> None:
    lone = {"name": "\ud800", "score": math.nan}  # which the fast way cannot write
    assert read(jsons.compact(lone)) == {"name": "\ud800", "score": None}


WRITERS: dict[str, Callable[[Path], object]] = {
    "state of a checkpoint": lambda folder: checkpoint.write_state(folder, {"scaler": ODD}),
    "state of a publication": lambda folder: spill.save_json(folder / "state.json", ODD),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_is_written_is_json(what: str, tmp_path: Path) -> None:
    text = saved(tmp_path, WRITERS[what])
    assert b"NaN" not in text
    assert read(text)


def test_features_say_what_they_are_of_in_json() -> None:
    assert read(Summary({"x": math.inf}, 1, "f", True, {}).to_json())["settings"] == {"x": None}
    assert Counts().input == 0
