"""Checkpoints of a run on a local disk: whole or not there, and never with the base's frozen weights.

RUN/recipe.yaml                       with all values
RUN/log.jsonl                         a line for every few steps
RUN/frozen.safetensors                what of the adapter is not trained; checkpoints have hard links to it
RUN/index.html                        the page of the run; see `page`
RUN/validation/                       pictures; see `validation`
RUN/checkpoints/step-000012000/
    adapter/                          what `ReferencePipeline` loads
    optimizer.safetensors             by parameter
    average.safetensors               the moving average, where there is one
    state.json                        step, place in the stream of samples, scale of the losses
    complete.json                     sizes of these files; written last
RUN/adapter/                          of the last checkpoint, averaged where there is an average
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import Refused
from training.recipes.recipe import Checkpoints

VERSION = 1
ADAPTER, OPTIMIZER, AVERAGE, STATE = "adapter", "optimizer.safetensors", "average.safetensors", "state.json"
_FOLDER, _COMPLETE, _PARTIAL = "checkpoints", "complete.json", ".partial"
_NAME = re.compile(r"step-(\d{9,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: of its folder.
        step: steps that were done.
    """

    path: Path
    step: int

    def state(self) -> dict[str, Any]:
        """What `state.json` holds.

        Raises:
            Refused: it is damaged or of another version.
        """
        file = self.path / STATE
        try:
            state = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(f"{file} cannot be read ({error}): take another checkpoint") from error
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise Refused(f"{file} is not of version {VERSION}, which this refloom reads: take another checkpoint")
        return state


def complete(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, oldest first; a folder without its mark, or with files cut short, is none."""
    found = []
    for folder in (run / _FOLDER).glob("step-*"):
        match = _NAME.fullmatch(folder.name)
        if match and _is_complete(folder):
            found.append(Checkpoint(folder, int(match[1])))
    return sorted(found, key=lambda one: one.step)


def find(run: Path, resume: str) -> Checkpoint:
    """The checkpoint to go on from.

    Args:
        run: folder of the run.
        resume: `latest`, or the folder of a checkpoint.

    Raises:
        Refused: it is not there, or not complete.
    """
    if resume == "latest":
        known = complete(run)
        if not known:
            raise Refused(f"{run} has no complete checkpoint to resume: start without --resume")
        return known[-1]
    folder = Path(resume)
    match = _NAME.fullmatch(folder.name)
    if not match or not _is_complete(folder):
        raise Refused(f"{resume} is no complete checkpoint: give --resume latest, or a folder RUN/{_FOLDER}/step-...")
    return Checkpoint(folder, int(match[1]))


def write(run: Path, step: int, fill: Callable[[Path], None], keep: Checkpoints) -> Checkpoint:
    """Write a checkpoint under a temporary name, give it its own, mark it complete, then remove those not kept.

    Args:
        run: folder of the run.
        step: steps that were done.
        fill: writes the files into a folder.
        keep: which older ones stay.
    """
    folder = run / _FOLDER / f"step-{step:09d}"
    partial = folder.with_name(folder.name + _PARTIAL)
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(partial)
    for file in _files(partial):
        _sync(file)
    partial.rename(folder)
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}
    mark = folder / (_COMPLETE + _PARTIAL)
    mark.write_text(json.dumps(sizes, indent=1), "utf-8")
    _sync(mark)
    mark.rename(folder / _COMPLETE)
    for place in (folder, folder.parent):
        _sync(place)
    for old in superseded([one.step for one in complete(run)], keep):
        shutil.rmtree(run / _FOLDER / f"step-{old:09d}")
    return Checkpoint(folder, step)


def superseded(steps: list[int], keep: Checkpoints) -> list[int]:
    """Steps of checkpoints that are not kept."""
    older = sorted(steps)[: -keep.keep_last]
    return [step for step in older if keep.keep_every is None or step % keep.keep_every]


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state.json`."""
    (folder / STATE).write_text(json.dumps({"version": VERSION, **state}), "utf-8")


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _COMPLETE).read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
