"""Ray's start: a folder that it cannot use is refused with words, and a machine that is busy gets a second try."""

import pytest

from refloom.ingest import raystart
from refloom.ingest.engine import cluster
from refloom.ingest.engine.pool import Pool
from refloom.schemas.errors import JobStopped, Refused


def test_a_folder_too_long_for_sockets_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("deep" * 20)))
    with pytest.raises(Refused, match=r"RAY_TMPDIR.*too long.*set RAY_TMPDIR to a short path"):
        cluster.connect(Pool(workers=1))


def test_the_folder_of_ray_is_the_one_that_the_environment_names(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/dev/shm/short")
    assert raystart.folder() == ("/dev/shm/short", "TMPDIR")
    monkeypatch.setenv("RAY_TMPDIR", "/dev/shm/other")
    assert raystart.folder() == ("/dev/shm/other", "RAY_TMPDIR")


def test_a_folder_that_is_a_file_is_refused(tmp_path, monkeypatch):
    short = tmp_path / "f"
    short.write_text("a file")
    monkeypatch.setattr(raystart, "_LONGEST_SOCKET", 1000)
    monkeypatch.setenv("RAY_TMPDIR", str(short / "below"))
    with pytest.raises(Refused, match="cannot be written to"):
        cluster.connect(Pool(workers=1))


@pytest.fixture(autouse=True)
def _no_ray_yet(monkeypatch):
    """As in a process that has started none, whatever tests before have."""
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)


@pytest.fixture
def starts(monkeypatch):
    """Ray's starts, each of which raises what is left in the list."""
    errors: list[Exception] = []
    begun: list[float] = []

    def init(**options: object) -> None:
        begun.append(len(begun))
        if errors:
            raise errors.pop(0)

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(raystart, "check_folder", lambda: None)
    return errors, begun


TIMED_OUT = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


def test_a_start_that_times_out_is_tried_once_more(starts):
    errors, begun = starts
    errors.append(Exception(TIMED_OUT))
    assert cluster.connect(Pool(workers=1))
    assert len(begun) == 2


@pytest.mark.parametrize("error", [Exception(TIMED_OUT), RuntimeError("Failed to start GCS"), ConnectionError("no")])
def test_a_second_timeout_stops_the_job_with_exit_code_3(starts, error):
    errors, begun = starts
    errors += [error, error]
    with pytest.raises(JobStopped, match=r"Ray does not start .*--workers 0") as stopped:
        cluster.connect(Pool(workers=1))
    assert len(begun) == 2
    assert stopped.value.exit_code == 3


def test_the_second_start_waits_longer_for_the_node(monkeypatch):
    asked = []

    def find(*_: object) -> str:
        asked.append(1)
        if len(asked) < 3:
            raise RuntimeError("not there yet")
        return "node"

    monkeypatch.setattr(cluster.services, "get_node", find)
    monkeypatch.setattr(cluster, "_POLL_S", 0.0)
    with cluster._patient(60.0):
        assert cluster.services.get_node("address", "id") == "node"
    assert cluster.services.get_node is find
    with cluster._patient(0.0):
        assert cluster.services.get_node is find
