"""What can be seen to be wrong before any weight is loaded: batch, data, base, encoder, names of what is trained."""

import importlib.util
from dataclasses import dataclass

import torch

from refloom.schemas.errors import Refused
from refloom.schemas.wording import quoted
from refloom.training.data.index import Index
from refloom.training.features.identity import settings_of
from refloom.training.features.store import Store
from refloom.training.methods.known import TASKS
from refloom.training.methods.method import Method
from refloom.training.methods.trainable import Trainable
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import optimizer

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX")}


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run will be.

    Attributes:
        task: kind of training.
        accumulation: forward passes of each process in an optimiser step.
        trained: numbers that are trained.
        whole: numbers of the module that is saved.
        names: of the parameters that are trained.
    """

    task: Trainable
    accumulation: int
    trained: int
    whole: int
    names: frozenset[str] = frozenset()


def look(recipe: Recipe, world: int) -> TrainingPlan:
    """Check a recipe; data is checked by making the loader.

    Args:
        recipe: to train.
        world: processes.

    Raises:
        Refused: with the remedy.
    """
    accumulation = recipe.batch.accumulation(world)
    if not recipe.data.sources:
        raise Refused("there is no dataset: set data.sources to a list such as [{url: DATASET}]")
    for tracker in recipe.trackers:
        packages = _PACKAGES.get(tracker, (tracker,))
        if not any(importlib.util.find_spec(package) for package in packages):
            raise Refused(f"the tracker {tracker} is not installed: pip install {packages[0]}, or set trackers=[]")
    if recipe.precision == "fp16" and not torch.cuda.is_available():
        raise Refused("fp16 needs a GPU: set precision=bf16, or precision=no")
    optimizer.check(recipe.optimizer)
    task = TASKS[recipe.method]
    if recipe.validation.every is not None and not isinstance(task, Method):
        raise Refused(f"no pictures are made of {recipe.method} while it is trained: set validation.every=null")
    task.check(recipe)
    module = task.shapes(recipe)
    named = optimizer.tune(module, recipe.tuned)
    optimizer.groups(named, recipe.optimizer)
    trained, whole = (sum(one.numel() for one in many) for many in (named.values(), module.parameters()))
    return TrainingPlan(task, accumulation, trained, whole, frozenset(named))


def features(recipe: Recipe) -> list[Store] | None:
    """What was computed before of each source; None if everything is to be computed.

    Raises:
        Refused: only some sources have features, or they are not finished, or of something else.
    """
    if not recipe.stored:
        return None
    if not isinstance(TASKS[recipe.method], Method):
        raise Refused(f"{recipe.method} keeps nothing frozen: leave `features` out of the sources")
    sources = recipe.data.sources
    lacking = [source.url for source in sources if source.features is None]
    if lacking:
        raise Refused(
            f"{lacking[0]} has no features and other sources have: make them with "
            f"`refloom cache {quoted(lacking[0])} --recipe NAME`, or "
            "leave `features` out of all sources"
        )
    settings = settings_of(recipe)
    stores = [Store(str(source.features)) for source in sources]
    for store, source in zip(stores, sources, strict=True):
        store.check(settings, Index(source.url, source.split, tag=source.tag), recipe.data.variants)
    return stores
