"""The engine: units of work on a pool of Ray workers. The only file that imports ray.

The driver hands one unit at a time to each worker and keeps the account of attempts itself, which is what makes a row
that kills its process cost one row: the dead attempt's note names the item, the item gets `ATTEMPTS` tries, and the
unit then goes on without it. Workers write and commit their units; the driver sees counts only, never a picture.
"""

import json
import math
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from ingest.attempts import ATTEMPTS, Attempts
from ingest.watch import ITEM_TIMEOUT_S, Tally, Watch, last_words
from schemas.errors import JobStopped
from schemas.storage import Folder

_POLL_S = 0.25
_KNOCK_S = 10.0
_OBJECT_STORE_BYTES = 512 << 20
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work.

    Attributes:
        unit: its name.
        payload: what the job's worker needs for it; travels by pickle between our own processes.
        weight: its share of the work, e.g. pictures; for the time left.
    """

    unit: str
    payload: Any = None
    weight: int = 1


class Worker(Protocol):
    """Lives in one process and holds what is dear to make: models, open datasets."""

    def run(self, task: Task, watch: Watch) -> None:
        """Do one unit and commit it."""
        ...


class Job(Protocol):
    """What a pool of workers does; travels to them, so it holds plain values."""

    def start(self) -> Worker:
        """Make a worker, once per process."""
        ...


@dataclass(frozen=True, slots=True)
class Pool:
    """How many workers, and what each of them holds.

    Attributes:
        workers: number of processes; 0 runs in this process without Ray (for debugging); None takes all cores
            (or all GPUs, where each worker asks for one).
        address: of a Ray cluster, e.g. `auto` or `ray://host:10001`; None starts Ray on this machine.
        cpus, gpus: that each worker holds.
        item_timeout_s: longest time for one item.
    """

    workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    item_timeout_s: float = ITEM_TIMEOUT_S


@dataclass(slots=True)
class Status:
    """How far a job has come.

    Attributes:
        units: number of all tasks, done before or now.
        done: units done in this run.
        weight, weight_done: of this run's tasks.
        tally: counts of all units, those under work included.
        restarts: workers that died.
    """

    units: int
    weight: int
    done: int = 0
    weight_done: int = 0
    tally: Tally = field(default_factory=Counter)
    restarts: int = 0
    started: float = field(default_factory=time.monotonic)


class Crew:
    """The workers of one job, kept while one list of tasks after another is done: they start, and load, once.

    Use as a context. Ray and the workers start when the first tasks come.
    """

    def __init__(self, job: Job, pool: Pool) -> None:
        """Take on a job.

        Args:
            job: makes the workers.
            pool: number and size of the workers.
        """
        self._job, self._pool = job, pool
        self._here: Worker | None = None
        self._actors: _Actors | None = None
        self._owns_ray = False

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._here = self._actors = None
        if self._owns_ray:
            ray.shutdown()

    def run(
        self,
        title: str,
        tasks: Sequence[Task],
        *,
        notes: Folder,
        on_status: Callable[[Status], None] | None = None,
    ) -> Status:
        """Run all tasks; every task that returns has committed its unit.

        Args:
            title: what is done, for the record in `run.json`.
            tasks: in the order in which they are handed out.
            notes: folder of this run for notes, stack dumps, error reports, and at the end `run.json` with the rates.
            on_status: called a few times a second; may raise to stop the job.

        Raises:
            JobStopped: a disk is full, a worker cannot start, or some units cannot be done; all others are then done.
        """
        status = Status(units=len(tasks), weight=sum(task.weight for task in tasks))
        if not tasks:
            return status
        if self._pool.workers == 0:
            self._here = self._here or self._job.start()
            _run_here(self._here, tasks, notes, status, on_status)
            _record(title, status, 0, notes)
            return status
        if self._actors is None:
            self._owns_ray = connect(self._pool)
            self._actors = _Actors(self._job, self._pool)
        driver = _Driver(self._actors, tasks, notes, status, on_status)
        driver.run()
        _record(title, status, driver.workers, notes)
        return status


def run(
    title: str,
    job: Job,
    tasks: Sequence[Task],
    *,
    pool: Pool,
    notes: Folder,
    on_status: Callable[[Status], None] | None = None,
) -> Status:
    """One list of tasks with a crew of its own; arguments and errors as for `Crew`."""
    with Crew(job, pool) as crew:
        return crew.run(title, tasks, notes=notes, on_status=on_status)


def _record(title: str, status: Status, workers: int, notes: Folder) -> None:
    """What a finished run took; clocks belong into runs/ and nowhere else."""
    record = {
        "command": title,
        "seconds": round(time.monotonic() - status.started, 3),
        "items": status.tally["begun"],
        "bytes": status.tally["bytes"],
        "units": status.units,
        "workers": workers,
        "restarts": status.restarts,
    }
    notes.write("run.json", json.dumps(record, indent=1).encode() + b"\n")


def _run_here(
    worker: Worker, tasks: Sequence[Task], notes: Folder, status: Status, on_status: Callable[[Status], None] | None
) -> None:
    finished: Tally = Counter()
    for task in tasks:

        def report(unit: str, tally: Tally) -> None:
            status.tally = finished + tally
            if on_status is not None:
                on_status(status)

        with Watch(task.unit, notes, report=report, timeout_s=0) as watch:
            worker.run(task, watch)
        finished.update(watch.tally)
        status.done += 1
        status.weight_done += task.weight
    if on_status is not None:
        on_status(status)


def connect(pool: Pool) -> bool:
    """Start Ray on this machine or join a cluster.

    Returns:
        True if this process has to shut it down; False if Ray was running in it already.
    """
    if ray.is_initialized():
        return False
    on_terminate = signal.getsignal(signal.SIGTERM)
    one_thread = dict.fromkeys(_ONE_THREAD, "1")
    if pool.address is not None:
        _knock(pool.address)
        try:
            ray.init(
                address=pool.address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": one_thread}
            )
        except ConnectionError as error:
            raise JobStopped(f"no Ray cluster at {pool.address}: {_last_line(str(error))}") from error
    else:
        here = str(Path(__file__).resolve().parents[1])  # workers must find these packages, installed or not
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(paths), **one_thread})
        ray.init(
            num_cpus=max(os.cpu_count() or 1, math.ceil((pool.workers or 1) * pool.cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # ray replaces it by one that does not unwind
    return True


def _knock(address: str) -> None:
    """Raise JobStopped if nobody listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # `auto`, `local`: Ray knows where to look
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise JobStopped(f"no Ray cluster at {address}: {error.strerror or error}") from error


