"""The engine: units of work on a pool of Ray workers. The only file that imports ray.

The driver hands one unit at a time to each worker and keeps the account of attempts itself, which is what makes a row
that kills its process cost one row: the dead attempt's note names the item, the item gets `ATTEMPTS` tries, and the
unit then goes on without it. A worker gets units from when it is there, so that workers for which a cluster has no room
cost nothing. Workers write and commit their units; the driver sees counts only, never a picture.
"""

import math
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray._private import services
from ray.exceptions import RayActorError, RayTaskError

from refloom.ingest import raystart
from refloom.ingest.apart import Apart, use_one_thread
from refloom.ingest.engine.heap import keep_freed_memory
from refloom.ingest.engine.inline import run_inline
from refloom.ingest.engine.retries import ATTEMPTS, Account
from refloom.ingest.engine.tasks import Job, Pool, Status, Task, Worker, record
from refloom.ingest.engine.watch import Tally, Watch, last_words
from refloom.schemas.errors import JobStopped, RefloomError, Refused, StoreUnavailable
from refloom.schemas.foreseen import foreseen
from refloom.schemas.plugins import Needed, needed, require
from refloom.schemas.storage import STORE_VARIABLES, Folder
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.wording import some

__all__ = ["ATTEMPTS", "Job", "Pool", "Status", "Task", "Worker", "WorkerPool", "connect", "run"]

_POLL_S = 0.25
_KNOCK_S = 10.0
_ROOM_S = 600.0
"""How long to wait for a cluster to grow a node that has room for a worker at all."""
_SHORT_S = 1.0
"""Units that take less: handing one out takes milliseconds. Longer ones are not queued, lest one waits for its worker
while another worker has nothing to do."""
_SECOND_START_S = 180.0
"""How long Ray may take for its second start."""
_OWN_MEMORY = "memory:"
"""A store that no other process sees."""
_OBJECT_STORE_BYTES = 512 << 20
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")


class WorkerPool:
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
        self._apart: Apart | None = None
        self._handles: _WorkerHandles | None = None
        self._owns_ray = False

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._apart is not None:
            self._apart.close()
        self._here = self._handles = self._apart = None
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
            Refused: a worker cannot load a model, or there are no GPUs.
            StoreDenied: a store does not let the workers in.
        """
        status = Status(units=len(tasks), weight=sum(task.weight for task in tasks))
        if not tasks:
            return status
        if self._pool.workers == 0:
            if self._pool.item_timeout_s is not None and not notes.url.startswith(_OWN_MEMORY):
                self._apart = self._apart or Apart(self._job, self._pool.item_timeout_s)
                self._apart.run(tasks, notes, status, on_status)
            else:
                self._here = self._here or self._job.start()
                run_inline(self._here, tasks, notes, status, on_status)
            record(title, status, 0, notes)
            return status
        if self._handles is None:
            self._owns_ray = connect(self._pool)
            self._handles = _WorkerHandles(self._job, self._pool)
        driver = _Driver(self._handles, tasks, notes, status, on_status)
        driver.run()
        record(title, status, driver.workers, notes)
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
    """One list of tasks with a pool of its own; arguments and errors as for `WorkerPool`."""
    with WorkerPool(job, pool) as pool_of_workers:
        return pool_of_workers.run(title, tasks, notes=notes, on_status=on_status)


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
        # where refloom lies, which workers must find, installed or not; following the link would lead past it
        here = str(Path(__file__).absolute().parents[3])
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(paths), **one_thread})
        _start_here(
            address="local",  # never one that RAY_ADDRESS or an earlier command of this machine names
            num_cpus=max(os.cpu_count() or 1, math.ceil((pool.workers or 1) * pool.cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # ray replaces it by one that does not unwind
    return True


def _start_here(**options: Any) -> None:
    """Start Ray on this machine; where it times out on a busy one, once more with a longer time.

    Raises:
        Refused: the folder that Ray writes to cannot be used.
        JobStopped: it does not start the second time either.
    """
    raystart.check_folder()
    for seconds in (0.0, _SECOND_START_S):
        try:
            with _patient(seconds):
                ray.init(**options)
            return
        except Exception as error:  # Ray raises bare exceptions here
            ray.shutdown()
            if isinstance(error, OSError) and (known := foreseen(error)) is not None:
                raise known from error
            why = error
    raise JobStopped(
        f"Ray does not start on this machine ({_last_line(str(why)) or type(why).__name__}): it may be busy, or out of "
        "memory; wait and run the same command again, or use --workers 0, which needs no Ray"
    ) from why


@contextmanager
def _patient(seconds: float) -> Iterator[None]:
    """Let Ray wait that long for the node that it starts: it gives up after half a minute and has no setting."""
    find = services.get_node
    end = time.monotonic() + seconds

    def find_in_time(*arguments: Any, **named: Any) -> Any:
        while True:
            try:
                return find(*arguments, **named)
            except RuntimeError:  # it is not there yet
                if time.monotonic() > end:
                    raise
            time.sleep(_POLL_S)

    if seconds:
        services.get_node = find_in_time
    try:
        yield
    finally:
        services.get_node = find


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

    def __init__(self, store_variables: dict[str, str] | None) -> None:
        """Take the variables of stores from the driver, or keep those of the node with None."""
        if store_variables is not None:
            for name in _store_variables():
                del os.environ[name]
            os.environ.update(store_variables)

    def start(self, job: Sequence[Any], wanted: Sequence[Needed], progress_actor: Any, timeout_s: float) -> None:
        """Be ready; `job` holds a reference to it, which is read when the plugins are there that it may be made of."""
        use_one_thread()
        keep_freed_memory()
        require(wanted)
        with store_errors_stop():
            self._worker = ray.get(job[0]).start()
        self._progress_actor, self._timeout_s = progress_actor, timeout_s

    def run(self, task: Task, notes_url: str, attempt: int, skip: dict[str, str]) -> Tally:
        def report(unit: str, tally: Tally) -> None:
            self._progress_actor.post.remote(notes_url, unit, dict(tally))

        notes = Folder(notes_url)
        watch = Watch(task.unit, notes, attempt=attempt, skip=skip, report=report, timeout_s=self._timeout_s)
        with store_errors_stop(), watch:
            self._worker.run(task, watch)
        return watch.tally


def _store_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper().startswith(STORE_VARIABLES)}


class _ProgressActor:
    """Where workers post how far they are, run by run: units of two runs may have one name."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], dict[str, int]] = {}

    def post(self, run: str, unit: str, tally: dict[str, int]) -> None:
        self._tallies[run, unit] = tally

    def read(self, run: str) -> dict[str, dict[str, int]]:
        self._tallies = {key: tally for key, tally in self._tallies.items() if key[0] == run}
        return {unit: tally for (_, unit), tally in self._tallies.items()}


