"""Where things lie that tests need from outside their own file."""

import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
"""Modules that tests share; workers and other processes find them when it is on PYTHONPATH."""

TESTS = SUPPORT.parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"

SHARED = ROOT.parent / "shared" / "data"
"""Real photographs with annotations, beside the checkout; absent from a user's machine."""

REFLOOM = [sys.executable, str(ROOT / "refloom/cli/arguments.py")]
"""The command line in a process of its own."""
