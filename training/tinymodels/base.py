"""What all bases share: they start new, from their recipe's seed, or from a folder that one saved."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from refloom.inference.checkpoints.hub import fetch, locate
from refloom.inference.checkpoints.modelfolder import TOKENIZER_ERRORS, trouble
from refloom.schemas.errors import Refused
from refloom.training.methods.trainable import Trainable
from refloom.training.recipes.recipe import Recipe

_FILES = ("*.json", "*.safetensors", "*.txt")


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


class Base(Trainable):
    """A model that needs no other; see `Trainable`.

    Attributes:
        takes: of `models`, beside `start`, what its recipes may name.
    """

    takes: ClassVar[tuple[str, ...]] = ()

    def check(self, recipe: Recipe) -> None:
        """See `Trainable.check`."""
        names = (field.name for field in fields(recipe.models) if field.name not in ("start", *self.takes))
        if given := [f"models.{name}" for name in names if getattr(recipe.models, name)]:
            raise Refused(f"{self.kind} is trained by itself: leave out {', '.join(given)}")

    def shapes(self, recipe: Recipe) -> nn.Module:
        """See `Trainable.shapes`. It is tiny, so it is made and thrown away."""
        return self.new(recipe).to("meta")

    @contextmanager
    def ready(self, recipe: Recipe, device: torch.device, *, frozen: Path | None = None) -> Iterator[Any]:
        """See `Trainable.ready`; nothing of it is frozen."""
        start = recipe.models.start
        made = self.new(recipe) if start is None else self.load(_folder(start, self.kind))
        if start is not None and sizes(made) != sizes(self.new(recipe)):
            raise Refused(
                f"{start} is of other sizes than the recipe's: set `adapter` to them, or leave models.start out"
            )
        made = made.float().to(device)
        yield (made.to(memory_format=torch.channels_last) if recipe.channels_last else made).train()

    @abstractmethod
    def new(self, recipe: Recipe) -> nn.Module:
        """With weights of the recipe's seed."""

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """What `save_pretrained` wrote.

        Raises:
            Refused: it is something else.
        """


def load_with_tokenizer(kind: type[Any], folder: Path) -> WithTokenizer:
    """What `WithTokenizer.save_pretrained` wrote.

    Args:
        kind: class of the model.
        folder: of both.

    Raises:
        Refused: there is no such model.
    """
    from transformers import AutoTokenizer

    try:
        model = kind.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
        return WithTokenizer(
            model, AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )
    except TOKENIZER_ERRORS as error:
        why = trouble(folder, "transformers")
        raise Refused(f"{folder} is no {kind.__name__} with its tokenizer: {why}") from error


def _folder(start: str, kind: str) -> Path:
    place = locate(start, kind)
    return place.path if place.local else fetch(place.name, _FILES)


def sizes(module: nn.Module) -> dict[str, torch.Size]:
    """Of each tensor by name."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
