"""Without Ray: one child process does the work, so that an item that hangs or kills costs itself, and no more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from enginejobs import Broken, Odd
from helpers import image_ids, ingest, ledger
from places import ROOT, SUPPORT

from refloom.ingest import apart, job
from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Task
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify


@pytest.fixture
def trace(tmp_path) -> str:
    (tmp_path / "trace").mkdir()
    return str(tmp_path / "trace")


def run(source: Odd, out: Path, timeout_s: float = 60.0) -> Dataset:
    job.ingest(source, str(out), job.Options(), Pool(workers=0, item_timeout_s=timeout_s))
    return Dataset(str(out))


def test_an_item_that_takes_too_long_costs_itself_even_in_native_code(trace, tmp_path):
    source = Odd(trace, actions=((2, "spin"),), units=2)
    dataset = run(source, tmp_path / "out", timeout_s=3.0)  # enough for the others on a busy machine
    assert ledger(dataset) == {("image", "folder/2", 0): "timeout"}
    assert len(image_ids(dataset)) == 9
    assert source.loads(2) == engine.ATTEMPTS
    assert os.getpid() not in source.workers()
    assert verify(dataset).sound


def test_a_row_that_kills_its_process_costs_itself_after_three_attempts(trace, tmp_path):
    source = Odd(trace, actions=((7, "segfault"), (13, "segfault")))
    dataset = run(source, tmp_path / "out")
    assert ledger(dataset) == {("image", f"folder/{at}", 0): "killed_worker" for at in (7, 13)}
    assert source.loads(7) == source.loads(13) == engine.ATTEMPTS
    assert source.loads(0) == 1


def test_one_child_does_all_units_and_its_rows_are_those_of_this_process(trace, tmp_path):
    source = Odd(trace)
    child, here = run(source, tmp_path / "apart"), ingest(Odd(trace), tmp_path / "here")
    assert child.fingerprint("images") == here.fingerprint("images")
    assert len(source.workers()) == 2  # the child, and this process


def test_where_a_copy_of_this_process_is_not_safe_the_child_is_a_fresh_one(trace, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "_method", lambda: "spawn")
    dataset = run(Odd(trace, actions=((2, "spin"),), units=2), tmp_path / "out", timeout_s=5.0)
    assert ledger(dataset) == {("image", "folder/2", 0): "timeout"}


def test_without_a_limit_the_library_works_in_this_process(trace, tmp_path):
    source = Odd(trace)
    ingest(source, tmp_path / "out")
    assert source.workers() == {os.getpid()}


@pytest.mark.parametrize(("action", "reason"), [("raise", "internal_error"), ("memory", "out_of_memory")])
def test_an_error_that_nobody_foresaw_costs_one_row(trace, tmp_path, action, reason):
    dataset = run(Odd(trace, actions=((2, action),), units=1), tmp_path / "out")
    assert ledger(dataset) == {("image", "folder/2", 0): reason}


def test_an_error_that_is_no_items_comes_out_as_itself(trace, tmp_path):
    with pytest.raises(JobStopped, match="no space left"):
        run(Odd(trace, actions=((2, "disk"),)), tmp_path / "out")


def test_what_stops_the_worker_stops_the_job(trace, tmp_path):
    source = Odd(trace, actions=((2, "interrupt"),))
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert source.loads(2) == 1


def run_broken(where: str, tmp_path: Path, **more: object) -> None:
    tasks = [Task(name) for name in ("one", "bad", "two")]
    engine.run("test", Broken(where), tasks, pool=Pool(workers=0, item_timeout_s=60), notes=Folder(tmp_path), **more)


@pytest.mark.parametrize(("where", "message"), [("run", "RuntimeError: a bug"), ("before", "died 3 times")])
def test_a_unit_that_cannot_be_done_stops_the_job_at_its_end_and_the_others_are_done(tmp_path, where, message):
    done: list[engine.Status] = []
    with pytest.raises(JobStopped, match=f"1 of 3 units could not be done.*{message}"):
        run_broken(where, tmp_path, on_status=done.append)
    assert done[-1].done == 2
    if where == "run":
        assert "a bug" in (tmp_path / "bad.attempt-1.txt").read_text()


def test_a_worker_that_cannot_start_stops_the_job_at_once(tmp_path):
    with pytest.raises(JobStopped, match=r"could not start.*no such model"):
        run_broken("start", tmp_path)


class Picky:
    """A job that refuses to start."""

    def start(self) -> "Picky":
        raise Refused("there is no such device: use another")


def test_what_a_worker_refuses_to_start_for_is_said(tmp_path):
    with pytest.raises(Refused, match="no such device"):
        engine.run("test", Picky(), [Task("a")], pool=Pool(workers=0, item_timeout_s=60), notes=Folder(tmp_path))


def test_who_stops_the_job_leaves_no_child_behind(trace, tmp_path):
    source = Odd(trace, pause_s=0.05)

    def stop(status: engine.Status) -> None:
        if source.workers():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.ingest(source, str(tmp_path / "out"), job.Options(), Pool(workers=0, item_timeout_s=60), stop)
    (child,) = source.workers()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


PARENT = """
import sys
from enginejobs import Odd
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
job.ingest(Odd(sys.argv[1], pause_s=0.2), sys.argv[2], job.Options(), Pool(workers=0, item_timeout_s=60))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a child with its parent")
def test_a_child_dies_with_its_parent(trace, tmp_path):
    paths = os.pathsep.join([str(ROOT), str(SUPPORT)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, trace, str(tmp_path / "out")], env={**os.environ, "PYTHONPATH": paths}
    )
    source = Odd(trace)
    while not source.workers():
        assert parent.poll() is None
        time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    (child,) = source.workers()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child goes on without its parent")


def test_threads_of_libraries_in_the_parent_do_not_stop_the_child(trace, tmp_path):
    """OpenCV waits for its threads when it is told to use one, and a copy of a process has none of them."""
    cv2.setNumThreads(4)
    for _ in range(3):  # has them start
        cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 0)
    before = cv2.getNumThreads()
    for number in range(3):
        assert len(image_ids(run(Odd(trace), tmp_path / str(number)))) > 0
    assert cv2.getNumThreads() == before
