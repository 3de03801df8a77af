"""Quality of objects against judgements by eye: how good a reference is this cut-out, alone, on white?"""

import csv
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.data import folder
from benchmarks.judged.section import Line, Section, photographs
from refloom.curation.annotate.fit import Estimate, auc, fit, over_images, poor_share
from refloom.curation.annotate.quality import quality
from refloom.curation.annotate.settings import Quality
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.objects import float_array
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.coco import Coco
from refloom.schemas.components import COMPONENTS
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.settings import load

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_GOOD = 2.0
"""Mean of the two judgements from which an object is a good reference."""
_KEPT_SHARE = 0.85
_SPLITS = ("train2017", "val2017")
_NOVEMBER = Quality(
    object_components=(
        *("area_share", "short_side_px", "box_fill", "border_share"),
        *("largest_part", "sharpness", "contrast", "exposure"),
    ),
    optional_components=(),
    weights={},
    ramps={
        "area_share": ((0.0, 0.0), (0.01, 0.3), (0.05, 1.0), (0.5, 1.0), (0.8, 0.5), (1.0, 0.1)),
        "short_side_px": ((16.0, 0.0), (32.0, 0.2), (128.0, 0.8), (224.0, 1.0)),
        "box_fill": ((0.1, 0.0), (0.3, 0.5), (0.5, 1.0)),
        "border_share": ((0.0, 1.0), (0.1, 0.8), (0.3, 0.3), (0.6, 0.05)),
        "largest_part": ((0.5, 0.1), (0.9, 0.8), (0.98, 1.0)),
        "sharpness": ((0.5, 0.05), (1.5, 0.5), (2.5, 1.0)),
        "contrast": ((0.01, 0.1), (0.08, 0.7), (0.15, 1.0)),
        "exposure": ((0.3, 0.1), (0.8, 0.8), (0.95, 1.0)),
    },
)
"""The quality of November 2026, whose components are still measured."""


@dataclass(frozen=True, slots=True)
class Judged:
    """N objects that were judged.

    Attributes:
        components: component to (N,) values.
        good: (N,) whether an object is a good reference.
        kept_before: (N,) whether the settings of November kept it; the others are a sample of what they rejected.
        kept: (N,) whether those of today do.
        images: (N,) the image of each, as a number; names: (N,) its id.
    """

    components: dict[str, Floats]
    good: Bools
    kept_before: Bools
    kept: Bools
    images: Ints
    names: list[str]


def run(quick: bool) -> Section:
    """Ranking and selection by quality, with and without a classifier, and by weights fitted without the image."""
    judged = read(_curated())
    draws = 100 if quick else 2000
    now, before = _scored(judged, Quality()), _scored(judged, _NOVEMBER)
    plain = _scored(judged, Quality(optional_components=("covered_share",)))
    refit = fit(judged.components, judged.good, judged.names, Quality(), rounds=2 if quick else 20, draws=draws)
    held_out = np.nan_to_num(refit.held_out)
    every, kept = np.arange(len(now)), np.flatnonzero(judged.kept_before)

    def ranking(scores: Floats, rows: Ints) -> Estimate:
        return _over(judged, rows, draws, lambda at: auc(scores[at], judged.good[at]))

    def poor(scores: Floats, rows: Ints) -> Estimate:
        return _over(judged, rows, draws, lambda at: poor_share(scores[at], judged.good[at], _KEPT_SHARE))

    def no_good(chosen: Bools) -> Estimate:
        return _over(judged, every, draws, lambda at: float((~judged.good[at][chosen[at]]).mean()))

    def of_good(chosen: Bools) -> Estimate:
        return _over(judged, every, draws, lambda at: float(chosen[at][judged.good[at]].mean()))

    lines = [
        Line("AUC over all", ranking(before, every), ranking(now, every)),
        Line("AUC among those kept in 2026-11", ranking(before, kept), ranking(now, kept)),
        Line("AUC over all, weights fitted without the image", None, ranking(held_out, every)),
        Line("AUC among those kept, weights fitted without the image", None, ranking(held_out, kept)),
        Line("AUC over all, no classifier", None, ranking(plain, every)),
        Line("AUC among those kept, no classifier", None, ranking(plain, kept)),
        Line("no good, of a bound that keeps 85 % of the good", poor(before, every), poor(now, every)),
        Line("no good, such a bound, weights fitted without the image", None, poor(held_out, every)),
        Line("no good, of what the defaults keep", no_good(judged.kept_before), no_good(judged.kept)),
        Line("kept by the defaults, of the good that were judged", of_good(judged.kept_before), of_good(judged.kept)),
    ]
    checks = [
        (f"AUC over all {lines[2].now.value:.2f}, asked 0.85", lines[2].now.value >= 0.85),
        (f"AUC among those kept in 2026-11 {lines[3].now.value:.2f}, asked 0.80", lines[3].now.value >= 0.80),
        (f"at 85 % of the good kept {lines[7].now.value:.0%} no good, asked 20 %", lines[7].now.value <= 0.20),
    ]
    notes = (
        f"References: {len(now)} objects of {len(np.unique(judged.images))} COCO photographs, judged twice; 95 % by "
        "drawing photographs again. Components and ramps were chosen on these objects, so only other photographs can "
        "say what they are worth; the weights of the lines that say so were fitted without the object's photograph, in "
        "ten parts. In the last two lines rejected objects are a sample, so only differences mean something."
    )
    return Section(lines, checks, notes)


def read(dataset: Dataset) -> Judged:
    """The judged objects with what curation says of them.

    Raises:
        ValueError: a judged object is not in the dataset.
    """
    with (photographs() / "labels" / "references.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    ids = [row["object_id"] for row in rows]
    scores, chosen = dataset.read("object_scores"), dataset.read("selection")
    at = {object_id: place for place, object_id in enumerate(scores["object_id"].to_pylist())}
    verdicts = dict(zip(chosen["object_id"].to_pylist(), chosen["verdict"].to_pylist(), strict=True))
    if missing := [object_id for object_id in ids if object_id not in at]:
        raise ValueError(f"{missing[0]} was judged but is not in {dataset.url}")
    places = [at[object_id] for object_id in ids]
    names = [image_of(object_id) for object_id in ids]
    return Judged(
        components={name: float_array(scores[name])[places] for name in COMPONENTS},
        good=np.array([float(row["score_a"]) + float(row["score_b"]) >= 2 * _GOOD for row in rows]),
        kept_before=np.array([row["kept_2026_11"] == "1" for row in rows]),
        kept=np.array([verdicts[object_id] == "keep" for object_id in ids]),
        images=np.unique(names, return_inverse=True)[1].astype(np.int64),
        names=names,
    )


def _scored(judged: Judged, settings: Quality) -> Floats:
    """Quality by some settings; 0 where a listed component is null, as of objects that the filter spares."""
    return np.nan_to_num(quality(["object"] * len(judged.good), judged.components, settings))


def _over(judged: Judged, rows: Ints, draws: int, measure: Callable[[Ints], float]) -> Estimate:
    """A number of some of the objects, with its interval; the measure is given places among all."""
    rng = np.random.default_rng(0)
    return over_images(lambda part: measure(rows[part]), judged.images[rows], draws, rng)


def _curated() -> Dataset:
    url, here = str(folder() / "judged-references"), Pool(workers=0)
    coco = photographs() / "coco"
    for split in _SPLITS:
        source = Coco(images=str(coco / split), instances=str(coco / f"annotations/instances_{split}.json"))
        job.ingest(source, url, job.Options(), here)
    curate(url, load(Curation, None, ["models.face=none"]), here, until="select", replace=True)
    return Dataset(url)
