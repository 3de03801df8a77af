"""Where a phrase stands in a prompt, in tokens, by the tokenizer's own offsets.

What counts as the phrase is `refloom.schemas.words`' rule. Spans are half-open and count the start token.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

from refloom.schemas.errors import Refused
from refloom.schemas.words import is_plural, occurrences, words_of

Span = tuple[int, int]

NOWHERE: Span = (0, 0)
"""What the published code has for a phrase that it does not find."""

_TRAILING = ".!?,:"


def spans(tokenizer: Any, prompt: str, phrases: Sequence[str]) -> list[Span | None]:
    """The tokens of each phrase in the prompt.

    Two equal phrases get two occurrences, in order; a plural is an occurrence of all that are left. Longer phrases
    choose first, so that `dog` is not found in `hot dog` if both are asked for.

    Args:
        tokenizer: a CLIP tokenizer of transformers, with offsets.
        prompt: the whole prompt.
        phrases: one of each subject.

    Returns:
        [start, stop) of each, None where the prompt has no such words, or has them where it is cut.
    """
    prompt = unicodedata.normalize("NFC", prompt)
    offsets = _offsets(tokenizer, prompt)
    found = (None if place is None else _tokens(offsets, *place) for place in places(prompt, phrases))
    return list(found)


def places(prompt: str, phrases: Sequence[str]) -> list[Span | None]:
    """The characters of each phrase in the prompt in its composed form, None where it has no such words.

    `spans` finds no phrase that this does not; it loses those that stand where the prompt is cut.
    """
    prompt = unicodedata.normalize("NFC", prompt)
    found: list[Span | None] = [None] * len(phrases)
    taken: dict[Span, list[str]] = {}
    words = [words_of(phrase) for phrase in phrases]
    for index in sorted(range(len(phrases)), key=lambda index: (-len(words[index]), -len("".join(words[index])))):
        standing = occurrences(prompt, phrases[index])
        free = [(a, b) for a, b in standing if all(b <= start or a >= stop for start, stop in taken)]
        shared = [
            place
            for place in standing
            if taken.get(place) == words[index] and is_plural(prompt[slice(*place)], phrases[index])
        ]
        place = next(iter(free + shared), None)
        if place is not None:
            found[index], taken[place] = place, words[index]
    return found


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
    check_names_something(phrase)
    return min(len(tokenizer(phrase).input_ids), int(tokenizer.model_max_length)) - 2


def check_names_something(phrase: str) -> None:
    """Refuse a phrase without words.

    Raises:
        Refused: with the remedy.
    """
    if not words_of(phrase):
        raise Refused(f"the phrase {phrase!r} names nothing; give each reference a phrase such as 'a dog'")


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
    return NOWHERE


def _published_match(word: str, wanted: str) -> bool:
    bare = word[:-1] if word[-1] in _TRAILING else word
    return bare == wanted or f"-{wanted}" in word


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text).input_ids) - 2
