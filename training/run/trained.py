"""What a run trains: the module, its optimiser and its moving average, spread over processes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.tensors import read_safetensors
from refloom.training.data.loader import Batch
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint, flops, optimizer
from refloom.training.run.ema import MovingAverage
from refloom.training.run.frozen import DTYPES
from refloom.training.run.meter import Meter
from refloom.training.run.opening import Begun, whose
from refloom.training.run.preflight import TrainingPlan
from refloom.training.run.strategy import Strategy


class Trained:
    """A module in training. `spread` comes before the first `step`.

    Attributes:
        adapter: the module itself, as its task made it ready.

    Args:
        recipe: to train.
        plan: of the recipe.
        strategy: of the run.
        adapter: see there.
        begun: where the run is.
    """

    def __init__(self, recipe: Recipe, plan: TrainingPlan, strategy: Strategy, adapter: Any, begun: Begun) -> None:
        self.adapter = adapter
        self._recipe, self._plan, self._strategy, self._begun = recipe, plan, strategy, begun
        self._accelerator = strategy.accelerator
        self._named = optimizer.tune(adapter, recipe.tuned)
        self._adamw = optimizer.build(self._named, recipe.optimizer)
        self._average = _average(recipe, self._named, begun)
        self._step_of = plan.task.step(adapter, recipe)
        self._model: Any = None
        self._optimizer: Any = None
        self._rates: list[float] = []

    def flops(self, first: Batch) -> int:
        """Of a step; to be asked before weights are cut up among processes.

        Args:
            first: any batch.
        """
        recipe, device = self._recipe, self._accelerator.device
        with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "no"):
            return self._plan.accumulation * flops.of_micro_batch(
                self._step_of, next(first.parts(recipe.batch.micro)), self._named.values()
            )

    def spread(self) -> None:
        """Spread it over processes, with the optimiser as it was where the run goes on."""
        self._model, self._optimizer = self._strategy.prepare(self._step_of, self._named, self._adamw)
        if last := self._begun.last:
            self._strategy.load(read_safetensors(last.path / checkpoint.OPTIMIZER))
            scaler = self._accelerator.scaler
            if scaler is not None and self._begun.state["scaler"]:  # else it was trained in another precision
                scaler.load_state_dict(self._begun.state["scaler"])
        self._rates = [group["lr"] for group in self._optimizer.param_groups]

    def rate(self, step: int) -> float:
        """Learning rate of a step, of the first group of parameters."""
        return self._rates[0] * self._share(step)

    def step(self, step: int, batch: Batch, meter: Meter) -> None:
        """One step of the optimiser.

        Args:
            step: from 0.
            batch: of all micro-batches of the step.
            meter: is told losses and the norm of gradients.
        """
        recipe, share = self._recipe, self._share(step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        for examples in batch.parts(recipe.batch.micro):
            # the conditions stay until gradients are there, which may compute activations again
            with self._accelerator.accumulate(self._model), ExitStack() as conditioned:
                loss = self._model(examples, conditioned)
                self._accelerator.backward(loss)
                meter.add_loss(loss / self._plan.accumulation)
                if self._accelerator.sync_gradients:
                    meter.add_norm(self._strategy.clipped(recipe.optimizer.clip))
                self._optimizer.step()
                self._optimizer.zero_grad()
        if self._average:
            self._average.update(step)

    def whole(self) -> AbstractContextManager[Any]:
        """See `Strategy.whole`."""
        return self._strategy.whole()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights are whole in each process, and averaged where the recipe asks for it; entered by all of them."""
        with self.whole(), self._average.in_place() if self._average else nullcontext():
            yield

    def filling(self, step: int, batch: Batch, run: Path) -> Callable[[Path], None]:
        """What writes a checkpoint into a folder, by the first process, while weights are whole; called by all.

        Args:
            step: steps that are done.
            batch: the last one.
            run: folder of the run.
        """
        states = self._strategy.state()

        def fill(folder: Path) -> None:
            recipe, average, scaler = self._recipe, self._average, self._accelerator.scaler
            self._plan.task.save(self.adapter, folder / checkpoint.ADAPTER, run)
            weights.write_safetensors(folder / checkpoint.OPTIMIZER, states)
            (folder / checkpoint.RECIPE).write_text(book.dump(recipe), "utf-8")
            if average:
                weights.write_safetensors(folder / checkpoint.AVERAGE, average.averages)
            scaling = None if scaler is None else scaler.state_dict()
            since = {"average_since": average.since} if average and average.since else {}
            checkpoint.write_state(
                folder, {"step": step, "loader": batch.state, "scaler": scaling, **since, **whose(recipe)}
            )

        return fill

    def _share(self, step: int) -> float:
        return optimizer.factor(step, self._recipe.steps, self._recipe.optimizer)


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
