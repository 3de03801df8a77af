"""What a person sees of a job's progress: when a time left is told, how a line ends, and how often lines come."""

import fcntl
import io
import os
import re
import struct
import termios
from collections import Counter
from contextlib import suppress

import pytest

from refloom.ingest.engine.progress import Pace, Progress, Stages, TerminalLine
from refloom.ingest.engine.tasks import Status


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(done: int, units: int, begun: int = 0, started: float = 1000.0) -> Status:
    return Status(
        units=units, weight=10 * units, done=done, weight_done=10 * done, tally=Counter(begun=begun), started=started
    )


def lines(stream: io.StringIO) -> list[str]:
    """What stays on the screen: of each line what was drawn last."""
    return [text.rsplit("\r", 1)[-1].rstrip() for text in stream.getvalue().split("\n")[:-1]]


# -- the time left -------------------------------------------------------------------------------------------------


def test_no_time_is_told_while_models_load_and_their_loading_is_in_no_rate():
    pace = Pace()
    assert pace.left_s(0, 100, now=0.0) is None
    assert pace.left_s(1, 100, now=1.0) is None
    for now in range(2, 70):
        assert pace.left_s(1, 100, now=float(now)) is None, "the first item waits for a model"
    told = {done: pace.left_s(done, 100, now=70.0 + 2 * (done - 2)) for done in range(2, 12)}
    assert [done for done, left in told.items() if left is None] == [2, 3, 4]
    assert told[11] == pytest.approx(2 * 89), "two seconds an item, whatever the loading took"


def test_a_rate_of_a_moment_is_no_rate():
    pace = Pace()
    assert [pace.left_s(done, 1000, now=0.1 * done) for done in range(20)] == [None] * 20


def test_the_next_pass_over_the_data_has_a_pace_of_its_own():
    clock, stream = Clock(), io.StringIO()
    progress = Progress("dedup read", "unit", stream, clock)
    for begun in range(1, 9):
        clock.now += 10
        progress(status(0, 1, begun))
    assert "40 s left" in stream.getvalue()
    progress.turn("dedup write", "object")
    clock.now += 40
    progress(status(0, 100, 8, started=clock.now))
    assert lines(stream)[-1].endswith("?  left")


def test_items_that_are_not_those_of_the_weight_tell_no_time():
    clock, stream = Clock(), io.StringIO()
    progress = Progress("compose", "candidate", stream, clock)
    for begun in (1, 9, 40, 80, 160):
        clock.now += 31
        progress(status(0, 2, begun))
    assert lines(stream)[-1].endswith("?  left"), "not 0 s: both units are under work"


# -- how a line ends -----------------------------------------------------------------------------------------------


def run_stages(stream: io.StringIO) -> None:
    with Stages(stream=stream) as show:
        for title, units in (("look", 2), ("select", 1), ("balance read", 1), ("balance write", 1), ("compose", 1)):
            shown = show(title, "image")
            for done in range(units + 1):
                shown(status(done, units, begun=10 * done))


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_each_stage_leaves_one_line_behind_that_says_done(stream):
    run_stages(stream)
    left = lines(stream)
    assert [text.split()[0] for text in left] == ["look", "select", "balance", "compose"]
    assert [re.search(r"(\d)/(\d) units", text).groups() for text in left] == [("2", "2"), *[("1", "1")] * 3]
    assert all(re.search(r"  done in \d", text) for text in left)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_a_stage_with_nothing_to_do_prints_nothing(stream):
    with Stages(stream=stream) as show:
        show("match", "image")
        show("group", "image")
    assert stream.getvalue() == ""


def test_what_stops_a_job_is_said_on_a_line_of_its_own():
    stream = Terminal()
    with suppress(KeyboardInterrupt), Stages(stream=stream) as show:
        show("look", "image")(status(0, 2, 3))
        raise KeyboardInterrupt
    print("refloom: stopped", file=stream)
    assert [text.split()[0] for text in lines(stream)] == ["look", "refloom:"]
    assert "0/2 units" in lines(stream)[0]
    assert "done" not in lines(stream)[0]


def test_a_stage_of_several_passes_tells_the_time_of_all():
    clock, stream = Clock(), io.StringIO()
    progress = Progress("balance read", "image", stream, clock)
    progress(status(1, 1, 10, started=clock.now))
    clock.now += 7
    progress.turn("balance write", "image")
    progress(status(1, 1, 10, started=clock.now))
    clock.now += 2
    progress.close()
    assert lines(stream)[-1].endswith("done in 9 s")
    progress.close()
    assert len(lines(stream)) == 1, "closing twice prints once"


# -- how often -----------------------------------------------------------------------------------------------------


def test_a_file_gets_a_line_each_half_minute():
    clock, stream = Clock(), io.StringIO()
    line = TerminalLine(stream, clock)
    for second in range(100):
        clock.now = 1000.0 + second
        line.show("look", second / 100, f"second {second}")
    assert lines(stream) == ["look      second 30", "look      second 60", "look      second 90"]


def test_a_terminal_is_not_redrawn_for_every_item():
    clock, stream = Clock(), Terminal()
    line = TerminalLine(stream, clock)
    for item in range(1000):
        clock.now += 0.001
        line.show("read", item / 1000, f"{item} rows")
    assert 5 <= stream.getvalue().count("\r") <= 12


@pytest.mark.parametrize(("columns", "most"), [(50, 49), (0, 10_000)])
def test_a_line_is_cut_at_the_width_of_the_terminal_where_it_says_one(columns, most):
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", columns, columns, 0, 0))
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb", buffering=0) as screen:
        TerminalLine(stream).show("look", 0.5, "x" * 200)
        drawn = screen.read(10_000).decode().strip("\r")
    assert drawn.startswith("look")
    assert len(drawn) == min(most, len(f"{'look':8}  {'#' * 12}  {'x' * 200}"))


def test_braces_in_a_title_are_no_fields():
    stream = Terminal()
    TerminalLine(stream).show("{look}", 0.5, "{bar} {n}")
    assert stream.getvalue().startswith("\r{look}")
    assert "{bar} {n}" in stream.getvalue()
