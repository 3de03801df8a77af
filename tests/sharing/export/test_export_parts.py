"""Exports that several workers write: the same bytes for any number of them, resumed after a stop, and a page."""

import errno
import os
from html.parser import HTMLParser
from pathlib import Path

import editsamples
import pytest
from commands import run as command
from exporting import run
from publishing import digests

from refloom.schemas import storage
from refloom.schemas.errors import JobStopped
from refloom.sharing.export import page
from refloom.sharing.export.edit.unit import EditWorker
from refloom.sharing.export.parts import Parts


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> str:
    return editsamples.write(tmp_path_factory.mktemp("parts") / "data", 4, 3)


def export(samples: str, out: Path, layout: str = "omnigen2", **options: object) -> int:
    return run(Path(samples), out, "edit", **{"layout": layout, "workers": 0, "item_timeout": None} | options)


@pytest.mark.processes
@pytest.mark.parametrize("layout", ["omnigen2", "bagel"])
def test_any_number_of_workers_writes_the_same_bytes(samples, tmp_path, layout):
    for workers in (0, 2):
        assert export(samples, tmp_path / str(workers), layout, workers=workers, item_timeout=300.0) == 0
    assert digests(tmp_path / "0") == digests(tmp_path / "2")


def test_twice_gives_the_same_bytes_and_another_seed_others(samples, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        export(samples, tmp_path / name, seed=seed)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


@pytest.mark.parametrize("layout", ["uno", "bagel"])
def test_a_stopped_export_goes_on_with_what_is_missing(samples, tmp_path, monkeypatch, layout):
    export(samples, tmp_path / "whole", layout)
    done: list[str] = []
    work = EditWorker.run

    def stop(self, task, watch):
        if len(done) == 2:
            raise JobStopped("enough")
        work(self, task, watch)
        done.append(task.unit)

    monkeypatch.setattr(EditWorker, "run", stop)
    with pytest.raises(JobStopped, match="enough"):
        export(samples, tmp_path / "out", layout)
    monkeypatch.undo()
    assert (tmp_path / "out/export.begun.json").is_file()
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.suffix in (".png", ".parquet")
    }
    assert before
    assert export(samples, tmp_path / "out", layout) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not (tmp_path / "out/export.parts").exists()


def test_a_damaged_note_of_a_part_is_written_again(samples, tmp_path, monkeypatch):
    export(samples, tmp_path / "whole")
    monkeypatch.setattr(Parts, "remove", lambda self: (_ for _ in ()).throw(JobStopped("stopped")))
    with pytest.raises(JobStopped):
        export(samples, tmp_path / "out")
    monkeypatch.undo()
    (tmp_path / "out/export.parts/train-00001.json").write_bytes(b'{"written": 3')
    assert export(samples, tmp_path / "out") == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_full_disk_ends_the_command_with_3(samples, tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    words = ["export", samples, tmp_path / "out", "--format", "edit", "--layout", "uno", "--workers", 0]
    answer = command(capsys, *words)
    assert answer.code == 3
    assert "no space left" in answer.err
    assert answer.err.count("Traceback") == 0
    monkeypatch.undo()
    assert command(capsys, *words).code == 0


class _Page(HTMLParser):
    """Elements of a page, and what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") and value]


def test_the_page_shows_examples_loads_nothing_and_escapes_what_the_dataset_says(tmp_path):
    def make(number):
        row, images = editsamples.every_kind(number)
        row["subjects"][0]["phrase"] = "<script>alert(1)</script>"
        row["pictures"][0]["captions"] = ["<img src=http://x/y>\u202e"]
        return row | {"sample_id": f'{row["sample_id"]}"><b>'}, images

    url = editsamples.write(tmp_path / "data", 2, 5, held_out=0, make=make)
    export(url, tmp_path / "out")
    text = (tmp_path / "out" / page.NAME).read_text()
    found = _Page()
    found.feed(text)
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert found.tags.count("article") == 8
    assert found.tags.count("img") == len(found.loads) > 16
    assert all(one.startswith("data:image/jpeg;base64,") for one in found.loads)
    assert "&lt;script&gt;" in text
    assert text.count('class="target"') == 8
    assert "default-src &#x27;none&#x27;" in text


def test_the_page_has_no_more_than_it_should(tmp_path):
    url = editsamples.write(tmp_path / "data", 2, 20, held_out=0, make=lambda n: editsamples.made("cross", n))
    export(url, tmp_path / "out")
    assert (tmp_path / "out" / page.NAME).read_text().count("<article") == page.MOST
    assert [page.share(tasks) for tasks in (0, 1, 4, 10, 1000)] == [12, 12, 12, 4, 1]
