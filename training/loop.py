"""The training loop. The only file that imports accelerate.

Batches, draws, noise and timesteps are functions of the seed (`training.data`), so a run needs no state of any random
generator: it goes on with the step, the weights, the optimiser and the place in the stream of samples.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from inference.adapters import weights
from schemas.errors import JobStopped, Refused
from schemas.manifest import flatten
from schemas.settings import to_dict
from training import checkpoint, flops, optimizer, page, validation
from training.average import MovingAverage
from training.checkpoint import Checkpoint
from training.data.loader import Batch, Loader
from training.journal import Journal, memory_bytes, speed
from training.preflight import look
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
    outlook = look(recipe, PartialState().num_processes)
    AcceleratorState._reset_state()  # of an earlier run in this process, perhaps of another precision
    accelerator = Accelerator(
        mixed_precision=recipe.precision,
        gradient_accumulation_steps=outlook.accumulation,
        log_with=list(recipe.trackers) or None,
        project_dir=run,
    )
    world, rank, device = accelerator.num_processes, accelerator.process_index, accelerator.device
    begun = _begin(recipe, run, resume)
    state = begun.state() if begun else {"loader": None}
    start = recipe.starting_from(str(begun.path / checkpoint.ADAPTER)) if begun else recipe
    with ExitStack() as open_until_the_end:
        loader = open_until_the_end.enter_context(
            Loader(recipe.data.sources, recipe.view, recipe.loading, rank=rank, world=world, state=state["loader"])
        )
        validator = Validator(recipe, run, begun.step if begun else 0, rank=rank, world=world)
        adapter = open_until_the_end.enter_context(outlook.task.ready(start, device))
        named = optimizer.tune(adapter, recipe.tuned)
        adamw = optimizer.build(named, recipe.optimizer)
        average = MovingAverage(named, recipe.ema) if recipe.ema else None
        if begun:
            optimizer.load_state(adamw, weights.read_safetensors(begun.path / checkpoint.OPTIMIZER))
            if average:
                average.load(weights.read_safetensors(begun.path / checkpoint.AVERAGE))
        step_of = outlook.task.step(adapter, recipe)
        model, prepared = accelerator.prepare(step_of, adamw)
        if begun and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(state["scaler"])

        def save(step: int, batch: Batch) -> None:
            def fill(folder: Path) -> None:
                adapter.save_pretrained(folder / checkpoint.ADAPTER)
                weights.write_safetensors(folder / checkpoint.OPTIMIZER, optimizer.state_tensors(adamw))
                if average:
                    weights.write_safetensors(folder / checkpoint.AVERAGE, average.averages)
                scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
                checkpoint.write_state(folder, {"step": step, "loader": batch.state, "scaler": scaler})

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
        shown, step_flops, peak = 0, 0, flops.peak(device, recipe.precision)

        def validate(step: int) -> None:
            with journal.apart() if journal else nullcontext():
                with average.in_place() if average else nullcontext():
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
            batch = next(loader)
            if step == done:
                with journal.apart() if journal else nullcontext(), accelerator.autocast():
                    first = next(batch.parts(recipe.batch.micro))
                    step_flops = outlook.accumulation * flops.of_micro_batch(step_of, first, named.values())
            for examples in batch.parts(recipe.batch.micro):
                # the conditions stay until gradients are there, which may compute activations again
                with accelerator.accumulate(model), ExitStack() as conditioned:
                    loss = model(examples, conditioned)
                    accelerator.backward(loss)
                    meter.add_loss(loss / outlook.accumulation)
                    if accelerator.sync_gradients:
                        limit = recipe.optimizer.clip or float("inf")
                        meter.add_norm(guard(named.values(), accelerator.clip_grad_norm_(named.values(), limit)))
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

        if accelerator.is_main_process:
            with average.in_place() if average else nullcontext():
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


def guard(parameters: Iterable[nn.Parameter], norm: Tensor) -> Tensor:
    """Make gradients 0 if any of them is not finite, without waiting for the device to know.

    The optimiser then moves weights by its momentum alone; NaN would never leave it again.

    Args:
        parameters: with gradients.
        norm: of all gradients.

    Returns:
        The norm.
    """
    finite = norm.isfinite()
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = torch.where(finite, parameter.grad, torch.zeros_like(parameter.grad))
    return norm


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
        (run / "recipe.yaml").write_text(book.dump(recipe), "utf-8")
    state.wait_for_everyone()
    return begun


def _flat(recipe: Recipe) -> dict[str, Any]:
    """For trackers, which take numbers and words."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(to_dict(recipe)).items()
    }
