"""What tests of reports ask for: a small dataset, curated to the end, and its page."""

from pathlib import Path

import pytest
from reporting import Page, page_of, reported

from refloom.schemas.dataset import Dataset


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Not to be changed: the tests of reports share it."""
    return reported(tmp_path_factory)


@pytest.fixture
def dataset(made) -> Dataset:
    return Dataset(str(made))


@pytest.fixture(scope="session")
def page(made) -> Page:
    """The page of that dataset."""
    return page_of(Dataset(str(made)))
