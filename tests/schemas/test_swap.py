"""`schemas.swap`: a folder is the old one or the new one, whole, whatever ends the run that makes the new one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from refloom.schemas import swap
from refloom.schemas.swap import replacing

ROOT = Path(swap.__file__).parents[1]


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "mine.txt"):
        (folder / name).write_text(f"old {name}")
    return folder


def held(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}


OLD = {name: f"old {name}" for name in ("a.txt", "b.txt", "mine.txt")}


def test_the_new_one_takes_the_place_when_it_is_whole_and_takes_along_what_is_to_be_kept(place):
    with replacing(place, keep=lambda name: name == "mine.txt") as fresh:
        (fresh / "a.txt").write_text("new")
        assert held(place) == OLD
    assert held(place) == {"a.txt": "new", "mine.txt": "old mine.txt"}
    assert [one.name for one in place.parent.iterdir()] == ["result"]


def test_there_need_not_be_an_old_one_and_a_link_is_followed(place, tmp_path):
    with replacing(tmp_path / "deep" / "first") as fresh:
        (fresh / "a.txt").write_text("new")
    assert held(tmp_path / "deep" / "first") == {"a.txt": "new"}
    (tmp_path / "link").symlink_to(place)
    with replacing(tmp_path / "link") as fresh:
        (fresh / "a.txt").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert held(place) == {"a.txt": "new"}


def test_a_failure_in_the_middle_leaves_the_old_one_and_nothing_beside(place):
    with pytest.raises(OSError, match="disk"), replacing(place) as fresh:
        (fresh / "a.txt").write_text("new")
        raise OSError("disk")
    assert held(place) == OLD
    assert [one.name for one in place.parent.iterdir()] == ["result"]


def test_a_kill_in_the_middle_leaves_the_old_one_and_the_next_run_is_not_in_its_way(place):
    code = f"""
import os, signal
from refloom.schemas.swap import replacing
with replacing({str(place)!r}) as fresh:
    (fresh / "a.txt").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert held(place) == OLD
    with replacing(place) as fresh:
        (fresh / "a.txt").write_text("newer")
    assert held(place) == {"a.txt": "newer"}
    assert [one.name for one in place.parent.iterdir()] == ["result"]


def test_where_names_cannot_be_exchanged_the_old_one_waits_beside_and_comes_back(place, monkeypatch):
    monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)
    with replacing(place) as fresh:
        (fresh / "a.txt").write_text("new")
    assert held(place) == {"a.txt": "new"}
    os.rename(place, swap.beside(place, "old"))  # killed between the two renames
    fresh = swap.beside(place, "new")
    fresh.mkdir()
    swap.take_place(fresh, place)
    assert held(place) == {}
