"""Tokenizers without the network: CLIP's own, whose vocabulary open_clip ships, and Qwen's with bytes for words."""

import functools
from collections.abc import Sequence
from typing import Any

import open_clip
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, Qwen2Tokenizer

_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORD_ENDS = "</w>"
_ROOM = 2
"""Rows of embeddings that no token has, so that their number is a multiple of 8."""


def clip_tokenizer(pad_token: str = _END, words: Sequence[str] = ()) -> CLIPTokenizer:
    """CLIP's tokenizer; SDXL's second one pads with `!`.

    Args:
        pad_token: see there.
        words: that it knows, numbered anew; others are read in letters. None for all that CLIP knows.
    """
    vocab, merges = _numbered(tuple(words))
    pairs: list[Any] = list(merges)
    return CLIPTokenizer(vocab=dict(vocab), merges=pairs, pad_token=pad_token, model_max_length=77)


def clip_token_ids(words: Sequence[str] = ()) -> dict[str, Any]:
    """What configs of text encoders say of the tokens of `clip_tokenizer`."""
    vocab, _ = _numbered(tuple(words))
    end = vocab[_END]
    return {"vocab_size": len(vocab), "bos_token_id": vocab[_BEGIN], "eos_token_id": end, "pad_token_id": end}


def known_words(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """As much of CLIP's vocabulary as reads some words: tokens with CLIP's own numbers, in their order, and merges."""
    vocab, merges = _vocabulary()
    parts = {word[at:end] for word in words for at in range(len(word)) for end in range(at + 1, len(word) + 1)}
    pairs = [pair for pair in merges if "".join(pair).removesuffix(_WORD_ENDS) in parts]
    known = {"".join(pair) for pair in pairs} | {_BEGIN, _END}
    short = {token for token in vocab if token in known or len(token.removesuffix(_WORD_ENDS)) == 1}
    return {token: number for token, number in vocab.items() if token in short}, pairs


@functools.cache
def _numbered(words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Numbers of tokens from 0 without gaps, and merges."""
    if not words:
        return _vocabulary()
    vocab, merges = known_words(words)
    return {token: at for at, token in enumerate(sorted(vocab, key=vocab.__getitem__))}, merges


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
    names = {"<start_of_text>": _BEGIN, "<end_of_text>": _END}
    return {names.get(token, token): at for token, at in simple.encoder.items()}, list(simple.bpe_ranks)
