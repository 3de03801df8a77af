"""What pytest itself is told: where the real photographs are, tiny pictures, and one Ray for the tests that need it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network import cut_network
from places import SHARED, SUPPORT


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

    from schemas import pictures

    def make(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
        return pictures.encode_jpeg(gradient(width, height, seed), 90)

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the network fails the test."""
    cut_network(monkeypatch)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One embedded Ray for all tests that run real workers; starting it costs seconds."""
    import ray

    from ingest import engine

    os.environ["PYTHONPATH"] = str(SUPPORT)  # workers import the jobs of the tests
    owns = engine.connect(engine.Pool(workers=2))
    yield
    if owns:
        ray.shutdown()
