"""What the loop asks of whatever is trained: an adapter on a frozen base (`Method`), or a model by itself (`base`)."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from refloom.training.recipes.recipe import Recipe


class Trainable(ABC):
    """A kind of training, without weights or state.

    Attributes:
        kind: that recipes name.
    """

    kind: ClassVar[str]

    @abstractmethod
    def check(self, recipe: Recipe) -> None:
        """Refuse what can be seen to be wrong without loading any model.

        Raises:
            Refused: with the remedy.
        """

    @abstractmethod
    def shapes(self, recipe: Recipe) -> nn.Module:
        """What `ready` gives, without weights: on the meta device.

        Raises:
            Refused: parts do not fit together.
        """

    @abstractmethod
    def ready(self, recipe: Recipe, device: torch.device, *, frozen: Path | None = None) -> AbstractContextManager[Any]:
        """What is trained, for as long as the run lasts: a module with `save_pretrained(folder)`.

        Its new weights depend on the recipe's seed alone.

        Args:
            recipe: to train; `models.start` names what to go on from.
            device: to train on.
            frozen: file of the run for what of it is not trained, written unless it is there; None writes nothing.

        Raises:
            Refused: a model is not there or does not fit.
        """

    @abstractmethod
    def step(self, trained: Any, recipe: Recipe) -> nn.Module:
        """The module that gives the loss of examples; see `TrainingStep.forward`.

        Args:
            trained: of `ready`.
            recipe: to train.
        """

    def save(self, trained: Any, folder: Path, run: Path) -> None:
        """Write what is trained into a checkpoint.

        Args:
            trained: of `ready`.
            folder: made if absent.
            run: folder of the run, whose checkpoints may share what does not change.
        """
        trained.save_pretrained(folder)

    def export(self, trained: Any, folder: Path, run: Path) -> None:
        """Write what is trained as it is given away; arguments as of `save`."""
        self.save(trained, folder, run)
