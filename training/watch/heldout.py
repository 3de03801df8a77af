"""Whether an adapter reads its references: its loss on held-out samples with the right ones, and with those of others.

Both losses are taken at the same timesteps, with the same noise, captions, phrases and places, so that their difference
varies far less than they do.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Several, Whole, check
from refloom.training.data.loader import Loader
from refloom.training.methods.known import METHODS
from refloom.training.ranges import SAMPLES
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.frozen import DTYPES
from refloom.training.run.step import TrainingStep
from refloom.training.views.captions import Dropout
from refloom.training.views.example import Example

TIMESTEPS = (500, 700, 850, 950)
"""Where references tell most: earlier there is little to guess, later little can be seen in the loss."""


SPLIT = "validation"
_FAR = 1 << 40
"""No stream comes so far, so positions beyond it have noise of their own."""
_ONE_PLACE = ("image", "video", "track")
"""What two samples share only where they show the very same scene; see `subjects.shown_in`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Losses of held-out samples, means over samples and timesteps.

    Attributes:
        samples: how many.
        right, shuffled: loss with the sample's own references, and with those of another sample.
        difference: shuffled - right.
        error: standard error of the difference, over samples.
    """

    samples: int
    right: float
    shuffled: float
    difference: float
    error: float

    @property
    def margin(self) -> float:
        """The difference as a share of the loss."""
        return self.difference / self.right


def compare(
    recipe: Recipe,
    adapter: str,
    *,
    samples: int = 64,
    timesteps: Sequence[int] = TIMESTEPS,
    device: torch.device | str = "cpu",
) -> Comparison:
    """Compare right references with shuffled ones.

    Args:
        recipe: the one of the run; of its `data.sources` the validation splits are taken.
        adapter: folder of the adapter.
        samples: most that are looked at; each at most once.
        timesteps: at which each of them is looked at.
        device: to compute on.

    Raises:
        Refused: the recipe trains no adapter, or there are not two samples of different subjects.
    """
    check("samples", samples, SAMPLES)
    check("timesteps", list(timesteps), Several(Whole(0)))
    method = METHODS.get(recipe.method)
    if method is None:
        raise Refused(f"{recipe.method} reads no references: compare adapters")
    recipe = recipe.held_out(SPLIT)
    method.check(recipe)
    device = torch.device(device)
    with ExitStack() as open_until_the_end:
        examples = held_out(recipe, samples)
        given = shuffled(examples)
        trained = open_until_the_end.enter_context(method.ready(recipe.starting_from(adapter), device)).eval()
        step = method.step(trained, recipe)
        dtype = DTYPES[recipe.precision]
        open_until_the_end.enter_context(torch.autocast(device.type, dtype, enabled=dtype != torch.float32))
        right, wrong = (
            _losses(step, many, timesteps, recipe.batch.micro).double().mean(dim=0) for many in (examples, given)
        )
    difference = wrong - right
    error = float(difference.std()) / math.sqrt(len(examples))
    return Comparison(len(examples), float(right.mean()), float(wrong.mean()), float(difference.mean()), error)


def held_out(recipe: Recipe, samples: int) -> list[Example]:
    """Examples of a recipe's sources, as many of each if it has them; nothing is dropped, one size is together.

    Each is of another sample; datasets may use the same ids. Positions, which noise belongs to, are all different.
    """
    whole: Any = recipe.view
    view = replace(whole, dropout=Dropout(text=0, image=0, both=0, grounding=0))
    sources = recipe.held_out(SPLIT).data.sources
    examples: list[Example] = []
    for number, source in enumerate(sources):
        with Loader([source], view, replace(recipe.loading, global_batch=1)) as loader:
            share = samples // len(sources) + (number < samples % len(sources))
            count = min(share, len(loader.catalogues[0].rows))
            own = {example.sample_id: example for _ in range(count) for example in next(loader).examples}
        examples += [replace(one, position=at) for at, one in enumerate(own.values(), start=len(examples))]
    return sorted(examples, key=lambda example: (example.target.shape, example.position))


def shuffled(examples: Sequence[Example]) -> list[Example]:
    """The examples with references of others of the same kind; phrases and places stay.

    Others that show nothing of an example are taken where there are any. Of one that shows the same video, and of a
    cross sample with the same images or tracks, the references would be right ones: they are never taken.

    Raises:
        Refused: an example is the only one of its kind of sample.
    """
    out = []
    for at, example in enumerate(examples):
        others = [*examples[at + 1 :], *examples[:at]]
        fit = [one for one in others if _kind(one) == _kind(example) and not _same(one, example)]
        fit = [one for one in fit if not _shared(one, example)] or fit
        if not fit:
            raise Refused(
                f"{example.sample_id} is the only sample of its kind, or all others show what it shows, so there are "
                "no others' references to give it: look at more samples, or leave that kind out with data.sources.kinds"
            )
        images = [one.images for one in fit[0].references]
        references = tuple(
            Reference(images[number % len(images)], reference.phrase, reference.boxes, reference.masks, reference.scale)
            for number, reference in enumerate(example.references)
        )
        out.append(replace(example, references=references))
    return out


def _losses(step: TrainingStep, examples: Sequence[Example], timesteps: Sequence[int], micro: int) -> Tensor:
    """(timesteps, B) losses; each timestep has noise of its own."""
    out = []
    for _, alike in groupby(examples, key=lambda example: example.target.shape):
        same = list(alike)
        for start in range(0, len(same), micro):
            part = same[start : start + micro]
            rounds = (
                (torch.full((len(part),), when), [replace(one, position=one.position + at * _FAR) for one in part])
                for at, when in enumerate(timesteps)
            )
            with torch.no_grad(), ExitStack() as conditioned:
                out.append(torch.stack([losses.cpu() for losses in step.rounds(part, rounds, conditioned)]))
    return torch.cat(out, dim=1)


def _kind(example: Example) -> str:
    return example.sample_id.split("/")[0]


def _same(one: Example, other: Example) -> bool:
    """Whether references of one are right for the other."""
    if _subject(one) == _subject(other):
        return True
    return _kind(one) == "cross" and any(what in _ONE_PLACE for what, _ in _shared(one, other))


def _shared(one: Example, other: Example) -> frozenset[tuple[str, str]]:
    """What both show; datasets may use the same ids for different things."""
    return one.shows & other.shows if one.dataset == other.dataset else frozenset()


def _subject(example: Example) -> tuple[str, str]:
    """Samples of one video of a dataset show the same subjects; other datasets may use the same ids for others."""
    video = _kind(example) == "video"
    return example.dataset, example.sample_id.rpartition("/")[0] if video else example.sample_id
