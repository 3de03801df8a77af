"""A tiny CLIP: pictures and captions in one space, and crops of one picture close to each other."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.adapters.vision import clip_pixels
from refloom.training.data.draws import Purpose, generator
from refloom.training.data.sample import Pixels
from refloom.training.recipes.recipe import Recipe
from refloom.training.tinymodels.base import Base, WithTokenizer, load_with_tokenizer
from refloom.training.tinymodels.newencoders import clip
from refloom.training.tinymodels.newtokenizers import clip_tokenizer
from refloom.training.views.example import Example

_CROP = 0.6
"""Side of a crop over that of the picture."""


class Clip(Base):
    """See `Trainable`."""

    kind = "clip"

    def new(self, recipe: Recipe) -> WithTokenizer:
        """See `Base.new`."""
        return WithTokenizer(clip(recipe.adapter, seed=recipe.seed), clip_tokenizer(words=recipe.adapter.words))

    def load(self, folder: Path) -> WithTokenizer:
        """See `Base.load`."""
        from transformers import CLIPModel

        return load_with_tokenizer(CLIPModel, folder)

    def step(self, trained: WithTokenizer, recipe: Recipe) -> nn.Module:
        """See `Trainable.step`."""
        return ClipStep(trained, recipe.seed)


class ClipStep(nn.Module):
    """Contrastive loss of pictures and their captions, and of two looks at one thing.

    Captions say of what kind things are, and never which one of the kind it is. That is told by two appearances of one
    subject where the view gives them, else by a picture and a crop of itself.

    Args:
        trained: the model.
        seed: of the run.
    """

    def __init__(self, trained: WithTokenizer, seed: int) -> None:
        super().__init__()
        self.trained, self._seed = trained, seed

    def forward(self, examples: Sequence[Example], conditioned: ExitStack) -> Tensor:
        """The mean loss of a micro-batch, in which each picture is told from all others."""
        model, tokenizer = self.trained.model, self.trained.tokenizer
        device, side = model.device, model.config.vision_config.image_size
        shown = [example.target for example in examples]
        if all(example.references for example in examples):
            shown += [example.references[0].images[look] for look in (0, 1) for example in examples]
        else:
            shown += [cropped(example, self._seed) for example in examples]
        pictures = clip_pixels(shown, side).to(device)
        texts = ["" if example.drops.text else example.caption for example in examples]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(device)
        seen = model.visual_projection(model.vision_model(pictures).pooler_output).split(len(examples))
        words = model.text_projection(model.text_model(**tokens).pooler_output)
        scale = model.logit_scale.exp().clamp(max=100)
        return (contrast(seen[0], words, scale) + contrast(seen[-2], seen[-1], scale)) / 2


def cropped(example: Example, seed: int) -> Pixels:
    """A square of the target, drawn for the example."""
    rng = generator(seed, example.position, Purpose.NOISE)
    height, width = example.target.shape[:2]
    side = max(1, round(_CROP * min(height, width)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return np.ascontiguousarray(example.target[top : top + side, left : left + side])


def contrast(one: Tensor, other: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of finding each row's partner, both ways (arXiv 2103.00020, figure 3).

    Args:
        one, other: (B, width).
        scale: of the cosines.
    """
    cosines = scale * functional.normalize(one, dim=-1) @ functional.normalize(other, dim=-1).T
    partners = torch.arange(len(one), device=one.device)
    return (functional.cross_entropy(cosines, partners) + functional.cross_entropy(cosines.T, partners)) / 2


TASK = Clip()
