"""Verdicts on objects from stored scores. Column arithmetic only: a million objects take seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.config import Select
from curation.objects import float_array, read_objects
from schemas.dataset import Dataset
from schemas.ids import image_of
from schemas.reasons import FAILED
from schemas.unit import UnitWriter

VERSION = 1

SCORE_COLUMNS = (
    "object_id",
    "image_id",
    "filtered",
    "area_share",
    "short_side_px",
    "aspect",
    "box_fill",
    "border_share",
    "largest_part",
    "contained",
    "mask_confidence",
    "quality",
)
OBJECT_COLUMNS = ("object_id", "kind", "category", "phrase")

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """One bound: which column, which side, and the word for what lies outside.

    Attributes:
        column: of `object_scores`.
        bound: the threshold.
        keeps_above: whether values at or above the bound are kept, or those at or below.
        reason: for the ledger.
    """

    column: str
    bound: float
    keeps_above: bool
    reason: str

    def breaks(self, values: npt.NDArray[np.float64]) -> Bools:
        """True for values outside; a missing value breaks nothing here."""
        bound = float(np.float32(self.bound))  # as a table would hold it, so that an equal score is not outside
        outside: Bools = values < bound if self.keeps_above else values > bound
        return outside


def rules(config: Select) -> tuple[Rule, ...]:
    """The bounds on objects, in the order in which a reason is given."""
    return (
        Rule("area_share", config.min_area_share, True, "too_small"),
        Rule("short_side_px", config.min_short_side_px, True, "too_small"),
        Rule("area_share", config.max_area_share, False, "too_large"),
        Rule("box_share_classless", config.max_unnamed_box_share, False, "too_large"),
        Rule("elongation", config.max_aspect, False, "odd_shape"),
        Rule("box_fill", config.min_box_fill, True, "odd_shape"),
        Rule("border_share", config.max_border_share, False, "cut_off"),
        Rule("largest_part", config.min_largest_part, True, "fragmented"),
        Rule("contained_classless", config.max_contained, False, "part_of_larger"),
        Rule("mask_confidence", config.min_mask_confidence, True, "low_confidence"),
        Rule("quality", config.min_quality, True, "low_quality"),
    )


def verdicts(scores: pa.Table, objects: pa.Table, config: Select) -> list[str | None]:
    """The reason why each object is rejected, or None for those that are kept.

    Args:
        scores: `object_scores` with `SCORE_COLUMNS`, N rows.
        objects: `objects` with `OBJECT_COLUMNS`, the same N objects in the same order.
        config: settings.
    """
    columns = {
        name: float_array(scores[name]) for name in SCORE_COLUMNS if name not in ("object_id", "image_id", "filtered")
    }
    columns |= derived(columns, objects)
    kinds = objects["kind"].to_pylist()
    is_object = np.array([kind == "object" for kind in kinds], bool)
    filtered = np.array(scores["filtered"].to_pylist(), dtype=object)

    reasons = np.full(len(kinds), None, dtype=object)
    for rule in rules(config):
        _fill(reasons, is_object & rule.breaks(columns[rule.column]), rule.reason)
    spared = is_object & np.array([reason is not None for reason in filtered], bool)
    _fill(reasons, spared, filtered)
    _fill(reasons, ~is_object & (columns["quality"] < config.min_whole_quality), "low_quality")
    _fill(reasons, np.isnan(columns["quality"]), "component_missing")
    return [None if reason is None else str(reason) for reason in reasons]


def derived(columns: Mapping[str, Floats], objects: pa.Table) -> dict[str, Floats]:
    """The columns that rules judge and no table holds.

    Args:
        columns: of `object_scores`, N rows: `aspect`, `contained`, `area_share` and `box_fill`.
        objects: the same N objects with `category` and `phrase`.
    """
    words = zip(objects["category"].to_pylist(), objects["phrase"].to_pylist(), strict=True)
    named = np.array([bool(category or phrase) for category, phrase in words], bool)
    box_share = columns["area_share"] / np.nan_to_num(columns["box_fill"], nan=1.0)  # without a mask the box is it
    return {
        "elongation": np.maximum(columns["aspect"], 1 / np.maximum(columns["aspect"], 1e-9)),
        "contained_classless": np.where(named, np.nan, columns["contained"]),
        "box_share_classless": np.where(named, np.nan, box_share),
    }


def _fill(reasons: npt.NDArray[np.object_], where: Bools, reason: object) -> None:
    """Give a reason where there is none yet."""
    empty = where & np.array([given is None for given in reasons], bool)
    reasons[empty] = reason[empty] if isinstance(reason, np.ndarray) else reason


def select_unit(dataset: Dataset, unit: str, config: Select, out: UnitWriter) -> None:
    """The verdict on every object of a unit; objects without scores were lost with their picture."""
    objects = read_objects(dataset, unit, OBJECT_COLUMNS)
    scores = dataset.read("object_scores", SCORE_COLUMNS, unit=unit)
    out.expect("object", len(objects))
    lost = dataset.ledger("quality", unit=unit).select(["item_id", "reason"])
    why_lost = dict(zip(lost["item_id"].to_pylist(), lost["reason"].to_pylist(), strict=True))
    copies = {row["id"]: row["by"] for row in dataset.read("duplicates", ["id", "by"], unit=unit).to_pylist()}
    scored = pc.is_in(objects["object_id"], scores["object_id"])
    reasons = iter(verdicts(scores, objects.filter(scored), config))
    for object_id, has_scores in zip(objects["object_id"].to_pylist(), scored.to_pylist(), strict=True):
        reason = next(reasons) if has_scores else why_lost.get(object_id, "image_rejected")
        copied = copies.get(object_id) or copies.get(image_of(object_id))
        if reason is None and copied is not None:
            reason = "leak" if copied == "leak" else "near_copy"
        out.add("selection", {"object_id": object_id, "verdict": "reject" if reason else "keep", "reason": reason})
        if reason in FAILED:
            out.items["object"].failed[reason] += 1
        elif reason:
            out.items["object"].rejected[reason] += 1  # its row says why; a ledger row would say it twice
        else:
            out.keep("object")
