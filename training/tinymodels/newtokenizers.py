"""Tokenizers without the network: CLIP's own, whose vocabulary open_clip ships, and Qwen's with bytes for words."""

import functools
from typing import Any

import open_clip
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, Qwen2Tokenizer

_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_ROOM = 2
"""Rows of embeddings that no token has, so that their number is a multiple of 8."""


def clip_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's tokenizer; SDXL's second one pads with `!`."""
    vocab, merges = _vocabulary()
    pairs: list[Any] = list(merges)
    return CLIPTokenizer(vocab=dict(vocab), merges=pairs, pad_token=pad_token, model_max_length=77)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen's, with bytes alone for words, and the special tokens that EasyRef reads."""
    vocab = {token: at for at, token in enumerate([*sorted(ByteLevel.alphabet()), *_QWEN_SPECIAL])}
    return Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=list(_QWEN_SPECIAL[1:]))


def qwen_vocabulary() -> int:
    """Rows of embeddings for `qwen_tokenizer`."""
    return len(ByteLevel.alphabet()) + len(_QWEN_SPECIAL) + _ROOM


@functools.cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's own, which open_clip ships."""
    simple = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return {names.get(token, token): at for token, at in simple.encoder.items()}, list(simple.bpe_ranks)
