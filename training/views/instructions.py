"""Instructions: texts that ask for the target and may count its references: image 1, image 2. Pure functions of rows.

A view takes an instruction only with the references that it counts, in the order in which it counts them, so that a
number always means the picture that its author meant.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from refloom.training.data.sample import Row
from refloom.training.views.subjects import Pair, says_target

INSTRUCTION, ANY = "instruction", "any"
TEXTS = (INSTRUCTION, ANY)
"""What `captions` of a view may say beside null: an instruction where one fits and else a caption; any of both."""

_Taken = TypeVar("_Taken")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A text and what it counts.

    Attributes:
        text: what to make.
        pictures: numbers of the pictures that it counts, the first of them its image 1; empty if it counts none.
    """

    text: str
    pictures: tuple[int, ...]


def instructions_of(row: Row, offered: Collection[int], most: int) -> list[Instruction]:
    """Instructions of a sample that fit the references which a view can give.

    Args:
        row: of the sample. One that does not say its target has none: its texts would ask for another picture.
        offered: numbers of the pictures that references may come from; the target is none of them.
        most: references that the view gives.
    """
    if not says_target(row):
        return []
    known = (Instruction(one["text"], tuple(one["references"] or ())) for one in row.get("instructions") or ())
    return [one for one in known if one.text and len(one.pictures) <= most and set(one.pictures) <= set(offered)]


def taken(
    fitting: Sequence[_Taken], captions: Sequence[Any] | None, wanted: str | None, rng: np.random.Generator
) -> _Taken | None:
    """The instruction of an example; None for a caption. Without any that fits nothing is drawn.

    Args:
        fitting: instructions that the view can take.
        captions: those that there are beside them.
        wanted: `captions` of the view.
        rng: of the sample.
    """
    if not fitting:
        return None
    drawn = int(rng.integers(len(fitting) + (len(captions or ()) if wanted == ANY else 0)))
    return fitting[drawn] if drawn < len(fitting) else None


def assigned(
    pictures: Sequence[int], pairs: Sequence[Pair], rng: np.random.Generator | None = None
) -> list[Pair] | None:
    """For every picture that an instruction counts the subject that it stands for, all of them different.

    Args:
        pictures: numbers, in the order of the instruction.
        pairs: subjects on the target, and where they may be cut out.
        rng: draws among the choices; None takes the first.

    Returns:
        One pair for each picture, in order; None if there is no such choice.
    """
    if rng is not None:
        pairs = [pairs[int(at)] for at in rng.permutation(len(pairs))]
    owner: dict[int, tuple[int, Pair]] = {}

    def place(at: int, tried: set[int]) -> bool:
        """Find a subject for a picture; others may have to move (augmenting paths, Kuhn 1955)."""
        for pair in pairs:
            subject = pair[0].subject
            if pair[1].picture == pictures[at] and subject not in tried:
                tried.add(subject)
                if subject not in owner or place(owner[subject][0], tried):
                    owner[subject] = (at, pair)
                    return True
        return False

    if not all(place(at, set()) for at in range(len(pictures))):
        return None
    chosen = dict(owner.values())
    return [chosen[at] for at in range(len(pictures))]
