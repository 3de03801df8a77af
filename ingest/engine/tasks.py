"""What a job is to the engine: tasks, the workers that do them, how many there are, and how far they have come."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from refloom.ingest.engine.watch import ITEM_TIMEOUT_S, Tally, Watch
from refloom.schemas import strict
from refloom.schemas.ranges import ITEM_TIMEOUT, WORKERS, check_fields
from refloom.schemas.storage import Folder


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
        workers: number of processes; 0 does without Ray: in one child process where `item_timeout_s` is given, else in
            this process (for debugging); None takes all cores (or all GPUs, where each worker asks for one).
        address: of a Ray cluster, e.g. `auto` or `ray://host:10001`; None starts Ray on this machine.
        cpus, gpus: that each worker holds.
        item_timeout_s: longest time for one item; None takes `ITEM_TIMEOUT_S`.
    """

    workers: Annotated[int | None, WORKERS] = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    item_timeout_s: Annotated[float | None, ITEM_TIMEOUT] = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def timeout_s(self) -> float:
        """Longest time for one item of a worker that is a process of its own."""
        return ITEM_TIMEOUT_S if self.item_timeout_s is None else self.item_timeout_s


@dataclass(slots=True)
class Status:
    """How far a job has come.

    Attributes:
        units: number of all tasks, done before or now.
        done: units done in this run.
        weight, weight_done: of this run's tasks.
        tally: counts of all units, those under work included.
        restarts: workers that died.
        refused: why a store refuses just now; the job waits for it.
        started: when the first unit was handed out.
    """

    units: int
    weight: int
    done: int = 0
    weight_done: int = 0
    tally: Tally = field(default_factory=Counter)
    restarts: int = 0
    refused: str | None = None
    started: float = field(default_factory=time.monotonic)


def record(title: str, status: Status, workers: int, notes: Folder) -> None:
    """What a finished run took; clocks belong into runs/ and nowhere else."""
    figures = {
        "command": title,
        "seconds": round(time.monotonic() - status.started, 3),
        "items": status.tally["begun"],
        "bytes": status.tally["bytes"],
        "units": status.units,
        "workers": workers,
        "restarts": status.restarts,
    }
    notes.write("run.json", strict.dumps(figures, indent=1).encode() + b"\n")
