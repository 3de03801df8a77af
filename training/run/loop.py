"""The training loop; `start` says how it is spread over processes.

Batches, draws, noise and timesteps are functions of the seed (`training.data`), so a run needs no state of any random
generator: it goes on with the step, the weights, the optimiser and the place in the stream of samples.
"""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.tensors import read_safetensors
from refloom.schemas.errors import JobStopped
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import flatten
from refloom.schemas.settings import to_dict
from refloom.schemas.storage import full_disk_stops, local_path
from refloom.training.data.loader import Batch, Loader
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, flops, optimizer
from refloom.training.run import log as logs
from refloom.training.run.ema import MovingAverage
from refloom.training.run.frozen import DTYPES
from refloom.training.run.log import RunLog, memory_bytes, speed
from refloom.training.run.opening import Begun, Note, begin, enter, whose
from refloom.training.run.preflight import TrainingPlan, features, look
from refloom.training.run.processes import by_first, processes
from refloom.training.run.start import start
from refloom.training.run.stopping import Stopping
from refloom.training.watch import page, validation
from refloom.training.watch.validation import Validator

Line = dict[str, Any]
T = TypeVar("T")


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: str | None = None,
    show: Callable[[Line], None] = lambda line: None,
    note: Note = lambda text: None,
) -> Path:
    """Train an adapter, or a base.

    Args:
        recipe: what, on what and how.
        run: folder of the run; see `checkpoint`.
        resume: `latest` or a checkpoint's folder, to go on from; None starts. What the run did after an earlier
            checkpoint is set aside; see `branches`.
        show: told each line of the log, by the first process.
        note: told what a user should know of how the run goes on, by the first process.

    Returns:
        The folder of what was trained.

    Raises:
        Refused: something does not fit together; said before models are loaded where that can be.
        JobStopped: it was asked to stop, and has saved where it is; the losses are not finite; or the disk is full.
    """
    run = local_path(run, "a run of training")
    plan = look(recipe, processes())
    with full_disk_stops(str(run), checkpoint.AGAIN), ExitStack() as open_until_the_end:
        spread = start(recipe, plan, run)
        accelerator = spread.accelerator
        world, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
        stores = features(recipe)
        leases: list[Lease] = []

        def first_does(work: Callable[[], T]) -> T:
            def noticing() -> T:
                with full_disk_stops(str(run), checkpoint.AGAIN):
                    return work()

            return by_first(noticing)

        def take() -> Begun:
            begun, lease = begin(recipe, run, resume, plan.names, note, open_until_the_end)
            leases.append(lease)
            return begun

        begun = first_does(take)
        last, state, done = begun.last, begun.state, begun.step
        started = recipe.starting_from(str(last.path / checkpoint.ADAPTER)) if last else recipe
        loader = open_until_the_end.enter_context(
            Loader(
                recipe.data.sources,
                recipe.view,
                recipe.loading,
                rank=rank,
                world=world,
                state=state["loader"],
                stores=stores,
            )
        )
        validator = Validator(recipe, run, rank=rank, world=world)
        frozen = run / weights.FROZEN_FILE if accelerator.is_main_process else None
        adapter = open_until_the_end.enter_context(plan.task.ready(started, device, frozen=frozen))
        named = optimizer.tune(adapter, recipe.tuned)
        adamw = optimizer.build(named, recipe.optimizer)
        average = _average(recipe, named, begun)
        step_of = plan.task.step(adapter, recipe)
        first = next(loader)
        # before weights are cut up among processes
        with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "no"):
            step_flops = plan.accumulation * flops.of_micro_batch(
                step_of, next(first.parts(recipe.batch.micro)), named.values()
            )
        model, prepared = spread.prepare(step_of, named, adamw)
        if last:
            spread.load(read_safetensors(last.path / checkpoint.OPTIMIZER))
            if accelerator.scaler is not None and state["scaler"]:  # else it was trained in another precision
                accelerator.scaler.load_state_dict(state["scaler"])

        def save(step: int, batch: Batch) -> None:
            states = spread.state()

            def fill(folder: Path) -> None:
                plan.task.save(adapter, folder / checkpoint.ADAPTER, run)
                weights.write_safetensors(folder / checkpoint.OPTIMIZER, states)
                (folder / checkpoint.RECIPE).write_text(book.dump(recipe), "utf-8")
                if average:
                    weights.write_safetensors(folder / checkpoint.AVERAGE, average.averages)
                scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
                since = {"average_since": average.since} if average and average.since else {}
                checkpoint.write_state(
                    folder, {"step": step, "loader": batch.state, "scaler": scaler, **since, **whose(recipe)}
                )

            def write() -> None:
                leases[0].check(look=True)
                checkpoint.write(run, step, fill, recipe.checkpoints)

            with spread.whole():
                first_does(write)

        meter = Meter(device)
        opened: list[RunLog] = []

        def open_folder() -> int:
            shared = enter(recipe, run, begun, note)
            validator.begin(done)
            opened.append(RunLog(run, done, show))
            return shared

        accelerator.wait_for_everyone()  # all have read the checkpoint, which may move now
        shared = first_does(open_folder)
        run_log = opened[0] if opened else None
        if recipe.trackers:
            # what an earlier process told it of later steps is hidden
            options = {"tensorboard": {"purge_step": shared + 1}} if last else {}
            accelerator.init_trackers("tracker", config=_flat(recipe), init_kwargs=options)
            open_until_the_end.callback(accelerator.end_training)
            if run_log:
                _tell_again(accelerator, run, shared)
        stopping = open_until_the_end.enter_context(Stopping(world))
        rates = [group["lr"] for group in prepared.param_groups]
        shown, peak = 0, flops.peak(device, recipe.precision)

        def validate(step: int) -> None:
            with run_log.apart() if run_log else nullcontext():
                with spread.whole(), average.in_place() if average else nullcontext():
                    made = validator.make(step, adapter)

                def keep() -> None:
                    validator.write(step, made)
                    validation.track(accelerator.trackers, step, made)
                    page.write(run)

                first_does(keep)

        def export() -> None:
            leases[0].check(look=True)
            _export(plan, adapter, run)

        def tell(entry: Line, line: Line) -> None:
            leases[0].check()
            if run_log:
                run_log.add(entry)
            page.write(run)
            if recipe.trackers:
                accelerator.log(line, step=entry["step"])

        if done == 0 and validator.due(0):
            validate(0)

        for step in range(done, recipe.steps):
            share = optimizer.factor(step, recipe.steps, recipe.optimizer)
            for group, rate in zip(prepared.param_groups, rates, strict=True):
                group["lr"] = rate * share
            batch = first if step == done else next(loader)
            for examples in batch.parts(recipe.batch.micro):
                # the conditions stay until gradients are there, which may compute activations again
                with accelerator.accumulate(model), ExitStack() as conditioned:
                    loss = model(examples, conditioned)
                    accelerator.backward(loss)
                    meter.add_loss(loss / plan.accumulation)
                    if accelerator.sync_gradients:
                        meter.add_norm(spread.clipped(recipe.optimizer.clip))
                    prepared.step()
                    prepared.zero_grad()
            if average:
                average.update(step)
            ends = step + 1 == recipe.steps
            stop = stopping.asked() and not ends
            if (step + 1) % recipe.log_every == 0 or ends or stop:
                line = meter.read(accelerator) | {"lr": rates[0] * share}
                entry: Line = {}
                if run_log:
                    seconds = run_log.seconds() / line.pop("steps")
                    line |= speed(seconds, recipe.batch.samples, step_flops, peak)
                    line |= {"memory_bytes": memory_bytes(device), "replaced": len(loader.replaced)}
                    lost = [asdict(one) for one in loader.replaced[shown:]]
                    shown = len(loader.replaced)
                    entry = {"step": step + 1, "samples": (step + 1) * recipe.batch.samples, **line, "lost": lost}
                first_does(partial(tell, entry, line))
                if line["bad_in_a_row"] >= recipe.max_bad_steps:
                    raise JobStopped(
                        f"{line['bad_in_a_row']} steps in a row had no finite gradient by step {step + 1}: lower "
                        "optimizer.lr or use precision=bf16, and go on from an earlier checkpoint"
                    )
            if (step + 1) % recipe.checkpoints.every == 0 or ends or stop:
                save(step + 1, batch)
            if not stop and validator.due(step + 1, last=ends):
                validate(step + 1)
            if stop:
                raise JobStopped(f"stopped after step {step + 1} as asked, and saved: go on with --resume latest")

        with spread.whole(), average.in_place() if average else nullcontext():
            first_does(export)
        return run / checkpoint.ADAPTER


