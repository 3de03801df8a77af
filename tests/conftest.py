"""What pytest itself is told: which tests are long by nature, how work is shared out, and what many tests ask for."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a worker of pytest-xdist for each core
os.environ.setdefault("RAY_worker_niceness", "0")

from network import cut_network
from places import SHARED, SUPPORT

MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 6 << 30
"""Bytes free for files of tests in memory, where a file is committed without waiting for a disk."""

LONG = ("learning", "processes", "cluster", "store", "kills", "realsets", "browser", "compiled")
"""Markers of tests that are long by nature, which `make test` leaves out; the longest are begun first."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary files in memory where there is room for them."""
    chosen = config.option.basetemp or "PYTEST_DEBUG_TEMPROOT" in os.environ or "TMPDIR" in os.environ
    if not chosen and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them at the end."""
    rank: dict[Path, int] = {}
    for item in items:
        place = next((LONG.index(marker.name) for marker in item.iter_markers() if marker.name in LONG), len(LONG))
        rank[item.path] = min(place, rank.get(item.path, place))
    items.sort(key=lambda item: rank[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs; a test that asks for it skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the real photographs are not at {SHARED}")
    return SHARED


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """A small JPEG: a smooth gradient with a bright square, different for every seed."""
    from drawing import gradient

    from refloom.schemas import pictures

    def make(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
        return pictures.encode_jpeg(gradient(width, height, seed), 90)

    return make


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """`refloom ...` in this process: its exit code, and what it printed on either stream."""
    import commands

    with commands.own_signals():
        yield lambda *arguments: commands.run(capsys, *arguments)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the network fails the test."""
    cut_network(monkeypatch)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One embedded Ray for all tests of a worker that run real workers; starting it costs seconds."""
    import ray

    from refloom.ingest.engine import pool as engine

    os.environ["PYTHONPATH"] = str(SUPPORT)  # workers import the jobs of the tests
    owns = engine.connect(engine.Pool(workers=2))
    yield
    if owns:
        ray.shutdown()
