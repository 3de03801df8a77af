"""A lease of a holder whose clock is wrong, or whose file is not what a lease writes."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from refloom.schemas.errors import Refused
from refloom.schemas.lease import Lease, read_holder
from refloom.schemas.storage import Folder

PATH = "runs/lease.json"
YEAR_S = 365 * 86_400.0


def content(ahead_s: float = 0.0, **changed: object) -> bytes:
    holder = {"id": "theirs", "host": "elsewhere", "pid": 1, "started": 1.0, "beat": time.time() + ahead_s}
    return json.dumps(holder | changed).encode()


@contextmanager
def beating(folder: Folder, ahead_s: float) -> Iterator[None]:
    """A holder elsewhere that lives, whose clock is that far ahead."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.02):
            folder.write(PATH, content(ahead_s))

    folder.write(PATH, content(ahead_s))
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("ahead_s", [-120.0, -3600.0, 120.0, YEAR_S, 0.0])
def test_a_holder_that_lives_is_not_taken_over_whatever_its_clock_says(tmp_path, ahead_s):
    folder = Folder(str(tmp_path))
    with beating(folder, ahead_s), pytest.raises(Refused, match="process 1 on elsewhere"):
        with Lease(folder, heartbeat_s=0.4):
            pass


@pytest.mark.parametrize("ahead_s", [-120.0, 120.0, YEAR_S, 1e12])
def test_a_holder_that_says_nothing_new_does_not_block_for_ever(tmp_path, ahead_s):
    folder = Folder(str(tmp_path))
    folder.write(PATH, content(ahead_s))
    with Lease(folder, heartbeat_s=0.05) as lease:
        assert lease.is_held()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"7",
        b"[" * 100_000,
        b"\xff\xfe",
        content(beat="now"),
        content(beat=None),
        content(beat=float("nan")),
        content(beat=1e308),
        content(pid="1"),
        content(pid=-5),
        content(pid=10**30),
        content(pid=True),
        content(pid=1 << 40),
        content(host=3),
        content(started=[]),
        content(id=["x"]),
        json.dumps({"id": "x"}).encode(),
    ],
)
def test_a_file_that_no_lease_wrote_holds_nothing(tmp_path, data):
    folder = Folder(str(tmp_path))
    folder.write(PATH, data)
    assert read_holder(folder) is None
    with Lease(folder, heartbeat_s=0.05) as lease:
        assert lease.is_held()
    assert not folder.exists(PATH)