class Meter:
    """Numbers of the steps since the last line of the log. They stay on the device until then.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss, self._norm = torch.zeros((), device=device), torch.zeros((), device=device)
        self._bad, self._bad_in_a_row = torch.zeros((), device=device), torch.zeros((), device=device)
        self._steps = 0

    def add_loss(self, loss: Tensor) -> None:
        """Of a micro-batch, its part of the step's."""
        self._loss += loss.detach().float()

    def add_norm(self, norm: Tensor) -> None:
        """Of a step's gradients, before clipping."""
        bad = ~norm.isfinite()
        self._norm += torch.where(bad, 0.0, norm)
        self._bad += bad
        self._bad_in_a_row = (self._bad_in_a_row + 1) * bad
        self._steps += 1

    def read(self, accelerator: Accelerator) -> Line:
        """Means over the steps and processes since this was last asked for; waits for the device."""
        loss = accelerator.reduce(self._loss, reduction="mean")
        found, norm, bad, row = torch.stack([loss, self._norm, self._bad, self._bad_in_a_row]).tolist()
        steps = self._steps
        for one in (self._loss, self._norm, self._bad):
            one.zero_()
        self._steps = 0
        good = max(1, steps - int(bad))
        return {
            "loss": found / steps,
            "gradient_norm": norm / good,
            "bad_steps": int(bad),
            "bad_in_a_row": int(row),
            "steps": steps,
        }


def _average(recipe: Recipe, named: dict[str, torch.nn.Parameter], begun: Begun) -> MovingAverage | None:
    """The moving average as it goes on, or as it begins where the run had none."""
    if not recipe.ema:
        return None
    kept = begun.last.path / checkpoint.AVERAGE if begun.last else None
    if kept is None or not kept.is_file():
        return MovingAverage(named, recipe.ema, begun.step)
    average = MovingAverage(named, recipe.ema, begun.state.get("average_since", 0))
    average.load(read_safetensors(kept))
    return average


def _export(plan: TrainingPlan, adapter: Any, run: Path) -> None:
    """Write what was trained beside an earlier one, and then in its place."""
    place = run / checkpoint.ADAPTER
    partly = place.with_name(f"{place.name}.partial")
    rmtree(partly, ignore_errors=True)
    try:
        plan.task.export(adapter, partly, run)
    except BaseException:
        rmtree(partly, ignore_errors=True)
        raise
    rmtree(place, ignore_errors=True)
    partly.rename(place)


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
