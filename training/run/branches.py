"""Going back: what a run did after the checkpoint that it goes on from is set aside, as a branch of its own.

RUN/aside/1/
    branch.json                       steps that it surely has in common with the run
    log.jsonl, recipe.yaml            of the whole branch
    checkpoints/, validation/, adapter/   what came after those steps

A checkpoint in there can be gone on from, too: then its branch is the run, and what was the run is set aside.
"""

import json
import shutil
from pathlib import Path

from refloom.training.run import checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.checkpoint import Checkpoint
from refloom.training.watch import validation

FOLDER = "aside"
_BRANCH = "branch.json"


def home(run: Path, begun: Checkpoint) -> Path | None:
    """The branch that a checkpoint lies in: the run's folder, one below `RUN/aside`, or None for another run."""
    folder = begun.path.resolve().parent.parent
    run = run.resolve()
    return folder if folder == run or folder.parent == run / FOLDER else None


def turn(run: Path, begun: Checkpoint) -> tuple[Checkpoint, int, str | None]:
    """Make a checkpoint of the run, or of what was set aside of it, the last one of the run.

    Nothing is deleted. Whatever cuts this off, the run's folder is a run that can be resumed.

    Args:
        run: folder of the run.
        begun: to go on from.

    Returns:
        The checkpoint where it lies now, the step after which the run's folder has changed, and what to tell.
    """
    run, branch = run.resolve(), home(run, begun)
    shared = begun.step if branch is None or branch == run else _shared(branch)
    told = []
    turns = branch is not None and branch != run
    if any(one.step > shared for one in checkpoint.marked(run)) or (turns and (run / checkpoint.ADAPTER).is_dir()):
        told.append(f"what came after step {shared:,} is set aside in {_set_aside(run, shared)}")
    if branch is not None and turns:
        begun = _bring_back(run, branch, begun)
        told.append(f"it goes on with what was set aside in {branch}")
    text = f"{run} goes on from step {begun.step:,}: {'; '.join(told)}" if told else None
    return begun, shared, text


def _set_aside(run: Path, shared: int) -> Path:
    """Move what came after some steps, and keep a copy of what tells of the whole branch."""
    known = [int(one.name) for one in (run / FOLDER).glob("*") if one.name.isdecimal()]
    aside = run / FOLDER / str(max(known, default=0) + 1)
    aside.mkdir(parents=True)
    _lower(run, shared)
    _say_shared(aside, shared)
    for name in (run_log.FILE, checkpoint.RECIPE):
        if (run / name).is_file():
            shutil.copyfile(run / name, aside / name)
    if (run / checkpoint.ADAPTER).is_dir():
        (run / checkpoint.ADAPTER).rename(aside / checkpoint.ADAPTER)
    _move(run, aside, validation.FOLDER, {folder.name for step, folder in validation.steps(run) if step > shared})
    later = {one.path.name for one in checkpoint.marked(run) if one.step > shared}
    _move(run, aside, checkpoint.FOLDER, later)
    return aside


def _bring_back(run: Path, branch: Path, begun: Checkpoint) -> Checkpoint:
    """Move what a branch has up to a checkpoint into the run's folder."""
    _lower(run, _shared(branch))
    if (branch / run_log.FILE).is_file():
        shutil.copyfile(branch / run_log.FILE, run / run_log.FILE)
    pictures = {folder.name for step, folder in validation.steps(branch) if step <= begun.step}
    _move(branch, run, validation.FOLDER, pictures)
    earlier = {one.path.name for one in checkpoint.marked(branch) if one.step <= begun.step}
    _move(branch, run, checkpoint.FOLDER, earlier)
    if checkpoint.marked(branch):
        _say_shared(branch, begun.step)
    else:
        if (branch / checkpoint.ADAPTER).is_dir():
            (branch / checkpoint.ADAPTER).rename(run / checkpoint.ADAPTER)
        shutil.rmtree(branch)
    return Checkpoint(run / checkpoint.FOLDER / begun.path.name, begun.step)


def _move(here: Path, there: Path, below: str, names: set[str]) -> None:
    """Folders from below one folder to below another, the oldest last, so that no gap is left when it is cut off."""
    for name in sorted(names, reverse=True):
        place = there / below / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # without its mark: half of a checkpoint
            shutil.rmtree(place)
        (here / below / name).rename(place)


def _lower(run: Path, shared: int) -> None:
    """No branch has more in common with the run than it keeps of itself."""
    for file in (run / FOLDER).glob(f"*/{_BRANCH}"):
        _say_shared(file.parent, min(shared, _shared(file.parent)))


def _shared(branch: Path) -> int:
    return int(json.loads((branch / _BRANCH).read_text("utf-8"))["shared"])


def _say_shared(branch: Path, shared: int) -> None:
    partial = branch / f"{_BRANCH}.partial"
    partial.write_text(json.dumps({"shared": shared}) + "\n", "utf-8")
    partial.rename(branch / _BRANCH)
