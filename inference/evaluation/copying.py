"""How much of a made picture is copied from a reference, where the truth is known. Pure functions of unit vectors.

A method that pastes its reference is as similar to it as can be, and has learned nothing: it shows the subject as it
was, not as it is asked for. Between the reference and the picture that was left out lies an angle, and what is made is
nearer to the one or to the other (M_CP of MultiID-Bench: WithAnyone, arXiv 2510.14975).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

MIN_ANGLE = 0.1
"""Least angle between truth and reference that is divided by, radians: a cosine of 0.995. Vectors of two machines agree
to 1e-3, which this angle makes 0.02 of the quotient; below it the quotient would be of rounding, not of copying."""
FORMULA = f"(a_truth-a_ref)/a_between,nearest-ref,a_between>={MIN_ANGLE}"
"""For the protocol's id."""

NO_TRUTH = "not surely seen on the picture left out"
NO_REFERENCE = "not surely seen on a reference"
NOT_MADE = "not found on the made picture"
ALIKE = "reference and picture left out too alike"
UNNAMED = "no phrase to look for"


Part = Literal["copy", "truth", "reference"]
"""A number of `Compared`."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of a subject.

    Attributes:
        truth: (1, D) of it on the picture left out; (0, 1) where it is not surely seen there.
        references: (N, D) of it on what the adapter saw, N from 0.
    """

    truth: Floats
    references: Floats


@dataclass(frozen=True, slots=True)
class Compared:
    """A subject of a made picture between its truth and its reference.

    Attributes:
        copy: M_CP: 1 for the reference itself, -1 for the truth, 0 in the middle; None where they are too alike.
        truth: cosine with the truth, -1 to 1.
        reference: cosine with the reference that it is nearest to, -1 to 1.
    """

    copy: float | None
    truth: float
    reference: float


def angle(one: Floats, other: Floats) -> float:
    """Angle between two unit vectors (D,), radians, 0 to pi; exactly 0 for the same one, and the same both ways round.

    An arc cosine would make 3e-4 of the rounding of a cosine of 1.
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def compare(made: Floats, truth: Floats, references: Floats) -> Compared:
    """Where a made subject lies.

    Of several references the nearest one counts: who pastes one of three has pasted.

    Args:
        made, truth: (D,).
        references: (N, D), N from 1.
    """
    nearest = min(references, key=lambda reference: angle(made, reference))
    between = angle(truth, nearest)
    copy = None if between < MIN_ANGLE else (angle(made, truth) - angle(made, nearest)) / between
    return Compared(copy, cosine(made, truth), cosine(made, nearest))


def cosine(one: Floats, other: Floats) -> float:
    """Of two unit vectors (D,)."""
    return float(one.astype(np.float64) @ other.astype(np.float64))


def likeness(candidates: Floats, truth: Floats, references: Floats) -> Floats:
    """How well candidates fit a subject: cosine with its truth plus with its nearest reference, so that the choice
    favours neither.

    Args:
        candidates: (M, D) of things on the made picture.
        truth: (D,).
        references: (N, D), N from 1.

    Returns:
        (M,).
    """
    many = candidates.astype(np.float64)
    sums: Floats = many @ truth.astype(np.float64) + (many @ references.astype(np.float64).T).max(axis=1)
    return sums


def assign(fits: Sequence[Floats | None]) -> list[int | None]:
    """Which candidate is which subject, each candidate one subject at most: the best pair first.

    Args:
        fits: (M,) of each subject, as `likeness` gives them; None for a subject that asks for none.

    Returns:
        A number of a candidate for each subject; None where none is left.
    """
    pairs = [
        (-float(value), subject, candidate)
        for subject, values in enumerate(fits)
        if values is not None
        for candidate, value in enumerate(values)
    ]
    given: list[int | None] = [None] * len(fits)
    for _, subject, candidate in sorted(pairs):
        if given[subject] is None and candidate not in given:
            given[subject] = candidate
    return given


def compare_subjects(
    known: Sequence[Known], candidates: Sequence[Floats | None], *, shared: bool
) -> list[Compared | str]:
    """Each subject of a made picture between its truth and its references.

    Args:
        known: of each subject.
        candidates: (M_k, D) of what may be it on the made picture, M_k from 0; None where nothing could be looked for.
        shared: whether all subjects have the same candidates, of which each is one subject at most; else each takes its
            own best one.

    Returns:
        In their order; in place of what cannot be compared, why.
    """
    why = [_missing(one, many) for one, many in zip(known, candidates, strict=True)]
    fits = [
        likeness(many, one.truth[0], one.references) if reason is None and many is not None else None
        for one, many, reason in zip(known, candidates, why, strict=True)
    ]
    chosen = assign(fits) if shared else [None if fit is None else int(np.argmax(fit)) for fit in fits]
    found: list[Compared | str] = []
    for one, many, reason, at in zip(known, candidates, why, chosen, strict=True):
        if many is None or at is None:
            found.append(reason or NOT_MADE)
        else:
            found.append(compare(many[at], one.truth[0], one.references))
    return found


def _missing(known: Known, candidates: Floats | None) -> str | None:
    """Why a subject cannot be compared, whatever the candidates are; None if it can."""
    if not len(known.truth):
        return NO_TRUTH
    if not len(known.references):
        return NO_REFERENCE
    if candidates is None:
        return UNNAMED
    return None if len(candidates) else NOT_MADE


def score(found: Sequence[Compared | str], part: Part) -> tuple[tuple[float, int] | None, dict[str, int]]:
    """Mean of one number over the subjects that have it.

    Args:
        found: of all subjects, as `compare_subjects` gives them.
        part: which number.

    Returns:
        Value and subjects, None without any; and why others have none, with their number.
    """
    each = [one if isinstance(one, str) else getattr(one, part) for one in found]
    why = Counter(ALIKE if one is None else one for one in each if one is None or isinstance(one, str))
    values = [one for one in each if isinstance(one, float)]
    return ((float(np.mean(values)), len(values)) if values else None), dict(why)
