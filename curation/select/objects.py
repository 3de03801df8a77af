"""Verdicts on objects from stored scores. Column arithmetic only: a million objects take seconds."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from refloom.curation.select.settings import Select

from refloom.curation.bound import Bools, Floats, Rule
from refloom.curation.objects import float_array, read_objects
from refloom.schemas.dataset import Dataset
from refloom.schemas.reasons import FAILED
from refloom.schemas.unit import UnitWriter

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


def verdicts(scores: pa.Table, objects: pa.Table, config: Select) -> pa.Array:
    """The reason why each object is rejected, null for those that are kept.

    Args:
        scores: `object_scores` with `SCORE_COLUMNS`, N rows.
        objects: `objects` with `OBJECT_COLUMNS`, the same N objects in the same order.
        config: settings.

    Returns:
        (N,) strings.
    """
    columns = {
        name: float_array(scores[name]) for name in SCORE_COLUMNS if name not in ("object_id", "image_id", "filtered")
    }
    columns |= derived(columns, objects)
    is_object = _bools(pc.equal(objects["kind"], "object"))
    filtered = scores["filtered"].combine_chunks()

    reasons = Reasons(len(objects))
    for rule in rules(config):
        reasons.give(rule.reason, is_object & rule.breaks(columns[rule.column]))
    for word in filtered.unique().drop_null().to_pylist():
        reasons.give(word, is_object & _bools(pc.equal(filtered, word)))
    reasons.give("low_quality", ~is_object & (columns["quality"] < config.min_whole_quality))
    reasons.give("component_missing", np.isnan(columns["quality"]))
    return reasons.words()


class Reasons:
    """The first reason that each of N objects was given, as a number into a short list of words."""

    def __init__(self, count: int) -> None:
        self._given = np.zeros(count, np.int8)
        self._words: list[str | None] = [None]

    def give(self, reason: str, where: Bools) -> None:
        """Give a reason where there is none yet; `where` is (N,)."""
        if reason not in self._words:
            self._words.append(reason)
        self._given[where & (self._given == 0)] = self._words.index(reason)

    def words(self) -> pa.Array:
        """(N,) strings, null where no reason was given."""
        return pa.array(self._words, pa.string()).take(pa.array(self._given))


def derived(columns: Mapping[str, Floats], objects: pa.Table) -> dict[str, Floats]:
    """The columns that rules judge and no table holds.

    Args:
        columns: of `object_scores`, N rows: `aspect`, `contained`, `area_share` and `box_fill`.
        objects: the same N objects with `category` and `phrase`.
    """
    named = _is_said(objects["category"]) | _is_said(objects["phrase"])
    box_share = columns["area_share"] / np.nan_to_num(columns["box_fill"], nan=1.0)  # without a mask the box is it
    return {
        "elongation": np.maximum(columns["aspect"], 1 / np.maximum(columns["aspect"], 1e-9)),
        "contained_classless": np.where(named, np.nan, columns["contained"]),
        "box_share_classless": np.where(named, np.nan, box_share),
    }


def _is_said(words: pa.ChunkedArray) -> Bools:
    """Where there is a word: neither null nor empty."""
    return _bools(pc.greater(pc.binary_length(words), 0))


def _bools(values: pa.Array | pa.ChunkedArray) -> Bools:
    """Null is false."""
    return np.asarray(pc.fill_null(values, False), bool)


def select_unit(dataset: Dataset, unit: str, config: Select, out: UnitWriter) -> None:
    """The verdict on every object of a unit; objects without scores were lost with their picture."""
    objects = read_objects(dataset, unit, (*OBJECT_COLUMNS, "image_id"))
    scores = dataset.read("object_scores", SCORE_COLUMNS, unit=unit)
    out.expect("object", len(objects))
    scored = pc.is_in(objects["object_id"], scores["object_id"])
    reasons = _spread(verdicts(scores, objects.filter(scored), config), scored)
    reasons = _or_lost(reasons, scored, objects["object_id"], dataset.ledger("quality", unit=unit))
    reasons = _or_copied(reasons, objects, dataset.read("duplicates", ["id", "by"], unit=unit))
    verdict = pc.if_else(reasons.is_null(), "keep", "reject")
    out.add_columns("selection", {"object_id": objects["object_id"], "verdict": verdict, "reason": reasons})
    for entry in reasons.value_counts().to_pylist():
        if entry["values"] is None:
            out.keep("object", entry["counts"])
        elif entry["values"] in FAILED:
            out.items["object"].failed[entry["values"]] += entry["counts"]
        else:  # its row says why; a ledger row would say it twice
            out.items["object"].rejected[entry["values"]] += entry["counts"]


def _spread(reasons: pa.Array, scored: pa.ChunkedArray) -> pa.Array:
    """The reasons of scored objects at their places among all, null elsewhere."""
    places = np.cumsum(_bools(scored)) - 1
    return reasons.take(pa.array(places, mask=~_bools(scored)))


def _or_lost(reasons: pa.Array, scored: pa.ChunkedArray, object_ids: pa.ChunkedArray, lost: pa.Table) -> pa.Array:
    """Reasons, and for objects without scores why those are missing."""
    place = pc.index_in(object_ids, value_set=lost["item_id"].combine_chunks()).combine_chunks()
    why = pc.fill_null(lost["reason"].combine_chunks().take(place), "image_rejected")
    return pc.if_else(scored.combine_chunks(), reasons, why)


def _or_copied(reasons: pa.Array, objects: pa.Table, copies: pa.Table) -> pa.Array:
    """Reasons, and for what would stay whether it, or else its picture, is a copy."""
    if not len(copies):
        return reasons
    ids = copies["id"].combine_chunks()
    own, picture = (pc.index_in(objects[name], value_set=ids).combine_chunks() for name in ("object_id", "image_id"))
    by = copies["by"].combine_chunks().take(pc.coalesce(own, picture))
    copied = pc.if_else(pc.equal(by, "leak"), "leak", pc.if_else(by.is_valid(), "near_copy", None))
    return pc.coalesce(reasons, copied)
