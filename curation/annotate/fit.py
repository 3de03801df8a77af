"""Weights of the components of object quality, fitted to judgements by eye, and how well they rank what was not fitted.

Pure functions of arrays. Reading labels, choosing what to judge and writing a config file are elsewhere: what wants to
fit calls `fit` with rows of `object_scores` and gives the settings that come back to `select` and `quality`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from refloom.curation.annotate.quality import quality, ramp
from refloom.curation.annotate.settings import Quality

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_STEPS = 60
"""Newton steps at most; a handful is enough."""
_LEAST_SCORE = 0.01
"""Scores count as this at least, so that one component at zero is not infinitely bad while others are weighed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval, by drawing whole images again with replacement."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What `fit` found.

    Attributes:
        settings: the section `quality` with the fitted weights, and on what they were fitted.
        min_quality: the bound for `select.min_quality` that keeps `kept_share` of the good objects.
        kept_share: of the good objects, as asked for.
        auc: cross-validated: how often a good object comes before one that is not.
        auc_before: of the settings that the fit began with, on the same objects.
        poor_share: cross-validated: share of what such a bound keeps that is not good.
        held_out: (N,) quality of each object by weights that were fitted without its image, the mean over rounds; NaN
            for an object that lacks a listed component.
    """

    settings: Quality
    min_quality: float
    kept_share: float
    auc: Estimate
    auc_before: Estimate
    poor_share: Estimate
    held_out: Floats


def fit(
    components: dict[str, Floats],
    good: Bools,
    images: Sequence[str],
    settings: Quality,
    *,
    kept_share: float = 0.85,
    strength: float = 10.0,
    folds: int = 10,
    rounds: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit the weights of the components of objects to judgements, and cross-validate over images.

    The quality is the weighted geometric mean of the components' ramps, so its logarithm is linear in the weights, and
    they are those of a logistic regression: none negative, drawn towards the weights of `settings` where the labels say
    little. Ramps stay as they are. Objects of one image are never on both sides of a fold;
    objects that lack a listed component are left out.

    Args:
        components: component to (N,) values of `object_scores`, NaN where it is null; those that `settings` name.
        good: (N,) whether an object is a good reference; the usual labels are 0 to 3, good from 2 on.
        images: (N,) the image of each object.
        settings: the section `quality`, whose listed and optional components are weighed.
        kept_share: of the good objects that the bound shall keep, 0 to 1.
        strength: how strongly weights are drawn to those of `settings`; 0 follows the labels alone.
        folds: parts that the images are dealt into, 2 or more; at most one an image.
        rounds: times that they are dealt anew.
        draws: of the intervals.
        seed: of deals and draws.

    Raises:
        ValueError: arrays of several lengths, or, of the objects that have every listed component, none or all are
            good or all lie on one image.
    """
    images_of = np.unique(np.asarray(images, str), return_inverse=True)[1].astype(np.int64)
    weights_before = settings.counted("object")
    names = tuple(weights_before)
    known = _known(components, good, images_of, settings)
    rng = np.random.default_rng(seed)
    part, judged, of = {name: components[name][known] for name in names}, good[known], images_of[known]
    logs = np.stack([_logs(ramp(part[name], settings.ramp_of(name))) for name in names], axis=1)
    before = np.array(list(weights_before.values()))

    def scores(weights: Floats, rows: Bools) -> Floats:
        return _quality({name: values[rows] for name, values in part.items()}, _weighted(settings, names, weights))

    held_out = np.zeros(len(judged))
    for _ in range(rounds):
        for test in _deal(of, folds, rng):
            held_out[test] += scores(_weights(logs[~test], judged[~test], before, strength), test) / rounds
    every = np.ones(len(judged), bool)
    first, fitted = scores(before, every), _weights(logs, judged, before, strength)
    spread = np.full(len(good), np.nan)
    spread[known] = held_out
    source = f"{len(judged)} judged objects of {len(np.unique(of))} images, weights alone; before: {settings.fitted_on}"
    return Fit(
        settings=replace(_weighted(settings, names, fitted), fitted_on=source),
        min_quality=bound_keeping(scores(fitted, every)[judged], kept_share),
        kept_share=kept_share,
        auc=over_images(lambda rows: auc(held_out[rows], judged[rows]), of, draws, rng),
        auc_before=over_images(lambda rows: auc(first[rows], judged[rows]), of, draws, rng),
        poor_share=over_images(lambda rows: poor_share(held_out[rows], judged[rows], kept_share), of, draws, rng),
        held_out=spread,
    )


def auc(scores: Floats, good: Bools) -> float:
    """How often a good object has the higher score of a good one and one that is not; NaN without both kinds.

    The area under the ROC curve; ties count half.

    Args:
        scores: (N,).
        good: (N,).
    """
    ups, downs = scores[good], scores[~good]
    if not len(ups) or not len(downs):
        return float("nan")
    ordered = np.sort(downs)
    below = np.searchsorted(ordered, ups, "left") + np.searchsorted(ordered, ups, "right")
    return float(below.mean() / 2 / len(downs))


def bound_keeping(good_scores: Floats, share: float) -> float:
    """The highest bound at or above which `share` of these scores lie; NaN without any."""
    if not len(good_scores):
        return float("nan")
    ordered = np.sort(good_scores)[::-1]
    return float(ordered[max(1, int(np.ceil(share * len(ordered) - 1e-9))) - 1])


