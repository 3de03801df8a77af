"""The training loop; `strategy` says how it is spread over processes.

Batches, draws, noise and timesteps are functions of the seed (`training.data`), so a run needs no state of any random
generator: it goes on with the step, the weights, the optimiser and the place in the stream of samples.
"""

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

from inference.adapters import weights
from inference.tensorfile import read_safetensors
from schemas.errors import JobStopped, Refused
from schemas.manifest import flatten
from schemas.settings import to_dict
from training import checkpoint, flops, optimizer, page, strategy, validation
from training.average import MovingAverage
from training.checkpoint import Checkpoint
from training.data.loader import Batch, Loader
from training.frozen import DTYPES
from training.journal import Journal, memory_bytes, speed
from training.preflight import features, look
from training.recipes import book
from training.recipes.recipe import Recipe
from training.stopping import Stopping
from training.validation import Validator

Line = dict[str, Any]


def train(
    recipe: Recipe, run: Path, *, resume: str | None = None, show: Callable[[Line], None] = lambda line: None
) -> Path:
    """Train an adapter, or a base.

    Args:
        recipe: what, on what and how.
        run: folder of the run; see `checkpoint`.
        resume: `latest` or a checkpoint's folder, to go on from; None starts.
        show: told each line of the log, by the first process.

    Returns:
        The folder of what was trained.

    Raises:
        Refused: something does not fit together; said before models are loaded where that can be.
        JobStopped: it was asked to stop, and has saved where it is; or the losses are not finite.
    """
    outlook = look(recipe, strategy.processes())
    spread = strategy.start(recipe, outlook, run)
    accelerator = spread.accelerator
    world, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    stores = features(recipe)
    begun = _begin(recipe, run, resume)
    state = begun.state() if begun else {"loader": None}
    start = recipe.starting_from(str(begun.path / checkpoint.ADAPTER)) if begun else recipe
    with ExitStack() as open_until_the_end:
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
        validator = Validator(recipe, run, begun.step if begun else 0, rank=rank, world=world)
        adapter = open_until_the_end.enter_context(outlook.task.ready(start, device))
        named = optimizer.tune(adapter, recipe.tuned)
        adamw = optimizer.build(named, recipe.optimizer)
        average = MovingAverage(named, recipe.ema) if recipe.ema else None
        if begun and average:
            average.load(read_safetensors(begun.path / checkpoint.AVERAGE))
        step_of = outlook.task.step(adapter, recipe)
        first = next(loader)
        # before weights are cut up among processes
        with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "no"):
            step_flops = outlook.accumulation * flops.of_micro_batch(
                step_of, next(first.parts(recipe.batch.micro)), named.values()
            )
        model, prepared = spread.prepare(step_of, named, adamw)
        if begun:
            spread.load(read_safetensors(begun.path / checkpoint.OPTIMIZER))
        if begun and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])

        def save(step: int, batch: Batch) -> None:
            states = spread.state()

            def fill(folder: Path) -> None:
                outlook.task.save(adapter, folder / checkpoint.ADAPTER, run)
                weights.write_safetensors(folder / checkpoint.OPTIMIZER, states)
                if average:
                    weights.write_safetensors(folder / checkpoint.AVERAGE, average.averages)
                scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
                checkpoint.write_state(folder, {"step": step, "loader": batch.state, "scaler": scaler})

            with spread.whole():
                if accelerator.is_main_process:
                    checkpoint.write(run, step, fill, recipe.checkpoints)
                accelerator.wait_for_everyone()

        done = begun.step if begun else 0
        meter = Meter(device)
        journal = Journal(run, done, show) if accelerator.is_main_process else None
        if recipe.trackers:
            accelerator.init_trackers("tracker", config=_flat(recipe))
            open_until_the_end.callback(accelerator.end_training)
        stopping = open_until_the_end.enter_context(Stopping(world))
        rates = [group["lr"] for group in prepared.param_groups]
        shown, peak = 0, flops.peak(device, recipe.precision)

        def validate(step: int) -> None:
            with journal.apart() if journal else nullcontext():
                with spread.whole(), average.in_place() if average else nullcontext():
                    made = validator.make(step, adapter)
                if journal:
                    validation.track(accelerator.trackers, step, made)
                    page.write(run)

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
                    meter.add_loss(loss / outlook.accumulation)
                    if accelerator.sync_gradients:
                        meter.add_norm(spread.clipped(recipe.optimizer.clip))
                    prepared.step()
                    prepared.zero_grad()
            if average:
                average.update(step)
            last = step + 1 == recipe.steps
            stop = stopping.asked() and not last
            if (step + 1) % recipe.log_every == 0 or last or stop:
                line = meter.read(accelerator) | {"lr": rates[0] * share}
                if journal:
                    seconds = journal.seconds() / line.pop("steps")
                    line |= speed(seconds, recipe.batch.samples, step_flops, peak)
                    line |= {"memory_bytes": memory_bytes(device), "replaced": len(loader.replaced)}
                    lost = [asdict(one) for one in loader.replaced[shown:]]
                    shown = len(loader.replaced)
                    journal.add({"step": step + 1, "samples": (step + 1) * recipe.batch.samples, **line, "lost": lost})
                    page.write(run)
                if recipe.trackers:
                    accelerator.log(line, step=step + 1)
                if line["bad_in_a_row"] >= recipe.max_bad_steps:
                    raise JobStopped(
                        f"{line['bad_in_a_row']} steps in a row had no finite gradient by step {step + 1}: lower "
                        "optimizer.lr or use precision=bf16, and go on from an earlier checkpoint"
                    )
            if (step + 1) % recipe.checkpoints.every == 0 or last or stop:
                save(step + 1, batch)
            if not stop and validator.due(step + 1, last=last):
                validate(step + 1)
            if stop:
                raise JobStopped(f"stopped after step {step + 1} as asked, and saved: go on with --resume latest")

        with spread.whole(), average.in_place() if average else nullcontext():
            if accelerator.is_main_process:
                adapter.save_pretrained(run / checkpoint.ADAPTER)
            accelerator.wait_for_everyone()
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


def _begin(recipe: Recipe, run: Path, resume: str | None) -> Checkpoint | None:
    """The checkpoint to go on from; writes the recipe down.

    Raises:
        Refused: the folder holds a run that nobody asked to go on with.
    """
    begun = checkpoint.find(run, resume) if resume else None
    if begun is None and checkpoint.complete(run):
        raise Refused(f"{run} holds a run with checkpoints: give --resume latest to go on with it, or another --out")
    state = PartialState()
    state.wait_for_everyone()
    if state.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        if begun is None:
            (run / weights.FROZEN_FILE).unlink(missing_ok=True)
        (run / "recipe.yaml").write_text(book.dump(recipe), "utf-8")
    state.wait_for_everyone()
    return begun


def _flat(recipe: Recipe) -> dict[str, Any]:
    """For trackers, which take numbers and words."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(to_dict(recipe)).items()
    }