@dataclass(eq=False, slots=True)
class _WorkerHandle:
    """A worker that is there, and references to its runs, in the order in which it does them."""

    actor: Any
    runs: deque[Any] = field(default_factory=deque)
    is_dead: bool = False


class _WorkerHandles:
    """The workers of a pool: those that are there, and those that are coming.

    Attributes:
        there: what can be given work.
        coming: reference to the start of an actor that will be there.
        progress actor: where they post.
    """

    def __init__(self, job: Job, pool: Pool) -> None:
        self._job, self.pool = ray.put(job), pool
        self.there: list[_WorkerHandle] = []
        self.coming: dict[Any, Any] = {}
        self.progress_actor = ray.remote(num_cpus=0, max_restarts=-1)(_ProgressActor).remote()
        self._process = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_restarts=0)(_Process)
        self._stillborn = 0

    def size(self) -> int:
        """How many workers the pool may have.

        Raises:
            Refused: workers ask for GPUs and there are none.
        """
        resources = ray.cluster_resources()
        # else the first worker would wait for one for ever; a cluster may get some when they are asked for
        if self.pool.address is None and resources.get("GPU", 0) < self.pool.gpus:
            raise Refused(
                f"a worker asks for {self.pool.gpus:g} GPUs and Ray sees {resources.get('GPU', 0):g} here: use "
                "models.device=cpu, or --address of a cluster that has GPUs"
            )
        if self.pool.workers is not None:
            return self.pool.workers
        if self.pool.gpus:
            return max(1, int(resources.get("GPU", 0) / self.pool.gpus))
        return max(1, int(resources.get("CPU", 1) / self.pool.cpus))

    def has_room(self) -> bool:
        """Whether some node is large enough for a worker, be it busy or not."""
        return any(
            node["Alive"]
            and node["Resources"].get("CPU", 0) >= self.pool.cpus
            and node["Resources"].get("GPU", 0) >= self.pool.gpus
            for node in ray.nodes()
        )

    def fill(self, count: int) -> None:
        """Ask for workers until there will be `count`."""
        for _ in range(count - len(self.there) - len(self.coming)):
            # a Ray that was started before the driver had its credentials has others; a cluster's nodes have their own
            actor = self._process.remote(_store_variables() if self.pool.address is None else None)
            start = actor.start.remote([self._job], needed(), self.progress_actor, self.pool.timeout_s)
            self.coming[start] = actor

    def welcome(self, reference: Any) -> bool:
        """A worker is there (True), or will never be (False).

        Raises:
            RefloomError: what the worker refuses to start for, or that no worker can start.
        """
        actor = self.coming.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, RefloomError):
                raise error.cause from None
            raise JobStopped(f"a worker could not start: {type(error.cause).__name__}: {error.cause}") from None
        except RayActorError as error:
            self._stillborn += 1
            if "creation task" in str(error) or self._stillborn == ATTEMPTS * self.size():
                raise JobStopped(f"a worker could not start: {_last_line(str(error))}") from None
            return False
        self._stillborn = 0
        self.there.append(_WorkerHandle(actor))
        return True

    def lose(self, handle: _WorkerHandle) -> None:
        """A worker has died; one that is out of reach may still be at work."""
        handle.is_dead = True
        self.there.remove(handle)
        ray.kill(handle.actor)


