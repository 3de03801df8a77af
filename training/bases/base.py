"""What all bases share: they start new, from their recipe's seed, or from a folder that one saved."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference.hub import locate
from schemas.errors import Refused
from training.methods.task import Task
from training.recipes.recipe import Models, Recipe


class WithTokenizer(nn.Module):
    """A model of transformers and its tokenizer, which are saved together.

    Attributes:
        model, tokenizer: these.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def save_pretrained(self, folder: str | Path) -> None:
        """As transformers saves models."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class Base(Task):
    """A model that needs no other; see `Task`."""

    def check(self, recipe: Recipe) -> None:
        """See `Task.check`."""
        given = [name for name in Models.__slots__ if getattr(recipe.models, name) and name != "start"]
        if given:
            raise Refused(
                f"{self.kind} is trained by itself: leave out {', '.join(f'models.{name}' for name in given)}"
            )

    def shapes(self, recipe: Recipe) -> nn.Module:
        """See `Task.shapes`. It is tiny, so it is made and thrown away."""
        return self.new(recipe).to("meta")

    @contextmanager
    def ready(self, recipe: Recipe, device: torch.device) -> Iterator[Any]:
        """See `Task.ready`."""
        start = recipe.models.start
        if start is None:
            made = self.new(recipe)
        else:
            folder = locate(start, self.kind).path
            try:
                made = self.load(folder)
            except (OSError, ValueError, KeyError, AttributeError) as error:
                raise Refused(f"{start} is no {self.kind} to go on from: {str(error)[:300]}") from error
        yield made.float().to(device).train()

    @abstractmethod
    def new(self, recipe: Recipe) -> nn.Module:
        """With weights of the recipe's seed."""

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """What `save_pretrained` wrote.

        Raises:
            OSError, ValueError, KeyError, AttributeError: it is something else.
        """
