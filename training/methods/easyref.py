"""EasyRef: references and prompt through a language model (spec A2)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.easyref import adapter as easyref
from refloom.inference.adapters.easyref.adapter import BLACK_SIDE, EasyRefConditioning, EasyRefConfig
from refloom.inference.adapters.easyref.qwen import QwenConfig
from refloom.inference.adapters.reference import Pixels
from refloom.inference.checkpoints.hub import fetch, locate
from refloom.inference.checkpoints.modelfolder import LIBRARY_ERRORS, TOKENIZER_ERRORS, trouble
from refloom.schemas import settings
from refloom.schemas.errors import Refused
from refloom.training.methods.method import Method
from refloom.training.recipes.recipe import Recipe
from refloom.training.views.example import Example

_MODEL_FILES = ("*.json", "*.safetensors", "*.txt")


class EasyRef(Method):
    """See `Method`. Dropped references are one black picture; the model reads the prompt unless the text is dropped."""

    kind = "easyref"
    fresh = (".lora.",)
    reads_frozen = False

    def check(self, recipe: Recipe) -> None:
        """See `Method.check`."""
        super().check(recipe)
        models = recipe.models
        if (models.start is None) == (models.language_model is None):
            raise Refused(
                "EasyRef starts from a language model, or from an adapter of an earlier stage: set one of "
                "models.language_model (a folder of Qwen2-VL) and models.start (a folder of the adapter)"
            )

    def config(self, recipe: Recipe, unet: Any) -> EasyRefConfig:
        """See `Method.config`."""
        sizes = recipe.adapter
        return EasyRefConfig(
            **easyref.config_values(unet),
            qwen=self._qwen(recipe),
            tokens=sizes.tokens,
            lora_rank=sizes.lora_rank,
            side=sizes.side,
        )

    def initialise(self, adapter: easyref.EasyRef, recipe: Recipe, pipe: Any) -> None:
        """See `Method.initialise`."""
        from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

        folder = _folder(str(recipe.models.language_model), _MODEL_FILES)
        try:
            model = Qwen2VLForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except TOKENIZER_ERRORS as error:
            why = trouble(folder, "transformers")
            raise Refused(f"the language model {folder} cannot be loaded: {why}") from error
        adapter.start_from_model(model, pipe.unet, tokenizer)

    def prepare(self, adapter: easyref.EasyRef, recipe: Recipe) -> None:
        """See `Method.prepare`."""
        super().prepare(adapter, recipe)
        adapter.limit = recipe.adapter.limit
        if recipe.gradient_checkpointing:
            trunk = adapter.reader.trunk
            # the later name in transformers, else the earlier one
            getattr(trunk, "activation_checkpointing_enable", trunk.gradient_checkpointing_enable)()

    def take(self, adapter: easyref.EasyRef, other: Adapter, source: str) -> None:
        """See `Method.take`; the tokenizer belongs to the weights."""
        super().take(adapter, other, source)
        adapter.tokenizer = other.tokenizer

    def conditions(self, adapter: easyref.EasyRef, examples: Sequence[Example], seed: int) -> EasyRefConditioning:
        """See `Method.conditions`."""
        black = np.zeros((BLACK_SIDE, BLACK_SIDE, 3), np.uint8)
        rows: list[tuple[Sequence[Pixels], str]] = [
            (
                [black] if example.drops.image else [image for one in example.references for image in one.images],
                "" if example.drops.text else example.caption,
            )
            for example in examples
        ]
        tokens = adapter.tokens(adapter.inputs(rows))[:, None]
        strengths = torch.ones(len(rows), 1)
        return EasyRefConditioning(
            tokens=tokens, negative_tokens=None, strengths=strengths, present=strengths.bool(), promptless_tokens=None
        )

    def _qwen(self, recipe: Recipe) -> QwenConfig:
        """Sizes of the language model, from its config alone."""
        models = recipe.models
        if models.start is not None:
            return settings.build(QwenConfig, dict(self.settings_of(models.start).get("qwen", {})))
        from transformers import AutoConfig

        folder = _folder(str(models.language_model), ("config.json",))
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            return QwenConfig.of(config)
        except LIBRARY_ERRORS as error:
            raise Refused(f"{folder} is no Qwen2-VL: its config.json is of another model, or damaged") from error


def _folder(name: str, files: Sequence[str]) -> Any:
    place = locate(name, "language model")
    return place.path if place.local else fetch(place.name, files)


METHOD = EasyRef()
