"""What is measured, and by what: each metric's name, encoder, pictures and formula. Pure functions of unit vectors.

Nothing here knows a model. Vectors are rows of length 1, so that products of matrices are cosines.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from refloom.inference.evaluation.cases import Average, Benchmark, Case
from refloom.inference.evaluation.copying import FORMULA as COPY
from refloom.inference.evaluation.copying import Part
from refloom.schemas.errors import Refused

Floats = npt.NDArray[np.floating]
Encoder = Literal["clip", "dino", "face", "image"]
"""`image` is the one that copying is measured by: DINO, or whichever image encoder there is."""
Score = tuple[float, int]
"""A picture's value of a metric, and the number of pairs it is the mean of."""

CLIP_SCORE_WEIGHT = 2.5
"""Of CLIPScore (Hessel et al. 2021, arXiv 2104.08718, eq. 1)."""


def mean_cosine(picture: Floats, others: Floats) -> float:
    """Mean cosine of a picture (D,) and photographs (N, D), N from 1."""
    return float(np.mean(others.astype(np.float64) @ picture.astype(np.float64)))


def over_subjects(picture: Floats, subjects: Sequence[Floats]) -> Score:
    """Mean over subjects of the mean cosine with their photographs (N_k, D); and the number of all photographs."""
    value = float(np.mean([mean_cosine(picture, photographs) for photographs in subjects]))
    return value, sum(len(photographs) for photographs in subjects)


def product_over_subjects(pictures: Sequence[Floats], subjects: Sequence[Floats]) -> Score:
    """M-DINO (MS-Diffusion, arXiv 2406.07209): the product over subjects of the mean cosine with their photographs.

    Args:
        pictures: (D,) for each subject: of the picture, or of the part of it in the subject's box.
        subjects: (N_k, D) of their photographs.
    """
    pairs = zip(pictures, subjects, strict=True)
    return float(np.prod([mean_cosine(picture, photographs) for picture, photographs in pairs])), 1


def mean_over_parts(pictures: Sequence[Floats], subjects: Sequence[Floats]) -> Score:
    """As `product_over_subjects`, the mean instead."""
    pairs = zip(pictures, subjects, strict=True)
    return float(np.mean([mean_cosine(picture, photographs) for picture, photographs in pairs])), 1


def clip_score(cosine: float) -> float:
    """CLIPScore of a cosine of picture and text: 2.5 times what is positive of it."""
    return CLIP_SCORE_WEIGHT * max(cosine, 0.0)


def face_similarity(faces: Floats, known: Floats) -> Score | None:
    """Mean over the known faces of the largest cosine with a face of the picture; a picture without faces has 0.

    Args:
        faces: (N, D) of the picture, N from 0.
        known: (M, D) of the photographs.

    Returns:
        None where no photograph shows a face: then there is nothing to compare.
    """
    if not len(known):
        return None
    if not len(faces):
        return 0.0, len(known)
    return float(np.mean((known.astype(np.float64) @ faces.astype(np.float64).T).max(axis=1))), len(known)


def average(scores: Iterable[tuple[str, Score]], how: Average) -> float | None:
    """One number of many.

    Args:
        scores: part and score of each picture.
        how: see `cases.Average`.

    Returns:
        None for no scores.
    """
    given = list(scores)
    if not given:
        return None
    if how == "pairs":
        return sum(value * pairs for _, (value, pairs) in given) / sum(pairs for _, (_, pairs) in given)
    if how == "samples":
        return float(np.mean([value for _, (value, _) in given]))
    parts: dict[str, list[float]] = {}
    for part, (value, _) in given:
        parts.setdefault(part, []).append(value)
    return float(np.mean([np.mean(values) for values in parts.values()]))


