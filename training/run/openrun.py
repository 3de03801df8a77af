"""An open run: its folder, its data and what it trains, which saves, validates and tells how it goes."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from refloom.inference.checkpoints import weights
from refloom.schemas.errors import JobStopped
from refloom.schemas.manifest import flatten
from refloom.schemas.settings import to_dict
from refloom.training.data.loader import Batch, Loader
from refloom.training.features.store import Store
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, flops
from refloom.training.run import log as logs
from refloom.training.run.folder import RunFolder
from refloom.training.run.log import memory_bytes, speed
from refloom.training.run.meter import Meter
from refloom.training.run.opening import Begun, Note
from refloom.training.run.preflight import TrainingPlan, features
from refloom.training.run.start import start
from refloom.training.run.trained import Trained
from refloom.training.watch import page, validation
from refloom.training.watch.validation import Validator

Line = dict[str, Any]


class OpenRun:
    """A run that goes on. All processes call the same methods in the same order.

    Attributes:
        done: steps that were done before.

    Args:
        recipe: to train.
        plan: of the recipe.
        folder: of the run, entered.
        begun: where the run is.
        accelerator: of the run.
        trained: what it trains, spread over processes.
        loader: of its data.
        first: the first batch of the loader.
        validator: of the run.
        step_flops: of a step.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: TrainingPlan,
        folder: RunFolder,
        begun: Begun,
        accelerator: Accelerator,
        trained: Trained,
        loader: Loader,
        first: Batch,
        validator: Validator,
        step_flops: int,
    ) -> None:
        self.done = begun.step
        self._recipe, self._plan, self._folder, self._trained = recipe, plan, folder, trained
        self._accelerator, self._validator = accelerator, validator
        self._loader, self._batches = loader, chain((first,), loader)
        self._step_flops, self._peak = step_flops, flops.peak(accelerator.device, recipe.precision)
        self._meter, self._shown = Meter(accelerator.device), 0

    @property
    def world(self) -> int:
        """Processes."""
        return int(self._accelerator.num_processes)

    def train(self, step: int) -> Batch:
        """One step of the optimiser, counted from 0; returns its batch."""
        batch = next(self._batches)
        self._trained.step(step, batch, self._meter)
        return batch

    def tell(self, done: int) -> None:
        """A line of the log, of the steps since the last one.

        Args:
            done: steps that are done.

        Raises:
            JobStopped: the losses are not finite.
        """
        recipe, replaced = self._recipe, self._loader.replaced
        line = self._meter.read(self._accelerator) | {"lr": self._trained.rate(done - 1)}
        entry: Line = {}
        if self._folder.log:
            seconds = self._folder.log.seconds() / line.pop("steps")
            line |= speed(seconds, recipe.batch.samples, self._step_flops, self._peak)
            line |= {"memory_bytes": memory_bytes(self._accelerator.device), "replaced": len(replaced)}
            lost = [asdict(one) for one in replaced[self._shown :]]
            self._shown = len(replaced)
            entry = {"step": done, "samples": done * recipe.batch.samples, **line, "lost": lost}
        self._folder.first_does(partial(self._write_line, entry, line))
        if line["bad_in_a_row"] >= recipe.max_bad_steps:
            raise JobStopped(
                f"{line['bad_in_a_row']} steps in a row had no finite gradient by step {done}: lower "
                "optimizer.lr or use precision=bf16, and go on from an earlier checkpoint"
            )

    def _write_line(self, entry: Line, line: Line) -> None:
        self._folder.add(entry)
        if self._recipe.trackers:
            self._accelerator.log(line, step=entry["step"])

    def save(self, done: int, batch: Batch) -> None:
        """Write a checkpoint.

        Args:
            done: steps that are done.
            batch: of the last one.
        """
        fill = self._trained.filling(done, batch, self._folder.path)
        with self._trained.whole():
            self._folder.save(done, fill)

    def validate(self, done: int, *, last: bool = False) -> None:
        """Make pictures, if they are due after so many steps."""
        if not self._validator.due(done, last=last):
            return
        with self._folder.apart():
            with self._trained.averaged():
                made = self._validator.make(done, self._trained.adapter)

            def keep() -> None:
                self._validator.write(done, made)
                validation.track(self._accelerator.trackers, done, made)
                page.write(self._folder.path)

            self._folder.first_does(keep)

    def export(self) -> Path:
        """Write what was trained as it is given away; returns its folder."""
        with self._trained.averaged():
            return self._folder.export(
                lambda place: self._plan.task.export(self._trained.adapter, place, self._folder.path)
            )


@contextmanager
def open_run(
    recipe: Recipe,
    plan: TrainingPlan,
    run: Path,
    *,
    resume: str | None,
    show: Callable[[Line], None],
    note: Note,
) -> Iterator[OpenRun]:
    """A run that begins or goes on, inside this block; arguments and what is raised as of `loop.train`.

    Args:
        plan: of the recipe.
    """
    with ExitStack() as held:
        strategy = start(recipe, plan, run)
        accelerator = strategy.accelerator
        stores = features(recipe)
        folder = RunFolder(run, recipe, note)
        begun = folder.take(resume, plan.names, held)
        started = recipe.starting_from(str(begun.last.path / checkpoint.ADAPTER)) if begun.last else recipe
        loader = held.enter_context(_loader(recipe, accelerator, begun, stores))
        validator = Validator(recipe, run, rank=accelerator.process_index, world=accelerator.num_processes)
        frozen = run / weights.FROZEN_FILE if accelerator.is_main_process else None
        adapter = held.enter_context(plan.task.ready(started, accelerator.device, frozen=frozen))
        trained = Trained(recipe, plan, strategy, adapter, begun)
        first = next(loader)
        step_flops = trained.flops(first)  # before weights are cut up among processes
        trained.spread()
        accelerator.wait_for_everyone()  # all have read the checkpoint, which may move now
        shared = folder.enter(begun, validator, show, loader.sources)
        if recipe.trackers:
            _begin_trackers(recipe, accelerator, begun, shared)
            held.callback(accelerator.end_training)
            if folder.log:
                _tell_again(accelerator, run, shared)
        yield OpenRun(recipe, plan, folder, begun, accelerator, trained, loader, first, validator, step_flops)


def _loader(recipe: Recipe, accelerator: Accelerator, begun: Begun, stores: list[Store] | None) -> Loader:
    return Loader(
        recipe.data.sources,
        recipe.view,
        recipe.loading,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        state=begun.state["loader"],
        stores=stores,
    )


def _begin_trackers(recipe: Recipe, accelerator: Accelerator, begun: Begun, shared: int) -> None:
    # what an earlier process told it of later steps is hidden
    options = {"tensorboard": {"purge_step": shared + 1}} if begun.last else {}
    accelerator.init_trackers("tracker", config=_flat(recipe), init_kwargs=options)


def _tell_again(accelerator: Accelerator, run: Path, shared: int) -> None:
    """Tell trackers what the run did after some steps on a branch that they knew as another one."""
    for line in logs.read(run):
        if line["step"] > shared:
            numbers = {key: value for key, value in line.items() if key not in ("step", "samples", "lost")}
            accelerator.log(numbers, step=line["step"])
    for step, folder in validation.steps(run):
        if step > shared:
            validation.track(accelerator.trackers, step, validation.pictures_of(folder))


def _flat(recipe: Recipe) -> dict[str, Any]:
    """For trackers, which take numbers and words."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(to_dict(recipe)).items()
    }
