"""Progress of a job: one line that is redrawn on a terminal, or a plain line now and then where nobody watches."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from refloom.ingest.engine.tasks import Status

_PLAIN_EVERY_S = 30.0
_REDRAWN_EVERY_S = 0.1
_BAR = "{bar:12}"
_ROWS = 1000
_WARM_UP = 2
"""Advances that tell no rate: models load while the first items of work are begun."""
_ENOUGH = 3
"""Further advances, and seconds, after which a rate is one."""
_ENOUGH_S = 5.0

Clock = Callable[[], float]


class _Bar(tqdm):  # type: ignore[misc]
    """tqdm's drawing, without its thread and its lock between processes: one process draws one line."""

    monitor_interval = 0


class TerminalLine:
    """A line that tells how far something is.

    Args:
        stream: where to print; stderr by default.
        clock: seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._redraws = self._stream.isatty()
        self._bar: _Bar | None = None
        self._printed_at, self._drawn_at = clock(), float("-inf")

    def show(self, title: str, share: float, short: str, whole: str | None = None, *, now: bool = False) -> None:
        """Draw the line anew, or print it where that is due.

        Args:
            title: what is done.
            share: of it, from 0 to 1.
            short: what stands behind the bar, cut at the terminal's width.
            whole: the plain line; `title` and `short` unless given.
            now: draw it however shortly ago it was drawn.
        """
        at = self._clock()
        if self._redraws:
            if now or at - self._drawn_at >= _REDRAWN_EVERY_S:
                self._drawn_at = at
                self._draw(f"{title:8}", share, short)
        elif at - self._printed_at >= _PLAIN_EVERY_S:
            self._print(f"{title:8}  {short}" if whole is None else whole)

    def end(self, text: str | None) -> None:
        """Take the redrawn line away, and leave this one behind if there is one."""
        if self._bar is not None:
            self._bar.clear()
            self._bar.close()
            self._bar = None
        if text is not None:
            self._print(text)

    def _print(self, text: str) -> None:
        self._printed_at = self._clock()
        print(text, file=self._stream, flush=True)

    def _draw(self, title: str, share: float, text: str) -> None:
        if self._bar is None:
            _Bar.set_lock(threading.RLock())
            # delay: nothing is drawn before there is a text; nrows: tqdm draws nothing where a terminal says none
            self._bar = _Bar(total=1.0, file=self._stream, leave=False, position=0, delay=1.0, nrows=_ROWS)
        self._bar.bar_format = f"{_escaped(title)}  {_BAR}  {_escaped(text)}"
        self._bar.ncols = _width(self._stream)
        self._bar.n = min(max(share, 0.0), 1.0)
        self._bar.refresh()


def _width(stream: TextIO) -> int | None:
    """Columns that a line may have on a terminal, as it is now; None where it does not say."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None
    return columns - 1 if columns > 1 else None


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


class Pace:
    """How long work will still take, once it has been under way long enough to tell: loading models is no rate."""

    def __init__(self) -> None:
        self._advances, self._last = 0, 0
        self._measured_from: tuple[float, int] | None = None

    def left_s(self, done: int, weight: int, now: float) -> float | None:
        """Seconds until `done` is `weight`; None while that cannot be told. To be called at every news."""
        if done > self._last:
            self._last = done
            self._advances += 1
            if self._advances == _WARM_UP:
                self._measured_from = (now, done)
        if self._measured_from is None or self._advances < _WARM_UP + _ENOUGH:
            return None
        began, before = self._measured_from
        return (now - began) * (weight - done) / (done - before) if now - began >= _ENOUGH_S else None


