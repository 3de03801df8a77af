"""Tiny models and samples for the tests of training, made once for the session; whoever changes them copies them."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `traindata.write_models`."""
    from traindata import write_models

    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve samples in two units to train on, and six that are held out."""
    from traindata import write_videos

    return write_videos(tmp_path_factory.mktemp("data") / "samples", held_out=1)
