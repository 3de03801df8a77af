"""Progress: what a line says, how it is redrawn on a terminal, and how seldom it is printed elsewhere."""

import io
import re
import time
from collections import Counter

import pytest

from refloom.ingest.engine.pool import Status
from refloom.ingest.engine.progress import Progress, duration, line


def status(elapsed_s: float = 10.0, **more: object) -> Status:
    """Half of 100 pictures in 10 s, in 2 of 4 units."""
    tally = Counter({"begun": 50, "bytes": 20_000_000, "image.kept": 48, "image.rejected": 2})
    values = {"units": 4, "weight": 100, "done": 2, "weight_done": 50, "tally": tally, **more}
    return Status(started=time.monotonic() - elapsed_s, **values)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_says_units_items_rates_rejects_and_time_left():
    parts = line("ingest", "image", status()).split("  ")
    assert [part for part in parts if part] == [
        "ingest",
        "2/4 units",
        "50 images",
        "5 images/s",
        "2.0 MB/s",
        "2 rejected",
        "10 s left",
    ]


def test_slow_work_has_a_rate_too():
    assert "0.25 cases/s" in line("make", "case", status(elapsed_s=200.0))


def test_rejected_and_failed_items_of_all_kinds_are_counted_and_failures_are_silent_when_there_are_none():
    tally = Counter({"begun": 9, "image.rejected": 2, "annotation.rejected": 1_500, "image.failed": 3})
    shown = line("look", "image", status(tally=tally))
    assert "1,502 rejected" in shown
    assert "3 failed" in shown
    assert "failed" not in line("look", "image", status())


def test_dead_workers_are_told_only_if_there_are_any():
    assert "2 workers restarted" in line("look", "image", status(restarts=2))
    assert "restarted" not in line("look", "image", status())


def test_the_time_left_counts_items_of_units_under_work_and_never_more_than_there_are():
    def left(begun: int, weight_done: int) -> str:
        return line("x", "image", status(tally=Counter(begun=begun), weight_done=weight_done)).rsplit("  ", 1)[1]

    assert left(begun=25, weight_done=0) == "30 s left"
    assert left(begun=25, weight_done=75) == "3 s left"  # units that were there count too
    assert left(begun=400, weight_done=0) == "0 s left"  # items of compose are not those of the weight


def test_nothing_begun_has_no_time_left_and_all_done_has_none_to_tell():
    assert line("x", "image", status(tally=Counter(), weight_done=0)).endswith("?  left")
    assert line("x", "image", status(done=4, weight_done=100)).endswith("  done")


def test_the_first_instant_divides_by_nothing():
    assert "0 images/s" in line("x", "image", status(elapsed_s=0.0, tally=Counter(), weight_done=0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (75.0, "1 min 15 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (7_380.0, "2 h 3 min"),
        (100_000.0, "27 h 46 min"),
    ],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_shows_one_line_that_is_redrawn():
    stream = Terminal()
    progress = Progress("ingest", stream=stream)
    for done in (1, 2, 3):
        progress(status(done=done))
    assert "\n" not in stream.getvalue()
    drawn = stream.getvalue().split("\r")
    assert drawn[0] == ""
    assert [re.findall(r"\d/\d", text) for text in drawn[1:]] == [["1/4"], ["2/4"], ["3/4"]]
    progress.close()
    assert stream.getvalue().endswith("left\n")


def test_a_file_gets_a_plain_line_now_and_then_and_the_last_one():
    stream = io.StringIO()
    progress = Progress("look", "sample", stream=stream)
    for done in (1, 2, 3, 4):
        progress(status(done=done))
    assert len(stream.getvalue().splitlines()) <= 1, "more than a line in ten seconds"
    progress.close()
    assert "\r" not in stream.getvalue()
    assert "\033" not in stream.getvalue()
    assert "4/4 units" in stream.getvalue().splitlines()[-1]
    assert "50 samples" in stream.getvalue().splitlines()[-1]


def test_a_job_without_work_prints_no_line():
    stream = io.StringIO()
    Progress("ingest", stream=stream).close()
    assert stream.getvalue() == ""
