"""How a command ends that could not do its work: one line, no traceback, and an exit code that means it."""

import errno
import io
import os
import re
import sys
from pathlib import Path

import pytest
from commands import own_signals, run

from refloom import cli
from refloom.cli import ingest as command
from refloom.schemas import foreseen
from refloom.schemas.errors import JobStopped, Refused


@pytest.fixture(autouse=True)
def _signals():
    with own_signals():
        yield


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what it is given."""

    def fails(error: BaseException) -> None:
        def raises(options: object) -> int:
            raise error

        monkeypatch.setattr(command, "status", raises)

    return fails


def one_line(text: str) -> str:
    assert "Traceback" not in text
    (line,) = text.splitlines()
    assert line.startswith("refloom: ")
    return line


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ValueError("two\nlines"), AssertionError(), RecursionError("deep"), Exception(), OSError("?")],
)
def test_an_unforeseen_error_is_one_line_with_its_trace_kept_and_an_exit_code_of_its_own(
    capsys, failing, monkeypatch, tmp_path, error
):
    monkeypatch.setattr(foreseen.tempfile, "tempdir", str(tmp_path))
    failing(error)
    answer = run(capsys, "status", "anywhere")
    assert answer.code == foreseen.UNFORESEEN == 4
    line = one_line(answer.err)
    (kept,) = tmp_path.glob("refloom-error-*.txt")
    assert str(kept) in line
    assert type(error).__name__ in line
    assert "Traceback" in kept.read_text()
    assert "raises" in kept.read_text()


def test_a_trace_that_cannot_be_kept_is_said_so(capsys, failing, monkeypatch, tmp_path):
    monkeypatch.setattr(foreseen.tempfile, "tempdir", str(tmp_path / "absent"))
    failing(KeyError("x"))
    answer = run(capsys, "status", "anywhere")
    assert answer.code == 4
    assert "could not be kept" in one_line(answer.err)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EROFS, 2),
        (errno.EACCES, 2),
        (errno.EPERM, 2),
        (errno.ENOTDIR, 2),
        (errno.ENAMETOOLONG, 2),
        (errno.EFBIG, 3),
        (errno.EIO, 3),
        (errno.ENOSPC, 3),
        (errno.EDQUOT, 3),
        (errno.EMFILE, 3),
        (errno.ENOMEM, 3),
        (errno.ESTALE, 3),
    ],
)
def test_what_the_system_says_is_one_line_with_the_place_and_a_remedy(capsys, failing, number, code):
    failing(OSError(number, os.strerror(number), "/the/place"))
    answer = run(capsys, "status", "anywhere")
    assert answer.code == code
    line = one_line(answer.err)
    assert "/the/place" in line
    assert re.search(r"give|check|raise|free|run|close", line)


def test_no_memory_stops_and_a_package_that_is_absent_is_refused(capsys, failing):
    failing(MemoryError())
    answer = run(capsys, "status", "anywhere")
    assert (answer.code, one_line(answer.err).count("--workers")) == (3, 1)
    failing(ModuleNotFoundError("No module named 'nowhere'", name="nowhere"))
    answer = run(capsys, "status", "anywhere")
    assert (answer.code, "nowhere" in one_line(answer.err)) == (2, True)


@pytest.mark.parametrize(("error", "code"), [(Refused("a\nb"), 2), (JobStopped("a\nb"), 3)])
def test_our_own_errors_are_one_line_even_where_they_hold_several(capsys, failing, error, code):
    failing(error)
    answer = run(capsys, "status", "anywhere")
    assert (answer.code, one_line(answer.err)) == (code, "refloom: a b")


def test_a_reader_that_has_gone_is_no_error_of_ours(capsys, failing):
    failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    answer = run(capsys, "status", "anywhere")
    assert (answer.code, answer.err) == (foreseen.CLOSED_PIPE, "")


def test_a_value_that_no_range_holds_is_refused_before_anything_is_done(capsys):
    answer = run(capsys, "curate", "anywhere", "--workers", "-1")
    assert answer.code == 2
    assert "Traceback" not in answer.err


def test_names_that_a_terminal_cannot_show_are_escaped(monkeypatch, failing):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(command, "status", lambda options: print("caf\u00e9 \udcff") or 0)
    assert cli.main(["status", "anywhere"]) == 0
    assert stream.buffer.getvalue() == b"caf\\xe9 \\udcff\n"


def test_a_dataset_on_a_read_only_disk_is_refused_with_words(capsys, monkeypatch, tmp_path):
    def read_only(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(Path(__file__).read_bytes())
    monkeypatch.setattr("refloom.schemas.storage.os.makedirs", read_only)
    answer = run(capsys, "ingest", "folder", tmp_path / "pictures", "--out", tmp_path / "data", "--workers", "0")
    assert answer.code == 2
    assert "give a place" in one_line(answer.err)