class _Driver:
    """Hands out units and keeps the account of attempts."""

    def __init__(
        self,
        handles: _WorkerHandles,
        tasks: Sequence[Task],
        notes: Folder,
        status: Status,
        on_status: Callable[[Status], None] | None,
    ) -> None:
        self._handles, self._notes = handles, notes
        self._status, self._on_status = status, on_status
        self._tasks = {task.unit: task for task in tasks}
        self._account = Account(self._tasks)
        self._finished: Tally = Counter()
        self._running: dict[Any, tuple[_WorkerHandle, str]] = {}
        self.workers = min(handles.size(), len(tasks))
        self._reading: Any = None
        self._posted: dict[str, dict[str, int]] = {}

    def run(self) -> None:
        last_status = roomy = time.monotonic()
        while self._account or self._running:
            if not self._account.is_paused(time.monotonic()):
                self._handles.fill(self.workers)
                self._hand_out()
            for reference in self._next_events():
                if reference in self._handles.coming:
                    self._welcome(reference)
                elif reference in self._running:
                    runs = self._running[reference][0].runs
                    while reference in runs:  # what the worker did before is settled before
                        self._settle(runs.popleft())
            now = time.monotonic()
            if now - last_status > 2 * _POLL_S:
                last_status = now
                self._show()
                pool = self._handles.pool
                if self._handles.there or self._handles.has_room():
                    roomy = now
                elif now - roomy > (0 if pool.address is None else _ROOM_S):
                    raise JobStopped(f"no node has room for a worker of {pool.cpus} CPU and {pool.gpus} GPU")
        self._show()
        if broken := self._account.broken:
            units = some((f"{unit}: {why}" for unit, why in sorted(broken.items())), between="; ")
            raise JobStopped(
                f"{len(broken)} of {self._status.units} units could not be done ({units}); details in {self._notes.url}"
            )

    def _next_events(self) -> list[Any]:
        """References of runs and starts that have ended, at once when there is one."""
        watched = [*self._running, *self._handles.coming]
        if not watched:  # all are idle, for a store refuses
            time.sleep(_POLL_S)
            return []
        ended: list[Any] = ray.wait(watched, num_returns=1, timeout=_POLL_S)[0]
        return ended

    def _welcome(self, reference: Any) -> None:
        try:
            if not self._handles.welcome(reference):
                self._status.restarts += 1
        except StoreUnavailable as error:  # as where a unit meets it: another worker starts when the pause is over
            self._status.refused = str(error)
            if not self._account.wait(time.monotonic()):
                raise

    def _hand_out(self) -> None:
        for handle in sorted(self._handles.there, key=lambda handle: len(handle.runs)):
            if len(handle.runs) >= self._depth() or (unit := self._account.take(time.monotonic())) is None:
                return
            if not self._running and not self._status.done:
                self._status.started = time.monotonic()  # the start of Ray is not the job's
            attempts = self._account[unit]
            reference = handle.actor.run.remote(self._tasks[unit], self._notes.url, attempts.next, attempts.skip)
            handle.runs.append(reference)
            self._running[reference] = (handle, unit)

    def _depth(self) -> int:
        """How many units a worker holds: one, and one that waits while many are left and the way here is felt."""
        is_short = time.monotonic() - self._status.started < _SHORT_S * self._status.done / self.workers
        return 2 if is_short and len(self._account) > self.workers else 1

    def _settle(self, reference: Any) -> None:
        handle, unit = self._running.pop(reference)
        try:
            tally: Tally = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, StoreUnavailable):
                self._status.refused = str(error.cause)
                if not self._account.refused(unit, time.monotonic()):
                    raise error.cause from None
                return
            if isinstance(error.cause, RefloomError):  # it would be the same for every unit
                raise error.cause from None
            report = f"{unit}.attempt-{self._account[unit].next}.txt"
            self._notes.write(report, str(error).encode("utf-8", "backslashreplace"))
            self._account.raised(unit, f"{type(error.cause).__name__}: {error.cause}")
        except RayActorError:
            if handle.is_dead:  # the unit only waited there
                self._account.back(unit)
                return
            self._handles.lose(handle)
            item, timed_out = last_words(self._notes, unit)
            self._account.crashed(unit, item, timed_out)
            self._status.restarts += 1
        else:
            self._account.done()
            self._finished.update(tally)
            self._status.refused = None
            self._status.done += 1
            self._status.weight_done += self._tasks[unit].weight

    def _show(self) -> None:
        under_work = {unit for _, unit in self._running.values()}
        posted, tally = self._read_progress(), Counter(self._finished)
        for unit in under_work & posted.keys():
            tally.update(posted[unit])
        self._status.tally = tally
        if self._on_status is not None:
            self._on_status(self._status)

    def _read_progress(self) -> dict[str, dict[str, int]]:
        """What workers had posted half a second ago. Nobody waits: the actor may be busy, its node dead."""
        if self._reading is not None and ray.wait([self._reading], timeout=0)[0]:
            with suppress(RayActorError):
                self._posted = ray.get(self._reading)
            self._reading = None
        if self._reading is None:
            self._reading = self._handles.progress_actor.read.remote(self._notes.url)
        return self._posted


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), text)
