"""What tests share: where the real photographs are, tiny pictures, and one Ray for the tests that need it."""

import io
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas import pictures

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs; a test that asks for it skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the real photographs are not at {SHARED}")
    return SHARED


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """A small JPEG: a smooth gradient with a bright square, different for every seed."""

    def make(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
        return pictures.encode_jpeg(gradient(width, height, seed), 90)

    return make


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the network fails the test."""
    cut_network(monkeypatch)


def cut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever asks for the network fail the test; a refusal alone could be swallowed."""

    def refuse(*_args: object, **_options: object) -> None:
        pytest.fail("something asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def gradient(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: a gradient, a bright square and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    colour = rng.integers(60, 200, 3)
    base = colour + 50 * (x / width)[..., None] - 40 * (y / height)[..., None]
    base[height // 4 : height // 2, width // 4 : width // 2] += 50
    return np.clip(base + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A Pillow image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One embedded Ray for all tests that run real workers; starting it costs seconds."""
    import ray

    from ingest import engine

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers import the jobs of the tests
    owns = engine.connect(engine.Pool(workers=2))
    yield
    if owns:
        ray.shutdown()
