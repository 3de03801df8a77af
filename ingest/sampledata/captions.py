"""Captions in the manner of COCO: what is there and where, in everyday words, never what tells two of a kind apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refloom.ingest.sampledata import categories

_NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Seen:
    """Subjects of one kind in a picture: how many, and whether they are a crowd."""

    kind: str
    count: int
    crowd: bool = False


def write(rng: _Rng, seen: Sequence[Seen], words: Sequence[Sequence[str]]) -> list[str]:
    """Two to five captions of one picture; the first names everything.

    Args:
        rng: chooses words.
        seen: largest first; kinds of one category are counted together.
        words: what the place is called, a sequence of synonyms for each of its aspects.
    """
    seen = _together(seen)
    places = [str(rng.choice(list(synonyms))) for synonyms in words]
    out = [_sentence(f"{_list(seen, rng, usual=True)} {places[0]}")]
    for _ in range(int(rng.integers(1, 5))):
        place = str(rng.choice(list(words[int(rng.integers(len(words)))])))
        out.append(_sentence(_variant(rng, seen, place, " ".join(places))))
    return list(dict.fromkeys(out))


def _together(seen: Sequence[Seen]) -> list[Seen]:
    """One entry a category and crowd, in order of first mention."""
    merged: dict[tuple[int, bool], Seen] = {}
    for one in seen:
        key = (categories.of(one.kind, "coco"), one.crowd)
        before = merged.get(key)
        merged[key] = one if before is None else Seen(before.kind, before.count + one.count, one.crowd)
    return list(merged.values())


def _variant(rng: _Rng, seen: list[Seen], place: str, everywhere: str) -> str:
    if not seen:
        return str(rng.choice([f"a view {place}", f"a picture taken {everywhere}", f"nothing but the ground {place}"]))
    whole, main = _list(seen, rng), _list(seen[:1], rng)
    choices = [
        f"{whole} {everywhere}",
        f"a photo of {whole} {place}",
        f"{'there is' if seen[0].count == 1 and not seen[0].crowd else 'there are'} {whole} {place}",
        f"{main} {place}",
        f"a close-up picture of {main}",
    ]
    if len(seen) > 1:
        choices += [
            f"{main} next to {_list(seen[1:], rng)} {place}",
            f"{main} with {_list(seen[1:], rng)} {everywhere}",
        ]
    return str(rng.choice(choices))


def _list(seen: list[Seen], rng: _Rng, *, usual: bool = False) -> str:
    if not seen:
        return "a place"
    phrases = [_phrase(one, rng, usual=usual) for one in seen]
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _phrase(one: Seen, rng: _Rng, *, usual: bool) -> str:
    names = categories.nouns(one.kind)
    # the usual word half of the time, as people do
    singular, plural = names[0] if usual or rng.random() < 0.5 else names[int(rng.integers(len(names)))]
    if one.crowd:
        return f"{rng.choice(['many', 'a pile of', 'several'])} {plural}"
    if one.count == 1:
        return f"{'an' if singular[0] in 'aeiou' else 'a'} {singular}"
    return f"{_NUMBERS[one.count] if one.count < len(_NUMBERS) else 'many'} {plural}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
