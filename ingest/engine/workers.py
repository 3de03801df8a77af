"""Workers as Ray actors: what runs in each, how they start, and how the driver holds them."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from refloom.ingest.apart import use_one_thread
from refloom.ingest.engine.heap import keep_freed_memory
from refloom.ingest.engine.retries import ATTEMPTS
from refloom.ingest.engine.tasks import Job, Pool, Task
from refloom.ingest.engine.watch import Tally, Watch
from refloom.schemas.errors import JobStopped, RefloomError, Refused
from refloom.schemas.plugins import Needed, needed, require
from refloom.schemas.storage import STORE_VARIABLES, Folder
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.wording import last_line


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
class WorkerHandle:
    """A worker that is there, and references to its runs, in the order in which it does them."""

    actor: Any
    runs: deque[Any] = field(default_factory=deque)
    is_dead: bool = False


class WorkerHandles:
    """The workers of a pool: those that are there, and those that are coming.

    Attributes:
        there: what can be given work.
        coming: reference to the start of an actor that will be there.
        progress actor: where they post.
    """

    def __init__(self, job: Job, pool: Pool) -> None:
        self._job, self.pool = ray.put(job), pool
        self.there: list[WorkerHandle] = []
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
                raise JobStopped(f"a worker could not start: {last_line(str(error))}") from None
            return False
        self._stillborn = 0
        self.there.append(WorkerHandle(actor))
        return True

    def lose(self, handle: WorkerHandle) -> None:
        """A worker has died; one that is out of reach may still be at work."""
        handle.is_dead = True
        self.there.remove(handle)
        ray.kill(handle.actor)
