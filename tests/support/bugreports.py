"""Small inputs with the properties of public bug reports, which lie beside the real photographs."""

from pathlib import Path

import pytest
from places import SHARED

CASES = SHARED.parent / "cases"


def case(number: str) -> Path:
    """The folder of one case; a test that asks for it skips where the cases are absent."""
    folder = CASES / f"case_{number}"
    if not folder.is_dir():
        pytest.skip(f"the inputs of bug reports are not at {CASES}")
    return folder
