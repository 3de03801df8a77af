"""Tasks done by one child process, without Ray, so that an item that takes too long or kills its process costs itself.

The child lives as long as its pool of workers, and is started anew when it dies; its notes say which item it died on,
and whether of its time, as those of Ray's workers do. It dies with its parent.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from refloom.ingest.engine.heap import keep_freed_memory
from refloom.ingest.engine.retries import Account
from refloom.ingest.engine.tasks import Job, Status, Task
from refloom.ingest.engine.watch import Tally, Watch, last_words
from refloom.schemas.errors import JobStopped, RefloomError
from refloom.schemas.storage import Folder
from refloom.schemas.storeerrors import store_errors_stop

_POLL_S = 0.25
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


class Apart:
    """The one worker of a pool, in a process of its own.

    Args:
        job: makes the worker.
        timeout_s: longest time for one item.
    """

    def __init__(self, job: Job, timeout_s: float) -> None:
        self._job, self._timeout_s = job, timeout_s
        self._child: Any = None
        self._pipe: Any = None

    def run(
        self, tasks: Sequence[Task], notes: Folder, status: Status, on_status: Callable[[Status], None] | None
    ) -> None:
        """Run all tasks; arguments and errors as for `WorkerPool.run`."""
        by_unit = {task.unit: task for task in tasks}
        account, finished = Account(by_unit), Counter[str]()
        while (unit := account.take(time.monotonic())) is not None:
            tally = self._attempt(by_unit[unit], account, finished, notes, status, on_status)
            if tally is None:
                continue
            account.done()
            finished.update(tally)
            status.tally = finished.copy()
            status.done += 1
            status.weight_done += by_unit[unit].weight
            if on_status is not None:
                on_status(status)
        account.stop_if_broken(status.units, notes.url)

    def close(self) -> None:
        """End the child, whatever it is at."""
        if self._child is not None:
            self._child.kill()
            self._child.join()
            self._pipe.close()
        self._child = self._pipe = None

    def _attempt(
        self,
        task: Task,
        account: Account,
        finished: Tally,
        notes: Folder,
        status: Status,
        on_status: Callable[[Status], None] | None,
    ) -> Tally | None:
        """One attempt at one unit: its tally, or None where it failed, which the account then knows."""
        attempts = account[task.unit]
        try:
            self._start()
            self._pipe.send((task, notes.url, attempts.next, attempts.skip))
            while True:
                if not self._pipe.poll(_POLL_S):
                    if on_status is not None:
                        on_status(status)
                    continue
                word, said = self._pipe.recv()
                if word == "refused":
                    raise said
                if word == "interrupted":
                    raise KeyboardInterrupt
                if word == "stillborn":
                    raise JobStopped(f"a worker could not start: {said}")
                if word == "raised":
                    why, trace = said
                    notes.write(f"{task.unit}.attempt-{attempts.next}.txt", trace.encode("utf-8", "backslashreplace"))
                    account.raised(task.unit, why)
                    return None
                tally: Tally = Counter(said)
                if word == "done":
                    return tally
                status.tally = finished + tally
                if on_status is not None:
                    on_status(status)
        except (EOFError, ConnectionError):
            self.close()
            item, timed_out = last_words(notes, task.unit)
            account.crashed(task.unit, item, timed_out)
            status.restarts += 1
            return None

    def _start(self) -> None:
        if self._child is not None:
            return
        context: Any = multiprocessing.get_context(_method())  # every one has a class Process, which the base lacks
        self._pipe, theirs = context.Pipe()
        arguments = (self._job, self._timeout_s, theirs, self._pipe if _method() == "fork" else None, os.getpid())
        self._child = context.Process(target=_serve, args=arguments, name="refloom-worker", daemon=True)
        with _one_thread():  # a copy has none of the threads that a library would wait for when it is told so there
            self._child.start()
        theirs.close()


def _method() -> str:
    """How the child starts: as a copy of this process where that is safe, which a GPU's driver does not survive."""
    if not sys.platform.startswith("linux"):
        return "spawn"
    torch: Any = sys.modules.get("torch")
    return "spawn" if torch is not None and torch.cuda.is_available() else "fork"


def _serve(job: Job, timeout_s: float, pipe: Connection, parents_end: Connection | None, parent: int) -> None:
    """What the child does: one task after another, until its parent has gone."""
    if parents_end is not None:
        parents_end.close()  # else the pipe would stay open when the parent dies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with(parent)
    if parents_end is None:  # else it is a copy of a process that was told so before
        use_one_thread()
    keep_freed_memory()
    with suppress(EOFError, ConnectionError):  # the parent has gone
        try:
            with store_errors_stop():
                worker = job.start()
        except RefloomError as error:
            pipe.send(("refused", error))
            return
        except Exception as error:
            pipe.send(("stillborn", f"{type(error).__name__}: {error}"))
            return
        while True:
            task, notes_url, attempt, skip = pipe.recv()
            watch = Watch(
                task.unit,
                Folder(notes_url),
                attempt=attempt,
                skip=skip,
                report=lambda unit, tally: pipe.send(("at", dict(tally))),
                timeout_s=timeout_s,
            )
            try:
                with store_errors_stop(), watch:
                    worker.run(task, watch)
            except RefloomError as error:
                pipe.send(("refused", error))
            except ConnectionError:
                raise
            except KeyboardInterrupt:  # Ctrl-C is not heard here, so somebody wants the job to stop
                pipe.send(("interrupted", None))
                return
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                pipe.send(("raised", (why, "".join(traceback.format_exception(error)))))
            else:
                pipe.send(("done", dict(watch.tally)))


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def use_one_thread() -> None:
    """Same bytes for any number of workers: no library may split its sums over threads."""
    import cv2
    import pyarrow

    cv2.setNumThreads(1)
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """No library has threads of its own inside this block; they get as many as they had after it."""
    import cv2
    import pyarrow

    torch: Any = sys.modules.get("torch")
    before = cv2.getNumThreads(), pyarrow.cpu_count(), pyarrow.io_thread_count()
    of_torch = torch.get_num_threads() if torch is not None else None
    use_one_thread()
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        pyarrow.set_cpu_count(before[1])
        pyarrow.set_io_thread_count(before[2])
        if torch is not None:
            torch.set_num_threads(of_torch)
