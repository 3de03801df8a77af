"""The folder of a run, which the first process writes for all."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

from refloom.schemas.lease import Lease
from refloom.schemas.storeerrors import full_disk_stops
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, trainedon
from refloom.training.run.log import RunLog
from refloom.training.run.opening import Begun, Note, begin, enter
from refloom.training.run.processes import by_first
from refloom.training.watch import page
from refloom.training.watch.validation import Validator

T = TypeVar("T")


class RunFolder:
    """The folder of a run: its lease, log, checkpoints and what is trained in the end.

    Attributes:
        path: of the folder.
        log: of the run, on the first process once it is entered; None on the others.

    Args:
        path: see there.
        recipe: to train.
        note: told what a user should know of how the run goes on.
    """

    def __init__(self, path: Path, recipe: Recipe, note: Note) -> None:
        self.path = path
        self.log: RunLog | None = None
        self._recipe, self._note = recipe, note
        self._lease: Lease  # of the first process, once the folder is taken

    def first_does(self, work: Callable[[], T]) -> T:
        """Let the first process do something in the folder; see `by_first`.

        Raises:
            JobStopped: the disk is full.
        """

        def noticing() -> T:
            with full_disk_stops(str(self.path), checkpoint.AGAIN):
                return work()

        return by_first(noticing)

    def take(self, resume: str | None, trained: Collection[str], held: ExitStack) -> Begun:
        """Take the folder; arguments and what is raised as of `begin`."""

        def work() -> Begun:
            begun, self._lease = begin(self._recipe, self.path, resume, trained, self._note, held)
            return begun

        return self.first_does(work)

    def enter(
        self,
        begun: Begun,
        validator: Validator,
        show: Callable[[dict[str, Any]], None],
        sources: list[dict[str, Any]],
    ) -> int:
        """Make the folder that of the run as it goes on now; returns what the function `enter` does.

        Args:
            begun: of `take`.
            validator: of the run.
            show: told each line of the log.
            sources: of the loader, which the folder keeps.
        """

        def work() -> int:
            shared = enter(self._recipe, self.path, begun, self._note)
            trainedon.keep(self.path, begun.step, sources)
            validator.begin(begun.step)
            self.log = RunLog(self.path, begun.step, show)
            return shared

        return self.first_does(work)

    def apart(self) -> AbstractContextManager[None]:
        """What is done inside this block is no training, and its time does not count."""
        return self.log.apart() if self.log else nullcontext()

    def add(self, entry: dict[str, Any]) -> None:
        """Write a line of the log; called by the first process."""
        self._lease.check()
        if self.log:
            self.log.add(entry)
        page.write(self.path)

    def save(self, step: int, fill: Callable[[Path], None]) -> None:
        """Write the checkpoint of a step; called by all.

        Args:
            step: steps that are done.
            fill: writes it into a folder.
        """

        def work() -> None:
            self._lease.check(look=True)
            checkpoint.write(self.path, step, fill, self._recipe.checkpoints)

        self.first_does(work)

    def export(self, write: Callable[[Path], None]) -> Path:
        """Write what was trained beside an earlier one, and then in its place; called by all.

        Args:
            write: writes it into a folder.

        Returns:
            Its folder.
        """
        place = self.path / checkpoint.ADAPTER
        partly = place.with_name(f"{place.name}.partial")

        def work() -> None:
            self._lease.check(look=True)
            rmtree(partly, ignore_errors=True)
            try:
                write(partly)
            except BaseException:
                rmtree(partly, ignore_errors=True)
                raise
            rmtree(place, ignore_errors=True)
            partly.rename(place)

        self.first_does(work)
        return place
