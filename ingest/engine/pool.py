"""The engine: units of work on a pool of workers, which are Ray actors or, with `workers=0`, one child process.

Workers write and commit their units. Ray is imported here and in the three files beside this one only: `cluster.py`
starts or joins it, `workers.py` is what runs in its actors, `driver.py` hands out the work.
"""

from collections.abc import Callable, Sequence
from types import TracebackType

import ray

from refloom.ingest.apart import Apart
from refloom.ingest.engine.cluster import connect
from refloom.ingest.engine.driver import Driver
from refloom.ingest.engine.inline import run_inline
from refloom.ingest.engine.retries import ATTEMPTS
from refloom.ingest.engine.tasks import Job, Pool, Status, Task, Worker, record
from refloom.ingest.engine.workers import WorkerHandles
from refloom.schemas.storage import Folder

__all__ = ["ATTEMPTS", "Job", "Pool", "Status", "Task", "Worker", "WorkerPool", "connect", "run"]

_OWN_MEMORY = "memory:"
"""A store that no other process sees."""


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
        self._handles: WorkerHandles | None = None
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
            self._handles = WorkerHandles(self._job, self._pool)
        driver = Driver(self._handles, tasks, notes, status, on_status)
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
