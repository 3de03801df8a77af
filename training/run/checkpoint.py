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
    recipe.yaml                       that it was trained by
    complete.json                     bytes and sha256 of these files; written last
RUN/adapter/                          of the last checkpoint, averaged where there is an average
RUN/aside/1/                          what came after a checkpoint that the run went back to; see `branches`
RUN/runs/lease.json                   who trains here now; see `refloom.schemas.lease`
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.storage import sync
from refloom.schemas.storeerrors import full_disk_stops
from refloom.training.recipes.recipe import Checkpoints

VERSION = 1
ADAPTER, OPTIMIZER, AVERAGE, STATE = "adapter", "optimizer.safetensors", "average.safetensors", "state.json"
FOLDER, RECIPE = "checkpoints", "recipe.yaml"
AGAIN = "free some and run the same command again with --resume latest"
"""What to do when the disk of a run is full."""
_COMPLETE, _PARTIAL = "complete.json", ".partial"
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
            state = strict.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(f"{file} cannot be read ({error}): take another checkpoint") from error
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise Refused(f"{file} is not of version {VERSION}, which this refloom reads: take another checkpoint")
        return state


def marked(run: Path) -> list[Checkpoint]:
    """The checkpoints of a run that were finished once, oldest first, damaged ones too."""
    found = []
    for folder in (run / FOLDER).glob("step-*"):
        match = _NAME.fullmatch(folder.name)
        if match and (folder / _COMPLETE).is_file():
            found.append(Checkpoint(folder, int(match[1])))
    return sorted(found, key=lambda one: one.step)


def complete(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, oldest first; a folder without its mark, or with files cut short, is none.

    No bytes are read here; `problem` does.
    """
    return [one for one in marked(run) if problem(one.path, read=False) is None]


def problem(folder: Path, *, read: bool = True) -> str | None:
    """What is wrong with a checkpoint; None if nothing is.

    Args:
        folder: of the checkpoint.
        read: compare the bytes of its files with their hashes, not only their sizes; checkpoints of an earlier refloom
            have no hashes.
    """
    try:
        listed = strict.loads((folder / _COMPLETE).read_text("utf-8"))
        files = {str(name): _Mark.of(value) for name, value in listed.items()}
    except FileNotFoundError:
        return f"it has no {_COMPLETE}: it was cut off"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its {_COMPLETE} is damaged"
    for name, mark in files.items():
        try:
            size = (folder / name).stat().st_size
            if size != mark.size:
                return f"{name} has {size:,} bytes, not {mark.size:,}"
            if read and mark.sha256 is not None and _sha256(folder / name) != mark.sha256:
                return f"{name} has other bytes than were written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def find(run: Path, resume: str, note: Callable[[str], None] = lambda text: None) -> Checkpoint:
    """The checkpoint to go on from; its bytes are read and compared.

    Args:
        run: folder of the run.
        resume: `latest`, or the folder of a checkpoint.
        note: told which damaged ones are passed over, and why.

    Raises:
        Refused: it is not there, or not complete.
    """
    if resume == "latest":
        known = marked(run)
        for one in reversed(known):
            damage = problem(one.path)
            if damage is None:
                return one
            note(f"{one.path} is damaged and passed over: {damage}")
        remedy = "give another --out to start anew" if known else "start without --resume"
        raise Refused(f"{run} has no complete checkpoint to resume: {remedy}")
    folder = Path(resume)
    match = _NAME.fullmatch(folder.name)
    damage = problem(folder) if match else "it is no folder step-..."
    if not match or damage is not None:
        raise Refused(
            f"{resume} is no complete checkpoint ({damage}): give --resume latest, or a folder RUN/{FOLDER}/step-..."
        )
    return Checkpoint(folder, int(match[1]))


def write(run: Path, step: int, fill: Callable[[Path], None], keep: Checkpoints) -> Checkpoint:
    """Write a checkpoint under a temporary name, mark it complete, give it its own name, then remove those not kept.

    Args:
        run: folder of the run.
        step: steps that were done.
        fill: writes the files into a folder.
        keep: which older ones stay.

    Raises:
        JobStopped: the disk is full; what was written of this one is removed, and all earlier ones stay.
    """
    folder = run / FOLDER / f"step-{step:09d}"
    partial = folder.with_name(folder.name + _PARTIAL)
    for leftover in folder.parent.glob(f"step-*{_PARTIAL}"):  # of processes that were killed
        shutil.rmtree(leftover)
    before = complete(run)
    try:
        with full_disk_stops(str(folder), AGAIN):
            partial.mkdir(parents=True)
            fill(partial)
            _mark(partial, before[-1].path if before else None)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    sync(folder.parent)
    for old in superseded([one.step for one in complete(run)], keep):
        shutil.rmtree(run / FOLDER / f"step-{old:09d}")
    return Checkpoint(folder, step)


def superseded(steps: list[int], keep: Checkpoints) -> list[int]:
    """Steps of checkpoints that are not kept."""
    older = sorted(steps)[: -keep.keep_last]
    return [step for step in older if keep.keep_every is None or step % keep.keep_every]


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state.json`."""
    (folder / STATE).write_text(strict.dumps({"version": VERSION, **state}), "utf-8")


@dataclass(frozen=True, slots=True)
class _Mark:
    """Of a file in `complete.json`; without a hash where an earlier refloom wrote it."""

    size: int
    sha256: str | None

    @classmethod
    def of(cls, value: Any) -> "_Mark":
        return cls(value, None) if isinstance(value, int) else cls(int(value["bytes"]), str(value["sha256"]))


def _mark(folder: Path, before: Path | None) -> None:
    """Bring all files to the disk, and write `complete.json`."""
    known = _hashes(before) if before else {}
    listed = {}
    for file in _files(folder):
        sync(file)
        name = str(file.relative_to(folder))
        # a link to what all checkpoints of the run share was read when the first one was written
        same = before is not None and name in known and file.samefile(before / name)
        listed[name] = {"bytes": file.stat().st_size, "sha256": known[name] if same else _sha256(file)}
    mark = folder / _COMPLETE
    mark.write_text(json.dumps(listed, indent=1), "utf-8")
    for place in (mark, *(one for one in folder.rglob("*") if one.is_dir()), folder):
        sync(place)


def _hashes(folder: Path) -> Mapping[str, str]:
    listed = json.loads((folder / _COMPLETE).read_text("utf-8"))
    marks = {name: _Mark.of(value) for name, value in listed.items()}
    return {name: mark.sha256 for name, mark in marks.items() if mark.sha256 is not None}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