class Progress:
    """Tells how far a job is, at what rate, and how long it will still take. Use as a context, or call `close`.

    Args:
        title: what the job does.
        item: what an item of work is called.
        stream: where to print; stderr by default.
        clock: seconds; that of `Status.started`.
    """

    def __init__(
        self, title: str, item: str = "image", stream: TextIO | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._title, self._item, self._clock = title, item, clock
        self._line = TerminalLine(stream, clock)
        self._pace = Pace()
        self._began: float | None = None
        self._last: Status | None = None
        self._last_done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def turn(self, title: str, item: str) -> None:
        """Go on with the next tasks of the same work, on the same line."""
        self._title, self._item = title, item
        self._pace = Pace()

    def __call__(self, status: Status) -> None:
        """Show a status."""
        is_new = self._last is None or status.done != self._last_done
        self._last, self._last_done = status, status.done
        self._began = status.started if self._began is None else self._began
        units, *rest = _parts(self._item, status, self._clock() - status.started)
        self._line.show(
            self._title,
            _done(status) / status.weight if status.weight else 0.0,
            "  ".join([units, self._ending(status), *rest]),
            line(self._title, self._item, status, self._clock() - status.started, self._ending(status)),
            now=is_new,
        )

    def _ending(self, status: Status) -> str:
        if status.done == status.units:
            return "done"
        done = _done(status)
        # what is begun may be other items than those of the weight; then there is nothing to tell
        left = self._pace.left_s(done, status.weight, self._clock()) if done < status.weight else None
        return f"{duration(left)} left"

    def close(self) -> None:
        """Leave one last line behind, of all the work; nothing where there was none."""
        if self._last is None:
            self._line.end(None)
            return
        status = self._last
        elapsed = self._clock() - (status.started if self._began is None else self._began)
        is_done = status.done == status.units
        title = self._title.split(" ")[0] if is_done else self._title
        ending = f"done in {duration(elapsed)}" if is_done else self._ending(status)
        self._line.end(line(title, self._item, status, elapsed, ending))
        self._last = None


class Stages:
    """Progress of a job of several stages, a line each; use as a context.

    Passes of one stage, whose titles begin with the same word, share a line: most of them are short.

    Args:
        items: title to what an item of its work is called, where a title comes without.
        stream: where to print; stderr by default.
    """

    def __init__(self, items: Mapping[str, str] | None = None, stream: TextIO | None = None) -> None:
        self._items, self._stream = items or {}, stream
        self._shown: Progress | None = None
        self._stage = ""

    def __call__(self, title: str, item: str | None = None) -> Progress:
        """The progress of what comes next; the line before is left behind."""
        stage, item = title.split(" ")[0], item or self._items.get(title, "row")
        if self._shown is not None and self._stage == stage:
            self._shown.turn(title, item)
            return self._shown
        self.close()
        self._stage, self._shown = stage, Progress(title, item, self._stream)
        return self._shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last line behind."""
        if self._shown is not None:
            self._shown.close()
        self._shown = None


def line(title: str, item: str, status: Status, elapsed_s: float | None = None, ending: str | None = None) -> str:
    """The plain line of a status.

    Args:
        title: what is done.
        item: what an item of work is called.
        status: how far it is.
        elapsed_s: since the start; that of the status unless given.
        ending: the time left; as far as this one status tells it, unless given.
    """
    elapsed = time.monotonic() - status.started if elapsed_s is None else elapsed_s
    if ending is None:
        done = _done(status)
        left = elapsed * (status.weight - done) / done if done else None
        ending = "done" if status.done == status.units else f"{duration(left)} left"
    return "  ".join([f"{title:8}", *_parts(item, status, elapsed), ending])


def _done(status: Status) -> int:
    """A unit under work counts by the items it has begun, so that the time left does not wait for whole units."""
    return max(status.weight_done, min(status.tally["begun"], status.weight))


def _parts(item: str, status: Status, elapsed_s: float) -> list[str]:
    elapsed = max(elapsed_s, 1e-3)
    begun = status.tally["begun"]
    rejected = sum(count for name, count in status.tally.items() if name.endswith(".rejected"))
    failed = sum(count for name, count in status.tally.items() if name.endswith(".failed"))
    return [
        f"{status.done}/{status.units} units",
        f"{begun:,} {item}s",
        f"{_short(begun / elapsed)} {item}s/s",
        f"{status.tally['bytes'] / elapsed / 1e6:,.1f} MB/s",
        f"{rejected:,} rejected",
        *([f"{failed:,} failed"] if failed else []),
        *([f"{status.restarts} workers restarted"] if status.restarts else []),
        *(["the store refuses, trying again"] if status.refused else []),
    ]


def _short(rate: float) -> str:
    """Whole numbers, and two digits of what is slow."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def duration(seconds: float | None) -> str:
    """`75` to `1 min 15 s`."""
    if seconds is None:
        return "? "
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
