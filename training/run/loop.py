"""The training loop; `start` says how it is spread over processes.

Batches, draws, noise and timesteps are functions of the seed (`training.data`), so a run needs no state of any random
generator: it goes on with the step, the weights, the optimiser and the place in the stream of samples.
"""

from collections.abc import Callable
from pathlib import Path

from refloom.schemas.errors import JobStopped
from refloom.schemas.storage import local_path
from refloom.schemas.storeerrors import full_disk_stops
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint
from refloom.training.run.opening import Note
from refloom.training.run.openrun import Line, open_run
from refloom.training.run.preflight import look
from refloom.training.run.processes import processes
from refloom.training.run.stopping import Stopping


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
    with (
        full_disk_stops(str(run), checkpoint.AGAIN),
        open_run(recipe, plan, run, resume=resume, show=show, note=note) as opened,
        Stopping(opened.world) as stopping,
    ):
        if opened.done == 0:
            opened.validate(0)
        for done in range(opened.done + 1, recipe.steps + 1):
            batch = opened.train(done - 1)
            ends = done == recipe.steps
            stop = stopping.asked() and not ends
            if done % recipe.log_every == 0 or ends or stop:
                opened.tell(done)
            if done % recipe.checkpoints.every == 0 or ends or stop:
                opened.save(done, batch)
            if not stop:
                opened.validate(done, last=ends)
            if stop:
                raise JobStopped(f"stopped after step {done} as asked, and saved: go on with --resume latest")
        return opened.export()
