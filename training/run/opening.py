"""How a run begins or goes on: who trains in its folder, from which checkpoint, and what has changed since then."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refloom.inference.adapters.kinds import METHODS
from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.tensors import safetensors_shapes
from refloom.schemas import settings
from refloom.schemas.errors import Refused
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import differing, flatten
from refloom.schemas.settings import to_dict
from refloom.schemas.storage import Folder
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import branches, checkpoint, optimizer
from refloom.training.run.checkpoint import Checkpoint

Note = Callable[[str], None]

_NO_MATTER = (
    *("batch.micro", "channels_last", "checkpoints", "compile", "gradient_checkpointing", "log_every"),
    *("max_bad_steps", "trackers", "validation", "ema", "data.ahead_bytes", "data.cache", "data.group_bytes"),
    *("data.kinds", "data.sources", "data.threads"),
)
"""Beginnings of settings that do not change what is trained, or of which something else is said."""
_OF_THE_BEGINNING = ("models.start", "models.start_kind", "models.language_model")


@dataclass(frozen=True, slots=True)
class Begun:
    """Where a run is when it begins or goes on.

    Attributes:
        last: checkpoint that it goes on from; None at the beginning.
        state: of the checkpoint.
    """

    last: Checkpoint | None
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.last.step if self.last else 0


_PLUGINS = "plugins"


def begin(
    recipe: Recipe, run: Path, resume: str | None, trained: Collection[str], note: Note, held: ExitStack
) -> tuple[Begun, Lease]:
    """Take the folder of a run and look where it is; nothing that is there changes yet. Called by the first process.

    Args:
        recipe: to train.
        run: folder of the run.
        resume: `latest` or a checkpoint's folder; None starts.
        trained: names of the parameters that are trained.
        note: told what should be known.
        held: holds the folder until it is closed.

    Raises:
        Refused: another process trains there; the folder holds a run that nobody asked to go on with; or the checkpoint
            is not there, damaged, beyond the recipe's last step, or of other parameters.
    """
    lease = held.enter_context(Lease(Folder(str(run))))
    last = checkpoint.find(run, resume, note) if resume else None
    there = checkpoint.marked(run)
    if there and last is None:
        raise Refused(f"{run} holds a run with checkpoints: give --resume latest to go on with it, or another --out")
    if there and last is not None and branches.home(run, last) is None:
        raise Refused(f"{run} holds another run than {last.path}: give another --out to go on from there")
    if last is None:
        (run / weights.FROZEN_FILE).unlink(missing_ok=True)
        return Begun(None, {"loader": None}), lease
    if recipe.steps < last.step:
        raise Refused(
            f"{last.path} is of step {last.step:,}, beyond steps={recipe.steps}: set steps to {last.step} or more, or "
            "go on from an earlier checkpoint"
        )
    listed = safetensors_shapes(last.path / checkpoint.OPTIMIZER)
    optimizer.check_names({key.rpartition("|")[0] for key in listed}, trained)
    for text in changed(recipe, last):
        note(text)
    state = last.state()
    if (then := state.get(_PLUGINS)) != (now := whose(recipe).get(_PLUGINS)):
        note(f"{recipe.method} was {_named(recipe.method, then)} until here, and is {_named(recipe.method, now)} now")
    _share_frozen(run, last)
    return Begun(last, state), lease


def whose(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint keeps of a method that a plugin brings: whose it is, in which version; nothing of ours."""
    record = METHODS.record([recipe.method])
    return {_PLUGINS: record} if record else {}


def _named(method: str, record: dict[str, dict[str, str]] | None) -> str:
    found = (record or {}).get(method)
    return f"of the plugin {found['plugin']} {found['version']}" if found else "refloom's own"


def enter(recipe: Recipe, run: Path, begun: Begun, note: Note) -> int:
    """Make the folder that of the run as it goes on now. Called by the first process, when nothing can be refused.

    Args:
        recipe: to train.
        run: folder of the run.
        begun: of `begin`.
        note: told what is set aside.

    Returns:
        The step after which the folder's run may have been another one.
    """
    shared = 0
    if begun.last:
        _, shared, text = branches.turn(run, begun.last)
        if text:
            note(text)
    (run / checkpoint.RECIPE).write_text(book.dump(recipe), "utf-8")
    return shared


def changed(recipe: Recipe, last: Checkpoint) -> list[str]:
    """What to say of settings that were others when a checkpoint was written.

    Args:
        recipe: that the run goes on with.
        last: the checkpoint.
    """
    told = []
    averaged = (last.path / checkpoint.AVERAGE).is_file()
    if recipe.ema and not averaged:
        told.append(
            f"ema is switched on at step {last.step:,}: the average begins with the weights of that step, and is what "
            "is exported"
        )
    if averaged and not recipe.ema:
        told.append(
            f"ema is switched off at step {last.step:,}: the average so far is left out, and the weights themselves, "
            "not averaged, are what is exported"
        )
    before = _recipe_of(last)
    if before is None:
        return told
    now = flatten(to_dict(recipe))
    if recipe.ema and averaged and before.get("ema") != recipe.ema:
        told.append(f"ema is {recipe.ema} from step {last.step:,} on, it was {before.get('ema')}")
    known = {key: value for key, value in before.items() if _matters(key, recipe)}
    others = differing(known, {key: value for key, value in now.items() if _matters(key, recipe)})
    ignored = [one for one in others if one.split(":")[0] in _OF_THE_BEGINNING]
    if others := [one for one in others if one not in ignored]:
        told.append(f"from step {last.step:,} on the run goes on with other settings: {'; '.join(others)}")
    if ignored:
        told.append(f"the weights are those of {last.path}, so that these settings do nothing: {'; '.join(ignored)}")
    return told


def _matters(key: str, recipe: Recipe) -> bool:
    if key == "steps":  # how long a run is decides its rates alone
        return recipe.optimizer.schedule != "constant"
    return not any(key == prefix or key.startswith(f"{prefix}.") for prefix in _NO_MATTER)


def _recipe_of(last: Checkpoint) -> dict[str, Any] | None:
    """Settings that a checkpoint was written with, by dotted name; earlier refloom kept those of the run alone."""
    for file in (last.path / checkpoint.RECIPE, last.path.parent.parent / checkpoint.RECIPE):
        if file.is_file():
            return flatten(settings.read(str(file)))
    return None


def _share_frozen(run: Path, last: Checkpoint) -> None:
    """What is not trained is that of the checkpoint, whose bytes were compared."""
    kept = last.path / checkpoint.ADAPTER / weights.FROZEN_FILE
    if kept.is_file():
        if not (run / weights.FROZEN_FILE).is_file() or not kept.samefile(run / weights.FROZEN_FILE):
            weights.share(kept, run / weights.FROZEN_FILE)
    else:
        (run / weights.FROZEN_FILE).unlink(missing_ok=True)
