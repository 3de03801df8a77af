"""IP-Adapter and MIP-Adapter: references through CLIP and a head (spec B1 and B2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from refloom.inference.adapters.ip_adapter import heads
from refloom.inference.adapters.ip_adapter.adapter import IPAdapterConfig
from refloom.inference.adapters.ip_adapter.heads import HeadAdapter, strengths
from refloom.inference.adapters.mip.adapter import MIPConditioning
from refloom.inference.adapters.reference import Pixels
from refloom.inference.adapters.tokens import TokenConditioning, stack
from refloom.schemas.errors import Refused
from refloom.training.features.stored import BLANK
from refloom.training.methods.method import Method, references_of, split
from refloom.training.recipes.kinds import HeadSizes
from refloom.training.recipes.recipe import Recipe
from refloom.training.run.latents import states_of, stored, stored_pictures
from refloom.training.views.example import Example


class IPAdapter(Method):
    """See `Method`. A dropped reference is the head's tokens of nothing."""

    kind = "ip_adapter"

    def reads_clip(self, recipe: Recipe) -> str | None:
        """See `Method.reads_clip`."""
        return "pooled" if recipe.adapter.head == "plain" else "patches"

    def config(self, recipe: Recipe, unet: Any) -> Any:
        """See `Method.config`."""
        return IPAdapterConfig(**_values(recipe.adapter, unet))

    def initialise(self, adapter: HeadAdapter, recipe: Recipe, pipe: Any) -> None:
        """See `Method.initialise`."""
        adapter.start_from_text(pipe.unet)

    def conditions(self, adapter: HeadAdapter, examples: Sequence[Example], seed: int) -> TokenConditioning:
        """See `Method.conditions`."""
        return stack(split(self.together(adapter, examples), [len(example.references) for example in examples]))

    def features(self, recipe: Recipe, pipe: Any, vision: Any, images: Sequence[Pixels]) -> Tensor:
        """See `Method.features`."""
        return heads.image_features(vision, images, pooled=recipe.adapter.head == "plain")

    def blank(self, recipe: Recipe, vision: Any) -> Tensor | None:
        """See `Method.blank`."""
        return None if recipe.adapter.head == "plain" else vision.blank_patches()

    def together(self, adapter: HeadAdapter, examples: Sequence[Example]) -> TokenConditioning:
        """Of all references at once, (1, sum of references, ...)."""
        references, _, dropped = references_of(examples)
        tokens = adapter.image_tokens(references, stored_pictures(examples, adapter.pipe.unet.dtype))
        if any(dropped):
            where = torch.tensor(dropped, device=tokens.device)[None, :, None, None]
            known = examples[0].stored is not None and not adapter.pooled
            blank = stored(examples[:1], [BLANK], adapter.pipe.unet.dtype) if known else None
            tokens = torch.where(where, adapter.null_tokens(blank), tokens)
        scales, present = strengths(references)
        return TokenConditioning(tokens=tokens, negative_tokens=None, strengths=scales, present=present)


class MIP(IPAdapter):
    """See `Method`. Phrases stay real where references or the text are dropped."""

    kind = "mip"
    kinds = ("ip_adapter",)
    fresh = (".text_to_weight.",)

    def check(self, recipe: Recipe) -> None:
        """See `Method.check`."""
        super().check(recipe)
        if recipe.models.start is None and not any("image_proj".startswith(prefix) for prefix in recipe.tuned):
            raise Refused(
                "the image head is not trained, so it must be a trained one: set models.start to an IP-Adapter for "
                "this base, or tuned to [image_proj, layers]"
            )

    def config(self, recipe: Recipe, unet: Any) -> Any:
        """See `Method.config`."""
        return heads.HeadConfig(**_values(recipe.adapter, unet))

    def words(self, phrases: Sequence[str | None]) -> list[str]:
        """See `Method.words`."""
        return [phrase or "" for phrase in phrases]

    def conditions(self, adapter: Any, examples: Sequence[Example], seed: int) -> MIPConditioning:
        """See `Method.conditions`."""
        references, counts, _ = references_of(examples)
        plain = self.together(adapter, examples)
        phrases = [reference.phrase for reference in references]
        encoded = None
        if examples[0].stored is not None:
            owners = [example for example in examples for _ in example.references]
            words = [*self.words(phrases), ""]
            encoded = states_of(adapter.pipe, words, [*owners, owners[0]])
        states, rows, empty = adapter.phrases(phrases, encoded)
        whole = MIPConditioning(
            tokens=plain.tokens,
            negative_tokens=None,
            strengths=plain.strengths,
            present=plain.present,
            phrase_states=states[None],
            phrase_rows=rows[None],
            negative_phrase_states=empty[None].expand(1, len(references), -1, -1),
        )
        return stack(split(whole, counts))


def _values(sizes: HeadSizes, unet: Any) -> dict[str, Any]:
    of_base = heads.config_values(
        unet,
        head=sizes.head,  # type: ignore[arg-type]
        image_width=sizes.image_width,
        tokens=sizes.tokens,
    )
    names = ("resampler_width", "resampler_depth", "resampler_heads", "resampler_head_width")
    return of_base | {name: getattr(sizes, name) for name in names}


IP_ADAPTER = IPAdapter()
MIP_ADAPTER = MIP()
