"""MS-Diffusion: references in their places (spec B.2)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from refloom.inference.adapters.ms_diffusion import adapter as ms_diffusion
from refloom.inference.adapters.ms_diffusion.adapter import MSDiffusionConfig
from refloom.inference.adapters.ms_diffusion.conditioning import Known, MSDiffusionConditioning
from refloom.inference.adapters.reference import Pixels
from refloom.inference.adapters.tokens import stack
from refloom.training.features.stored import BLANK, phrase_key
from refloom.training.methods.method import Method, references_of, split
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.latents import stored, stored_pictures
from refloom.training.views.example import Example


class MSDiffusion(Method):
    """See `Method`. A dropped reference is zero pixels, with its phrase and its place."""

    kind = "ms_diffusion"
    pools_phrases = True

    def reads_clip(self, recipe: Recipe) -> str | None:
        """See `Method.reads_clip`."""
        return "patches"

    def config(self, recipe: Recipe, unet: Any) -> MSDiffusionConfig:
        """See `Method.config`."""
        names = ("image_width", "phrase_width", "tokens", "width", "depth", "heads", "head_width")
        return MSDiffusionConfig(
            **ms_diffusion.config_values(unet), **{name: getattr(recipe.adapter, name) for name in names}
        )

    def initialise(self, adapter: ms_diffusion.MSDiffusion, recipe: Recipe, pipe: Any) -> None:
        """See `Method.initialise`."""
        adapter.start_from_text(pipe.unet)

    def features(self, recipe: Recipe, pipe: Any, vision: Any, images: Sequence[Pixels]) -> Tensor:
        """See `Method.features`."""
        features: Tensor = vision.patches(ms_diffusion.reference_pixels(images, vision))
        return features

    def blank(self, recipe: Recipe, vision: Any) -> Tensor | None:
        """See `Method.blank`."""
        blank: Tensor = vision.blank_patches()
        return blank

    def conditions(
        self, adapter: ms_diffusion.MSDiffusion, examples: Sequence[Example], seed: int
    ) -> MSDiffusionConditioning:
        """See `Method.conditions`."""
        references, counts, dropped = references_of(examples)
        grounding = [example.drops.grounding for example in examples for _ in example.references]
        whole = adapter.encode(
            references, drop_grounding_tokens=grounding, drop_images=dropped, known=_known(adapter, examples)
        )
        return stack(split(whole, counts))


def _known(adapter: ms_diffusion.MSDiffusion, examples: Sequence[Example]) -> Known | None:
    """What is stored of a micro-batch's references; None if nothing is."""
    dtype = adapter.pipe.unet.dtype
    features = stored_pictures(examples, dtype)
    if features is None:
        return None
    named = [(example, phrase_key(one.phrase or "")) for example in examples for one in example.references]
    owners, keys = zip(*named, strict=True)
    return Known(features, stored(examples[:1], [BLANK], dtype), stored(owners, keys, dtype))


METHOD = MSDiffusion()
