"""What a run says of itself: a line of json for every few steps, the same to trackers and to whoever watches."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from refloom.schemas import strict

FILE, ODD = "log.jsonl", "not_finite"
"""The log, and of a line what was no finite number, in words: json has none, so null stands in their place."""


class RunLog:
    """The log of one run, kept by one process.

    Args:
        run: folder of the run.
        done: steps that were done before, whose lines stay; later ones, of a run that was cut off, are dropped.
        show: told each line.
    """

    def __init__(self, run: Path, done: int, show: Callable[[dict[str, Any]], None]) -> None:
        self._file, self._show = run / FILE, show
        kept = [line for line in read(run) if line["step"] <= done]
        partial = self._file.with_name(f"{FILE}.partial")  # a full disk must not cost the lines that are there
        partial.write_text("".join(map(_text, kept)), "utf-8")
        partial.rename(self._file)
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Since this was last asked for, without what was `apart`."""
        now = time.monotonic()
        passed, self._since = now - self._since, now
        return passed

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is done inside this block is no training, and its time does not count."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def add(self, line: dict[str, Any]) -> None:
        """Write a line; it has a `step`."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_text(line))
        self._show(line)


def read(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, with the numbers that were not finite; a last line that was cut off is left out."""
    file = run / FILE
    lines = file.read_text("utf-8").splitlines(keepends=True) if file.is_file() else []
    return [_line(line) for line in lines if line.endswith("\n")]


def _text(line: dict[str, Any]) -> str:
    odd = {key: str(value) for key, value in line.items() if isinstance(value, float) and not math.isfinite(value)}
    return strict.dumps(line | ({ODD: odd} if odd else {})) + "\n"


def _line(text: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(text)
    return line | {key: float(word) for key, word in line.pop(ODD, {}).items()}


def speed(seconds: float, samples: int, flops: int, peak: float | None) -> dict[str, float | None]:
    """How fast steps are.

    Args:
        seconds: of a step.
        samples: of a step, over all processes.
        flops: of a step on this process's device.
        peak: of that device, FLOP/s; None if it is not known, and then there is no share of it either.
    """
    return {
        "seconds_per_step": seconds,
        "samples_per_second": samples / seconds,
        "tflops_per_second": flops / seconds / 1e12,
        "mfu": None if peak is None else flops / seconds / peak,
    }


def memory_bytes(device: torch.device) -> int:
    """Most that was in use on a GPU; what this process holds where there is none."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
