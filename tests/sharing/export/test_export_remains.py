"""What an export that ended early leaves behind: nothing in the way of the next one, and no half files after it."""

import os

import pytest
from exporting import make_mixed, run

from refloom.schemas.errors import Refused
from refloom.schemas.storage import TEMPORARY
from refloom.sharing.export.folder import Place


def test_files_that_a_killed_export_was_writing_are_gone_after_the_next_run(tmp_path):
    place = Place(str(tmp_path / "out"), {"format": "coco"})
    assert place.claim() is None
    (tmp_path / "out/images").mkdir()
    dead = 2**22 + 1  # no process has a number so large
    for name in ("images/a.jpg", "instances.json"):
        (tmp_path / f"out/{name}.{dead}{TEMPORARY}").write_bytes(b"half")
    (tmp_path / f"out/own.{os.getpid()}{TEMPORARY}").write_bytes(b"half")
    (tmp_path / f"out/other.{os.getppid()}{TEMPORARY}").write_bytes(b"another writes here")
    assert place.claim() is None
    left = [path.name for path in (tmp_path / "out").rglob(f"*{TEMPORARY}")]
    assert left == [f"other.{os.getppid()}{TEMPORARY}"]


def test_a_finished_export_is_swept_too(tmp_path):
    place = Place(str(tmp_path / "out"), {"format": "coco"})
    place.claim()
    place.finish({})
    (tmp_path / f"out/a.{2**22 + 1}{TEMPORARY}").write_bytes(b"half")
    assert place.claim() == {}
    assert not list((tmp_path / "out").glob(f"*{TEMPORARY}"))


def test_a_refused_export_leaves_its_folder_free(tmp_path):
    dataset = make_mixed(tmp_path)
    with pytest.raises(Refused, match="has no samples"):
        run(dataset, tmp_path / "out", "webdataset", split="validation", limit=1)
    assert not list((tmp_path / "out").iterdir())
    assert run(dataset, tmp_path / "out", "coco") == 0


@pytest.mark.parametrize("data", [b"{", b"7", b"[" * 100_000, b"\xff"])
def test_a_damaged_note_of_an_export_is_refused(tmp_path, data):
    (tmp_path / "export.json").write_bytes(data)
    with pytest.raises(Refused, match="give a new or empty folder"):
        Place(str(tmp_path), {"format": "coco"}).claim()


def test_a_note_that_says_nothing_sound_of_what_was_written_is_passed_over(tmp_path):
    (tmp_path / "export.json").write_bytes(b'{"written": 3, "format": "coco"}')
    assert Place(str(tmp_path), {"format": "coco"}).claim() == {}
