"""Jobs and sources that misbehave on purpose; a module of their own so that Ray workers can import them."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drawing import gradient

from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Picture, Plan, Record, UnitPlan
from refloom.schemas import pictures
from refloom.schemas.errors import JobStopped, StoreUnavailable


@dataclass(frozen=True)
class Odd:
    """A source of small pictures, some of which do something to the process that loads them.

    Attributes:
        trace: folder where every load of a picture is noted.
        actions: picture number to what happens when it is loaded.
        units, size: how many units of how many pictures.
        pause_s: how long a picture takes.
        company: how many processes must be at work before the first picture goes on.
    """

    trace: str
    actions: tuple[tuple[int, str], ...] = ()
    units: int = 4
    size: int = 5
    pause_s: float = 0.0
    kind: str = "folder"
    name: str = "folder"
    company: int = 1

    def plans(self) -> list[Plan]:
        units = tuple(
            UnitPlan(
                name=f"odd-{number}",
                task={"start": number * self.size},
                items={"image": self.size},
                size=0,
                identity={"number": number},
            )
            for number in range(self.units)
        )
        return [Plan("odd", units, {"source": self.kind})]

    def roots(self) -> dict[str, str]:
        return {}

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        start = unit.task["start"]
        for number in range(start, start + self.size):
            yield Picture(f"folder/{number}", f"{number}.jpg", lambda number=number: self._load(number))

    def _load(self, number: int) -> bytes:
        with open(Path(self.trace) / str(number), "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(self.pause_s)
        while number == 0 and len(self.workers()) < self.company:
            time.sleep(0.1)
        act(dict(self.actions).get(number, ""))
        return pictures.encode_jpeg(gradient(64, 48, number), 90)

    def workers(self) -> set[int]:
        """Processes that have loaded pictures."""
        return {int(line) for path in Path(self.trace).iterdir() for line in path.read_text().split()}

    def loads(self, number: int) -> int:
        """How often a picture was loaded, by all processes together."""
        path = Path(self.trace) / str(number)
        return len(path.read_text().splitlines()) if path.exists() else 0


def act(what: str) -> None:
    """Do to this process what the name says."""
    match what:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(3600)
        case "spin":  # inside native code that holds the interpreter lock
            pow(3, 10**9)
        case "raise":
            raise RuntimeError("nobody foresaw this")
        case "interrupt":
            raise KeyboardInterrupt
        case "memory":
            raise MemoryError
        case "disk":
            raise JobStopped("no space left for somewhere: free some and run the same command again, it resumes")


@dataclass(frozen=True)
class Broken:
    """A job that cannot start, or whose units cannot be done."""

    where: str

    def start(self) -> "Broken":
        if self.where == "start":
            raise RuntimeError("no such model")
        return self

    def run(self, task: Task, watch: Watch) -> None:
        watch.begin("item") if self.where != "before" else None
        if task.unit == "bad":
            if self.where == "before":
                act("segfault")
            raise RuntimeError("a bug")
        watch.verdict("image", "kept")


@dataclass(frozen=True)
class Unreached:
    """A job whose workers cannot start while a store is out of reach.

    Attributes:
        trace: folder where every try to start is noted.
        refusals: how many tries meet a store that does not answer.
    """

    trace: str
    refusals: int

    def start(self) -> "Unreached":
        with open(Path(self.trace) / "starts", "a") as file:
            file.write(f"{os.getpid()}\n")
        if self.starts() <= self.refusals:
            raise StoreUnavailable("the store cannot be reached")
        return self

    def run(self, task: Task, watch: Watch) -> None:
        watch.verdict("image", "kept")

    def starts(self) -> int:
        return len((Path(self.trace) / "starts").read_text().splitlines())