def poor_share(scores: Floats, good: Bools, kept_share: float) -> float:
    """The share of what is no good in what a bound keeps that keeps `kept_share` of the good; NaN without good ones.

    Args:
        scores: (N,).
        good: (N,).
        kept_share: 0 to 1.
    """
    if not good.any():
        return float("nan")
    kept = scores >= bound_keeping(scores[good], kept_share)
    return float((kept & ~good).sum() / kept.sum())


def over_images(
    measure: Callable[[Ints], float], images: Ints, draws: int, rng: np.random.Generator, level: float = 0.95
) -> Estimate:
    """A number of objects, and its interval by drawing their images again: objects of one image are no strangers.

    Args:
        measure: rows to the number; draws for which it is NaN do not count.
        images: (N,) the image of each row, as a number.
        draws: images are drawn anew this often, as many of them as there are.
        rng: draws.
        level: of the interval.
    """
    order = np.argsort(images, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(images[order])) + 1)
    found = []
    for _ in range(draws):
        drawn = rng.integers(0, len(rows), len(rows))
        found.append(measure(np.concatenate([rows[one] for one in drawn])))
    values = np.array(found)[~np.isnan(found)] if found else np.array([])
    edge = (1 - level) / 2
    low, high = np.quantile(values, (edge, 1 - edge)) if len(values) else (float("nan"),) * 2
    return Estimate(measure(np.arange(len(images))), float(low), float(high))


def _known(components: dict[str, Floats], good: Bools, images: Ints, settings: Quality) -> Bools:
    """(N,) rows that have every listed component; ValueError where nothing can be fitted to them."""
    lengths = {len(good), len(images), *(len(components[name]) for name in settings.counted("object"))}
    if len(lengths) != 1:
        raise ValueError(f"components, judgements and images differ in length: {sorted(lengths)}")
    known: Bools = ~np.any([np.isnan(components[name]) for name in settings.object_components], axis=0)
    if not good[known].any() or good[known].all():
        raise ValueError(f"of {int(known.sum())} judged objects none or all are good: there is nothing to tell apart")
    if len(np.unique(images[known])) < 2:
        raise ValueError("all judged objects lie on one image; cross-validation needs two or more")
    return known


def _logs(scores: Floats) -> Floats:
    """Logarithms of scores; where a score is missing their mean, as an absent component leaves a mean where it is."""
    logs = np.log(np.maximum(scores, _LEAST_SCORE))
    missing = np.isnan(logs)
    if missing.any():
        logs[missing] = logs[~missing].mean() if not missing.all() else 0.0
    return logs


def _deal(images: Ints, folds: int, rng: np.random.Generator) -> list[Bools]:
    """(N,) masks of the objects of each fold; every image is in one."""
    count = int(images.max()) + 1
    parts = min(folds, len(np.unique(images)))
    present = np.unique(images)
    fold_of = np.zeros(count, np.int64)
    fold_of[rng.permutation(present)] = np.arange(len(present)) % parts
    return [fold_of[images] == part for part in range(parts)]


def _weighted(settings: Quality, names: Sequence[str], weights: Floats) -> Quality:
    found = {name: round(float(weight), 4) for name, weight in zip(names, weights, strict=True)}
    return replace(settings, weights={**settings.weights, **found})


def _quality(components: dict[str, Floats], settings: Quality) -> Floats:
    count = len(next(iter(components.values())))
    return quality(["object"] * count, components, settings)


def _weights(logs: Floats, good: Bools, before: Floats, strength: float) -> Floats:
    """Weights of a logistic regression on logarithms of scores, none negative, scaled to the sum of those before.

    The penalty is the squared distance to `before` up to a common factor, which is fitted too: only the proportions of
    weights mean something in a mean.

    Args:
        logs: (N, C), at most 0.
        good: (N,).
        before: (C,) of the settings.
        strength: of the penalty.
    """
    rows, count = logs.shape
    prior = before / max(before.sum(), 1e-9) * count
    # columns: components, the common factor of the prior (it only enters the penalty), the intercept
    design = np.concatenate([logs, np.zeros((rows, 1)), np.ones((rows, 1))], axis=1)
    pull = np.concatenate([np.eye(count), -prior[:, None], np.zeros((count, 1))], axis=1)
    penalty = strength * pull.T @ pull + 1e-6 * np.eye(count + 2)
    values = np.concatenate([0.1 * prior, [0.1, 0.0]])
    for _ in range(_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(design @ values, -30, 30)))
        gradient = design.T @ (odds - good) + penalty @ values
        curvature = design.T @ (design * np.maximum(odds * (1 - odds), 1e-4)[:, None]) + penalty
        moved = _least_squares(curvature, curvature @ values - gradient, values, free=count + 1)
        if np.abs(moved - values).max() < 1e-6:
            break
        values = values + (moved - values) * 0.9
    weights = np.maximum(values[:count], 0.0)
    return weights / weights.sum() * before.sum() if weights.sum() > 0 else before


def _least_squares(curvature: Floats, wanted: Floats, start: Floats, free: int) -> Floats:
    """The minimum of x'Ax/2 - b'x over x that are not negative but for the one at `free`, coordinate by coordinate."""
    found = start.copy()
    for _ in range(200):
        last = found.copy()
        for at in range(len(found)):
            best = found[at] + (wanted[at] - curvature[at] @ found) / curvature[at, at]
            found[at] = best if at == free else max(best, 0.0)
        if np.abs(found - last).max() < 1e-8:
            break
    return found
