"""Where a phrase stands in a prompt, in tokens, by the tokenizer's own offsets.

Case, punctuation, hyphens and leading articles do not matter, words do. Spans are half-open and count the start token.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from schemas.errors import Refused

Span = tuple[int, int]

_ARTICLES = ("a", "an", "the")
_TRAILING = ".!?,:"


def spans(tokenizer: Any, prompt: str, phrases: Sequence[str]) -> list[Span | None]:
    """The tokens of each phrase in the prompt.

    Two equal phrases get two occurrences, in order. Longer phrases choose first, so that `dog` is not found in
    `hot dog` if both are asked for.

    Args:
        tokenizer: a CLIP tokenizer of transformers, with offsets.
        prompt: the whole prompt.
        phrases: one of each subject.

    Returns:
        [start, stop) of each, None where the prompt has no such words, or has them where it is cut.
    """
    prompt = unicodedata.normalize("NFC", prompt)
    offsets = _offsets(tokenizer, prompt)
    found: list[Span | None] = [None] * len(phrases)
    taken: list[tuple[int, int]] = []
    for index in sorted(range(len(phrases)), key=lambda index: -len(words_of(phrases[index]))):
        for start, stop in _occurrences(prompt, phrases[index]):
            if all(stop <= first or start >= last for first, last in taken):
                taken.append((start, stop))
                found[index] = _tokens(offsets, start, stop)
                break
    return found


def contains(prompt: str, phrase: str) -> bool:
    """Whether the prompt has the words of the phrase, in order and in one clause."""
    return bool(_occurrences(unicodedata.normalize("NFC", prompt), phrase))


def published_spans(tokenizer: Any, prompt: str, phrases: Sequence[str]) -> list[Span]:
    """The spans that the published MS-Diffusion finds (spec B.4.3), its defects included.

    Case-sensitive, by words between spaces; the second of two equal phrases is placed too early, because what it skips
    is not counted. (0, 0) where nothing is found.
    """
    words = prompt.split()
    return [
        _published_span(tokenizer, words, phrase.split(), list(phrases[:index]).count(phrase))
        for index, phrase in enumerate(phrases)
    ]


def phrase_length(tokenizer: Any, phrase: str) -> int:
    """Number of tokens of a phrase alone, without start and end; at least 1, at most what the context holds.

    Raises:
        Refused: the phrase is empty.
    """
    if not words_of(phrase):
        raise Refused(f"the phrase {phrase!r} names nothing; give each reference a phrase such as 'a dog'")
    return min(len(tokenizer(phrase).input_ids), int(tokenizer.model_max_length)) - 2


def words_of(phrase: str) -> list[str]:
    """The words that must be found, lower case, without a leading article."""
    words = re.findall(r"\w+", unicodedata.normalize("NFC", phrase).lower())
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _occurrences(prompt: str, phrase: str) -> list[tuple[int, int]]:
    words = words_of(phrase)
    if not words:
        return []
    # what stands between two words of a phrase may be spaces and hyphens, but no end of a clause
    pattern = r"(?<!\w)" + r"[^\w.,;:!?]+".join(map(re.escape, words)) + r"(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)]


def _offsets(tokenizer: Any, prompt: str) -> list[tuple[int, int]]:
    encoded = tokenizer(prompt, return_offsets_mapping=True, truncation=True, max_length=tokenizer.model_max_length)
    return [(int(start), int(stop)) for start, stop in encoded["offset_mapping"]]


def _tokens(offsets: list[tuple[int, int]], start: int, stop: int) -> Span | None:
    inside = [at for at, (first, last) in enumerate(offsets) if first < stop and last > start and last > first]
    # a phrase that the end of the context cuts in two is no phrase
    whole = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= stop
    return (inside[0], inside[-1] + 1) if whole else None


def _published_span(tokenizer: Any, words: list[str], wanted: list[str], skip: int) -> Span:
    position = 1
    for at, word in enumerate(words):
        matched = words[at : at + len(wanted)]
        if wanted and len(matched) == len(wanted) and all(map(_published_match, matched, wanted)):
            if skip == 0:
                last = matched[-1][:-1] if matched[-1][-1] in _TRAILING else matched[-1]
                return position, position + sum(_count(tokenizer, part) for part in [*matched[:-1], last])
            skip -= 1
        else:
            position += _count(tokenizer, word)
    return 0, 0


def _published_match(word: str, wanted: str) -> bool:
    bare = word[:-1] if word[-1] in _TRAILING else word
    return bare == wanted or f"-{wanted}" in word


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text).input_ids) - 2
