"""Training the judge of toys: what captions say is on a picture and where, and which two looks are of one toy."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.evaluation.judges import MOST, Judge, JudgeConfig, load_judge
from refloom.ingest.sampledata import albums
from refloom.schemas.errors import Refused
from refloom.training.recipes.recipe import Recipe
from refloom.training.tinymodels.base import Base
from refloom.training.tinymodels.clip import contrast
from refloom.training.views.example import Example

_SHARPEST = 100.0


class JudgeTask(Base):
    """See `Trainable`."""

    kind = "judge"

    def check(self, recipe: Recipe) -> None:
        """See `Trainable.check`."""
        super().check(recipe)
        if not recipe.view.twice:  # type: ignore[attr-defined]
            raise Refused("a judge compares two looks at one toy: set view.twice=true")

    def new(self, recipe: Recipe) -> Judge:
        """See `Base.new`."""
        sizes = recipe.adapter
        config = JudgeConfig(
            kinds=albums.KINDS, places=albums.places(), widths=sizes.widths, look=sizes.look, side_px=sizes.side_px
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return Judge(config)

    def load(self, folder: Path) -> Judge:
        """See `Base.load`."""
        return load_judge(folder)

    def step(self, trained: Judge, recipe: Recipe) -> nn.Module:
        """See `Trainable.step`."""
        return JudgeStep(trained)


class JudgeStep(nn.Module):
    """Cross-entropies of kinds, place and looks.

    Args:
        trained: the judge.
    """

    def __init__(self, trained: Judge) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, examples: Sequence[Example], conditioned: ExitStack) -> Tensor:
        """The mean loss of a micro-batch, in which each look is told from all others."""
        judge = self.trained
        kinds, places = asked([example.caption for example in examples], judge.config)
        looks = [example.references[0].images[look] for look in (0, 1) for example in examples]
        found = judge(judge.pixels([*(example.target for example in examples), *looks]))
        count = len(examples)
        ones, others = found.looks[count:].chunk(2)
        scale = judge.sharpness.exp().clamp(max=_SHARPEST)
        return (
            functional.cross_entropy(found.kinds[:count].flatten(0, 1), kinds.flatten().to(found.kinds.device))
            * len(judge.config.kinds)
            + functional.cross_entropy(found.places[:count], places.to(found.places.device))
            + contrast(ones, others, scale)
        )


def asked(captions: Sequence[str], config: JudgeConfig) -> tuple[Tensor, Tensor]:
    """What captions of albums ask for: (B, kinds) how many of each, and (B,) numbers of places.

    Raises:
        Refused: a caption is of no album.
    """
    kinds, places = torch.zeros(len(captions), len(config.kinds), dtype=torch.long), []
    for row, text in enumerate(captions):
        told = albums.told(text)
        if told is None or told.place not in config.places:
            raise Refused(f"the caption {text!r:.80} is of no album: train a judge on the scenes of sample data")
        for kind, count in told.kinds.items():
            kinds[row, config.kinds.index(kind)] = min(count, MOST)
        places.append(config.places.index(told.place))
    return kinds, torch.tensor(places)


TASK = JudgeTask()
