"""A tiny Qwen2-VL: it reads a picture as EasyRef's turn shows it, and says its caption and its colours."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from torch.nn import functional

from refloom.inference.adapters.easyref.qwen import attention_mask
from refloom.inference.adapters.easyref.qweninputs import chat_inputs
from refloom.training.recipes.recipe import Recipe
from refloom.training.tinymodels.base import Base, WithTokenizer, load_with_tokenizer
from refloom.training.tinymodels.newencoders import qwen, qwen_config
from refloom.training.tinymodels.newtokenizers import qwen_tokenizer
from refloom.training.views.example import Example

_IGNORED = -100
_END = "<|im_end|>"
_GRID = 3
_LEVEL = 16
"""Of 256: one hexadecimal digit tells sixteen of them apart."""


class Qwen(Base):
    """See `Trainable`."""

    kind = "qwen2vl"

    def new(self, recipe: Recipe) -> WithTokenizer:
        """See `Base.new`."""
        return WithTokenizer(qwen(qwen_config(recipe.adapter), seed=recipe.seed), qwen_tokenizer())

    def load(self, folder: Path) -> WithTokenizer:
        """See `Base.load`."""
        from transformers import Qwen2VLForConditionalGeneration

        return load_with_tokenizer(Qwen2VLForConditionalGeneration, folder)

    def step(self, trained: WithTokenizer, recipe: Recipe) -> nn.Module:
        """See `Trainable.step`."""
        return QwenStep(trained, recipe.adapter.side_px)


class QwenStep(nn.Module):
    """Cross-entropy of the description's tokens behind the picture.

    Args:
        trained: the model.
        side: of the square that a square picture is read at.
    """

    def __init__(self, trained: WithTokenizer, side: int) -> None:
        super().__init__()
        self.trained, self._side = trained, side

    def forward(self, examples: Sequence[Example], conditioned: ExitStack) -> Tensor:
        """The mean loss of a micro-batch."""
        model, tokenizer = self.trained.model, self.trained.tokenizer
        turns = chat_inputs([((example.target,), "") for example in examples], tokenizer, side=self._side)
        turns = turns.to(model.device)
        said = tokenizer([described(example) + _END for example in examples], padding=True, padding_side="right")
        words, there = (torch.tensor(said[key], device=model.device) for key in ("input_ids", "attention_mask"))
        ids, present = torch.cat([turns.ids, words], dim=1), torch.cat([turns.present, there.bool()], dim=1)
        embedded = model.get_input_embeddings()(ids)
        seen = model.model.visual(turns.patches, grid_thw=turns.grids).pooler_output
        of_pictures = (ids == turns.image_id)[..., None].expand_as(embedded)
        positions = (present.long().cumsum(dim=1) - 1).clamp_min(0)
        states = model.model.language_model(
            inputs_embeds=embedded.masked_scatter(of_pictures, seen.to(embedded.dtype)),
            attention_mask={"full_attention": attention_mask(present, causal=True)},
            position_ids=positions[None].expand(3, -1, -1),
            use_cache=False,
        ).last_hidden_state
        count = words.shape[1]
        logits = model.lm_head(states[:, -count - 1 : -1])
        wanted = words.masked_fill(~there.bool(), _IGNORED)
        return functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=_IGNORED)


def described(example: Example) -> str:
    """The colours of the target's parts and its caption: `#d92 #...: a bear on a table`.

    Captions say of what kind things are, and never which one of the kind it is; colours tell that, and a model that
    must say them keeps what references are read for.

    Returns:
        Red, green and blue of the parts of a 3 x 3 grid, row by row, each a hexadecimal digit, then the caption.
    """
    means = cv2.resize(example.target, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    colours = (f"#{red:x}{green:x}{blue:x}" for red, green, blue in (means // _LEVEL).reshape(-1, 3).tolist())
    return f"{' '.join(colours)}: {example.caption}"


TASK = Qwen()
