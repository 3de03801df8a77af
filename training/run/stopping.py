"""Ctrl-C and SIGTERM, which end a run after the step it is at; all processes end after the same one.

A second Ctrl-C interrupts at once. A second SIGTERM is the first one again: job managers send it to all processes, and
launchers, which are among them, pass it on.
"""

import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Notes signals inside its block.

    Args:
        world: processes; with more than one, all must be in the block.
    """

    def __init__(self, world: int) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}
        # a group of its own over the hosts: asking it does not wait for any GPU
        self._group: Any = dist.new_group(backend="gloo") if world > 1 else None

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any process was asked to stop; called by all of them after each step."""
        if self._group is None:
            return self._asked
        flag = torch.tensor([int(self._asked)])
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flag.item())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