Needs = Literal["prompt", "photographs", "places", "source", "target"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: on the command line and in the outcome.
        title: in tables.
        encoder: whose vectors it compares.
        needs: what a benchmark must have for it.
        view: which pixels are compared with which, for the protocol's id; for `found` the finder's name stands there.
        formula: of the cosines, for the protocol's id.
        means: in words.
    """

    name: str
    title: str
    encoder: Encoder
    needs: Needs
    view: str
    formula: str
    means: str


_PHOTOS = "mean cosine with each subject's photographs, then over subjects"
_BEST = "max-of-3,none=0"
_FOUND = "best of up to 3 found instances of each subject, 0 if none is found"
_COPY = "1 a pasted reference, -1 the truth, below 0 nearer the truth"
_NEAR = "cosine with the nearest reference"
METRICS = (
    Metric("clip_t", "CLIP-T", "clip", "prompt", "whole", "cos", "cosine of picture and prompt"),
    Metric("clip_score", "CLIPScore", "clip", "prompt", "whole", "2.5max(cos,0)", "the same by CLIPScore"),
    Metric("clip_i", "CLIP-I", "clip", "photographs", "whole", "cos", _PHOTOS),
    Metric("dino", "DINO", "dino", "photographs", "whole", "cos", _PHOTOS),
    Metric("m_dino", "M-DINO", "dino", "photographs", "whole", "product", "product over subjects of their DINO"),
    Metric("dino_box", "DINO, boxes", "dino", "places", "box", "cos", "as DINO, of the part in each subject's box"),
    Metric("m_dino_box", "M-DINO, boxes", "dino", "places", "box", "product", "product over subjects of the same"),
    Metric("face_sim", "Face", "face", "photographs", "faces", "max-cos,none=0", "identity of the nearest face"),
    Metric("clip_i_inst", "CLIP-I, instances", "clip", "photographs", "found", _BEST, _FOUND),
    Metric("dino_inst", "DINO, instances", "dino", "photographs", "found", _BEST, _FOUND),
    Metric("face_inst", "Face, instances", "face", "photographs", "faces", _BEST, "the same of each subject's face"),
    Metric("copy_face", "Copying, faces", "face", "target", "own-faces", COPY, _COPY),
    Metric("face_truth", "Sim(truth), faces", "face", "target", "own-faces", "cos", "identity of the picture left out"),
    Metric("face_reference", "Sim(reference), faces", "face", "target", "own-faces", "cos,nearest-ref", _NEAR),
    Metric("copy_image", "Copying, images", "image", "target", "found", COPY, _COPY),
    Metric("image_truth", "Sim(truth), images", "image", "target", "found", "cos", "cosine with the subject left out"),
    Metric("image_reference", "Sim(reference), images", "image", "target", "found", "cos,nearest-ref", _NEAR),
    Metric("clip_i_target", "CLIP-I, target", "clip", "target", "whole", "cos", "cosine with the picture left out"),
    Metric("dino_target", "DINO, target", "dino", "target", "whole", "cos", "cosine with the picture left out"),
    Metric(
        "clip_i_source", "CLIP-I, source", "clip", "source", "whole", "cos", "cosine with the edited picture's source"
    ),
    Metric("dino_source", "DINO, source", "dino", "source", "whole", "cos", "cosine with the edited picture's source"),
    Metric("clip_i_fg", "CLIP-I, foreground", "clip", "source", "mask-box", "cos", "of the part that may change"),
    Metric("dino_fg", "DINO, foreground", "dino", "source", "mask-box", "cos", "of the part that may change"),
    Metric("clip_i_bg", "CLIP-I, background", "clip", "source", "mask-grey", "cos", "of the rest, and of the source's"),
    Metric("dino_bg", "DINO, background", "dino", "source", "mask-grey", "cos", "of the rest, and of the source's"),
)
BY_NAME = {metric.name: metric for metric in METRICS}
PARTS: dict[str, Part] = {
    "copy_face": "copy",
    "face_truth": "truth",
    "face_reference": "reference",
    "copy_image": "copy",
    "image_truth": "truth",
    "image_reference": "reference",
}
"""The metrics that lie between truth and reference, and the number of `Compared` that each is."""


def choose(names: str | None) -> tuple[Metric, ...]:
    """Metrics by their names with commas; all without.

    Raises:
        Refused: one is unknown.
    """
    if names is None:
        return METRICS
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in BY_NAME:
            near = difflib.get_close_matches(name, BY_NAME, n=1)
            raise Refused(f"unknown metric {name!r}; " + (f"did you mean {near[0]}?" if near else ", ".join(BY_NAME)))
    if not wanted:
        raise Refused(f"--metrics names none; known: {', '.join(BY_NAME)}")
    return tuple(metric for metric in METRICS if metric.name in wanted)


def applies(metric: Metric, case: Case) -> bool:
    """Whether a case has what a metric needs."""
    if metric.needs == "places":
        return case.source is None and all(subject.box is not None for subject in case.subjects)
    if metric.needs in ("source", "target"):
        return getattr(case, metric.needs) is not None
    return True


def lacks(metric: Metric, benchmark: Benchmark) -> str | None:
    """Why no case of a benchmark can have a metric, or None."""
    if any(applies(metric, case) for case in benchmark.cases):
        return None
    what = {"places": "places in the result", "source": "pictures to edit", "target": "pictures left out"}
    return f"{benchmark.name} has no {what[metric.needs]}"