class _Process:
    """The Ray actor around a worker."""

    def __init__(self, job: Job, board: Any, timeout_s: float) -> None:
        _use_one_thread()
        self._worker = job.start()
        self._board, self._timeout_s = board, timeout_s

    def run(self, task: Task, notes_url: str, attempt: int, skip: dict[str, str]) -> Tally:
        def report(unit: str, tally: Tally) -> None:
            self._board.post.remote(notes_url, unit, dict(tally))

        notes = Folder(notes_url)
        with Watch(task.unit, notes, attempt=attempt, skip=skip, report=report, timeout_s=self._timeout_s) as watch:
            self._worker.run(task, watch)
        return watch.tally


def _use_one_thread() -> None:
    """Same bytes for any number of workers: no library may split its sums over threads."""
    import cv2
    import pyarrow

    cv2.setNumThreads(1)
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)


class _Board:
    """Where workers post how far they are, run by run: units of two runs may have one name."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], dict[str, int]] = {}

    def post(self, run: str, unit: str, tally: dict[str, int]) -> None:
        self._tallies[run, unit] = tally

    def read(self, run: str) -> dict[str, dict[str, int]]:
        self._tallies = {key: tally for key, tally in self._tallies.items() if key[0] == run}
        return {unit: tally for (_, unit), tally in self._tallies.items()}


class _Actors:
    """The processes of a crew; those that have nothing to do wait for the next run."""

    def __init__(self, job: Job, pool: Pool) -> None:
        self._job, self._pool = ray.put(job), pool
        self.board = ray.remote(num_cpus=0)(_Board).remote()
        self._process = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=0)(_Process)
        self._waiting: list[Any] = []

    def take(self, count: int) -> list[Any]:
        """Some processes: those that wait, then new ones."""
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken + [self.spawn() for _ in range(count - len(taken))]

    def give(self, processes: list[Any]) -> None:
        """Processes that have nothing to do any more."""
        self._waiting += processes

    def spawn(self) -> Any:
        """A new process."""
        return self._process.remote(self._job, self.board, self._pool.item_timeout_s)

    def size(self) -> int:
        """How many processes the pool may have."""
        if self._pool.workers is not None:
            return self._pool.workers
        resources = ray.cluster_resources()
        if self._pool.gpus:
            return max(1, int(resources.get("GPU", 0) / self._pool.gpus))
        return max(1, int(resources.get("CPU", 1) / self._pool.cpus))


class _Driver:
    """Hands out tasks and keeps the account of attempts."""

    def __init__(
        self,
        actors: _Actors,
        tasks: Sequence[Task],
        notes: Folder,
        status: Status,
        on_status: Callable[[Status], None] | None,
    ) -> None:
        self._actors, self._notes = actors, notes
        self._status, self._on_status = status, on_status
        self._waiting = deque(tasks)
        self._attempts = {task.unit: Attempts() for task in tasks}
        self._finished: Tally = Counter()
        self._running: dict[Any, tuple[Any, Task]] = {}
        self._idle: list[Any] = []
        self._broken: dict[str, str] = {}
        self.workers = min(actors.size(), len(tasks))

    def run(self) -> None:
        self._status.started = time.monotonic()  # the start of Ray is not the job's
        self._idle = self._actors.take(self.workers)
        last_status = 0.0
        while self._waiting or self._running:
            while self._waiting and self._idle:
                self._hand_out(self._idle.pop(), self._waiting.popleft())
            done, _ = ray.wait(list(self._running), num_returns=1, timeout=_POLL_S)
            for reference in done:
                self._settle(reference)
            if time.monotonic() - last_status > 2 * _POLL_S:
                last_status = time.monotonic()
                self._show()
        self._show()
        self._actors.give(self._idle)
        if self._broken:
            units = "; ".join(f"{unit}: {why}" for unit, why in sorted(self._broken.items()))
            raise JobStopped(
                f"{len(self._broken)} of {self._status.units} units could not be done ({units}); "
                f"details in {self._notes.url}"
            )

    def _hand_out(self, actor: Any, task: Task) -> None:
        attempts = self._attempts[task.unit]
        self._running[actor.run.remote(task, self._notes.url, attempts.next, attempts.skip)] = (actor, task)

    def _settle(self, reference: Any) -> None:
        actor, task = self._running.pop(reference)
        attempts = self._attempts[task.unit]
        try:
            tally: Tally = ray.get(reference)
        except RayTaskError as error:
            self._idle.append(actor)
            if isinstance(error.cause, JobStopped):
                raise error.cause from None
            self._notes.write(
                f"{task.unit}.attempt-{attempts.next}.txt", str(error).encode("utf-8", "backslashreplace")
            )
            attempts.errors.append(f"{type(error.cause).__name__}: {error.cause}")
            self._again(task, len(attempts.errors) < ATTEMPTS, attempts.errors[-1])
        except (ActorDiedError, ActorUnavailableError, RayActorError) as error:
            if "creation task" in str(error):
                raise JobStopped(f"a worker could not start: {_last_line(str(error))}") from None
            item, timed_out = last_words(self._notes, task.unit)
            helps = attempts.crashed(item, timed_out)
            self._status.restarts += 1
            self._idle.append(self._actors.spawn())
            self._again(task, helps, f"its worker died {len(attempts.crashes)} times, last at {item or 'no item'}")
        else:
            self._idle.append(actor)
            self._finished.update(tally)
            self._status.done += 1
            self._status.weight_done += task.weight

    def _again(self, task: Task, helps: bool, why: str) -> None:
        if helps:
            self._waiting.appendleft(task)
        else:
            self._broken[task.unit] = why

    def _show(self) -> None:
        under_work = {task.unit for _, task in self._running.values()}
        tally = Counter(self._finished)
        try:
            board = ray.get(self._actors.board.read.remote(self._notes.url), timeout=5)
        except (GetTimeoutError, RayActorError):
            board = {}  # a busy machine: the figures are older for once
        for unit in under_work & board.keys():
            tally.update(board[unit])
        self._status.tally = tally
        if self._on_status is not None:
            self._on_status(self._status)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), text)
