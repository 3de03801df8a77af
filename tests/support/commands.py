"""The command line in this process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from refloom import cli


class Answer(NamedTuple):
    """What a command left behind: its exit code, and what it printed on either stream."""

    code: int
    out: str
    err: str


@contextmanager
def own_signals() -> Iterator[None]:
    """Commands take SIGTERM for a Ctrl-C from then on; tests behind them must not."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_terminate)


def run(capsys, *arguments: object) -> Answer:
    """Run `refloom` with some arguments, whatever they are texts of."""
    capsys.readouterr()
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return Answer(code, *capsys.readouterr())
