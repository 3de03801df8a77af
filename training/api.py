"""`refloom.train(...)`: what `refloom train` does, as a function."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from refloom.schemas import copies, tags
from refloom.schemas.errors import Refused
from refloom.schemas.settings import Overrides
from refloom.schemas.storage import Folder, absolute_url, local_path
from refloom.schemas.storeerrors import store_errors_stop
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import loop
from refloom.training.run.openrun import Line


@store_errors_stop()
def train(
    recipe: str | os.PathLike[str] | Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    settings: Overrides = (),
    resume: str | os.PathLike[str] | None = None,
    show: bool | Callable[[Line], None] = False,
    note: Callable[[str], None] | None = None,
) -> Path:
    """Train an adapter on samples by a recipe. Ctrl-C saves; resumes to the same bits.

        data = [{"url": "DATASET"}]
        adapter = refloom.train("mip/sdxl", "RUN", settings={"data.sources": data, "models.base": "SDXL"})
        refloom.ReferencePipeline.from_pretrained("SDXL", adapter)

    On several GPUs, `accelerate launch -m refloom.training` takes the arguments of `refloom train`; a script that calls
    this function may be launched likewise. `docs/retraining.md` has every method in its true size, with the sections
    of its paper.

    Args:
        recipe: the name of one that ships (`refloom.training.recipes.book.names()`), a YAML file, or a recipe.
        out: local folder of the run; `runs/NAME` without.
        settings: that differ: dotted keys with values, or texts `key=value`.
        resume: `latest`, or the folder of a checkpoint; None starts.
        show: True prints each line of the log to stderr; or a function that is told it: `step`, `loss`,
            `samples_per_second`, `memory_bytes` and more.
        note: told what a user should know of how a run goes on; printed to stderr with `show=True`.

    Returns:
        The folder of what was trained.

    Raises:
        Refused: something does not fit together; said before models are loaded where that can be.
        JobStopped: it was asked to stop and has saved, the losses are not finite, or the disk is full.
    """
    if isinstance(recipe, Recipe):
        if settings:
            raise Refused("settings lie over a recipe by name or in a file: change the recipe that is given itself")
        if out is None:
            raise Refused("a recipe without a name has no folder of its own: give out")
        wanted = recipe
    else:
        wanted = book.load(os.fspath(recipe), settings)
        out = out if out is not None else Path("runs") / Path(recipe).with_suffix("")
    run = local_path(out, "a run of training")
    for source in wanted.data.sources:
        remember(absolute_url(source.url), "training run", absolute_url(run))
    told = lines(wanted.steps) if show is True else show or _silent
    said = note or (_say if show is True else _silent)
    return loop.train(wanted, run, resume=None if resume is None else os.fspath(resume), show=told, note=said)


def remember(samples: str, kind: str, place: str) -> None:
    """Tell a dataset what was made of it elsewhere, so that a takedown can name it.

    Args:
        samples: URL of a dataset, of its tag, or of a publication, which remembers nothing.
        kind, place: see `copies.note`.
    """
    folder = Folder(tags.owner(samples)[0])
    if folder.exists("dataset.json"):
        copies.note(folder, kind, place)


def lines(steps: int) -> Callable[[Line], None]:
    """What prints a line of the log to stderr, with the time that is left.

    Args:
        steps: of the recipe.
    """

    def show(line: Line) -> None:
        left = (steps - line["step"]) * line["seconds_per_step"]
        bad = f", {line['bad_steps']} bad steps" if line["bad_steps"] else ""
        _write(
            f"step {line['step']} of {steps}: loss {line['loss']:.4f}, {line['samples_per_second']:.1f} samples/s, "
            f"{line['memory_bytes'] / 2**30:.1f} GiB, {left / 60:.0f} min left{bad}"
        )

    return show


def _say(text: str) -> None:
    _write(f"note: {text}")


def _write(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _silent(_: object) -> None:
    """Says nothing."""
