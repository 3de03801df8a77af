"""MS-Diffusion: references in their places (spec B.2)."""

from collections.abc import Sequence
from typing import Any

from inference.adapters import ms_diffusion
from inference.adapters.ms_diffusion import MSDiffusionConditioning, MSDiffusionConfig
from inference.adapters.tokens import stack
from training.methods.method import Method, references_of, split
from training.recipes.recipe import Recipe
from training.views.example import Example


class MSDiffusion(Method):
    """See `Method`. A dropped reference is zero pixels, with its phrase and its place."""

    kind = "ms_diffusion"

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

    def conditions(
        self, adapter: ms_diffusion.MSDiffusion, examples: Sequence[Example], seed: int
    ) -> MSDiffusionConditioning:
        """See `Method.conditions`."""
        references, counts, dropped = references_of(examples)
        grounding = [example.drops.grounding for example in examples for _ in example.references]
        whole = adapter.encode(references, drop_grounding_tokens=grounding, drop_images=dropped)
        return stack(split(whole, counts))
