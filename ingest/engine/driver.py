"""The driver of a job: it hands one unit at a time to each worker and keeps the account of attempts itself.

That is what makes a row that kills its process cost one row: the dead attempt's note names the item, the item gets
`ATTEMPTS` tries, and the unit then goes on without it. A worker gets units from when it is there, so that workers for
which a cluster has no room cost nothing. The driver sees counts only, never a picture.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from refloom.ingest.engine.retries import Account
from refloom.ingest.engine.tasks import Status, Task
from refloom.ingest.engine.watch import Tally, last_words
from refloom.ingest.engine.workers import WorkerHandle, WorkerHandles
from refloom.schemas.errors import JobStopped, RefloomError, StoreUnavailable
from refloom.schemas.storage import Folder

_POLL_S = 0.25
_ROOM_S = 600.0
"""How long to wait for a cluster to grow a node that has room for a worker at all."""
_SHORT_S = 1.0
"""Units that take less: handing one out takes milliseconds. Longer ones are not queued, lest one waits for its worker
while another worker has nothing to do."""


class Driver:
    """Hands out units and keeps the account of attempts."""

    def __init__(
        self,
        handles: WorkerHandles,
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
        self._running: dict[Any, tuple[WorkerHandle, str]] = {}
        self.workers = min(handles.size(), len(tasks))
        self._reading: Any = None
        self._posted: dict[str, dict[str, int]] = {}

    def run(self) -> None:
        """Until every unit is done or given up.

        Raises:
            JobStopped: some units could not be done, nothing has room for a worker, or a store refuses for too long.
            RefloomError: what a worker refuses to start for, or meets that would be the same for every unit.
        """
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
        self._account.stop_if_broken(self._status.units, self._notes.url)

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
