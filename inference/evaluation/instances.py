"""Finding subjects in a made picture, and scoring what is found (XVerseBench's rule, arXiv 2506.21416).

For each subject the best of at most three instances counts, and 0 where none is found: then neither the background nor
another subject can stand for it. What finds them is one and the same for all of an evaluation, and in the protocol.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from refloom.inference.evaluation.cases import Benchmark
from refloom.inference.evaluation.copying import NO_REFERENCE, NOT_MADE, UNNAMED
from refloom.inference.evaluation.encoders import Chosen
from refloom.inference.evaluation.metrics import Floats, Score

MOST = 3
"""Instances of a subject that are looked at, the surest ones."""
MISSED = f"{NOT_MADE}, which counts 0"


@dataclass(frozen=True, slots=True)
class Finder:
    """What says where the subjects are.

    Attributes:
        by: `detector` looks for their phrases; `boxes` are where the method was told to put them; `whole` is the whole
            picture, whose one subject can be compared but not missed; `nothing`.
        name: for the protocol's id.
        why: no instance can be found; None if one can.
    """

    by: Literal["detector", "boxes", "whole", "nothing"]
    name: str
    why: str | None = None


WHOLE = Finder("whole", "whole", "nothing finds instances")


def finder(benchmark: Benchmark, detector: Chosen) -> Finder:
    """The finder of an evaluation.

    A detector comes first, because a box that the method was given says nothing of what is in it: there a subject can
    be missing.

    Args:
        benchmark: boxes are taken if all of its subjects have one.
        detector: the one that was chosen, or why there is none.
    """
    if detector.entry is not None:
        return Finder("detector", f"found-by-{detector.entry.name}-{detector.entry.thresholds['min_score']}")
    subjects = [subject for case in benchmark.cases for subject in case.subjects]
    if all(subject.box is not None for subject in subjects):
        return Finder("boxes", "boxes")
    why = f"{detector.why}; and not all subjects of {benchmark.name} have a box"
    if len(subjects) == len(benchmark.cases):
        return Finder("whole", "whole", why)
    return Finder("nothing", "nothing", why)


def best_instances(found: Sequence[Floats | None], subjects: Sequence[Floats]) -> tuple[Score | None, dict[str, int]]:
    """Mean over subjects of the best mean cosine of an instance with their photographs; 0 for one that is not found.

    Args:
        found: (M_k, D) of each subject's instances, M_k from 0; None where it could not be looked for.
        subjects: (N_k, D) of their photographs; where N_k is 0, as of faces, there is nothing to compare.

    Returns:
        Value and subjects, None if there is nothing to compare; and how many subjects were missed, or not looked for.
    """
    values: list[float] = []
    remarks: Counter[str] = Counter()
    for instances, known in zip(found, subjects, strict=True):
        if instances is None or not len(known):
            remarks[UNNAMED if instances is None else NO_REFERENCE] += 1
        elif not len(instances):
            remarks[MISSED] += 1
            values.append(0.0)
        else:
            values.append(float((known.astype(np.float64) @ instances.astype(np.float64).T).mean(axis=0).max()))
    return ((float(np.mean(values)), len(values)) if values else None), dict(remarks)
