"""Thresholds as the units were selected with, and what each of them does on its own."""

import json
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from refloom.curation.annotate.settings import Quality, quality_section
from refloom.curation.bound import Bools, Floats, Rule
from refloom.curation.group import bounds as pairs
from refloom.curation.group.bounds import Pairs
from refloom.curation.objects import float_array
from refloom.curation.select.objects import derived, rules
from refloom.curation.select.settings import Select
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.settings import build
from refloom.viewing.report.survey import KEPT

_DERIVED = {
    "elongation": ("aspect", "aspect", "longer over shorter side"),
    "contained_classless": ("contained", "contained", "objects without a class or phrase"),
    "box_share_classless": (
        "area_share",
        "unnamed_box_share",
        "box over picture, of objects without a class or phrase",
    ),
}
"""Columns that `select` derives, to the score that they are drawn on, the setting's name, and a note."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """One bound on one score.

    Attributes:
        setting: its key, e.g. `select.min_quality`.
        family, column: the score that it is drawn on.
        bound: the value.
        keeps_above: whether what lies at or above it is kept, or what lies at or below.
        reason: the word for what it rejects; empty where it only filters.
        note: whom it is for, where that is not everyone.
    """

    setting: str
    family: str
    column: str
    bound: float
    keeps_above: bool
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """What one rule of `select` does to N objects, or one bound of `pairs` to N groups.

    Attributes:
        threshold: the rule.
        values: (N,) of what it looks at.
        breaks: (N,) those outside.
        hangs: (N,) those whose fate hangs on this rule alone: they satisfy all others, and objects have a quality.
    """

    threshold: Threshold
    values: Floats
    breaks: Bools
    hangs: Bools

    @property
    def alone(self) -> int:
        """How many this rule alone rejects."""
        return int((self.breaks & self.hangs).sum())


def stage_settings(dataset: Dataset, stage: str) -> list[tuple[dict[str, Any], int]]:
    """The settings that the units of a stage were made with, and how many units; the most common first."""
    found: Counter[str] = Counter()
    for manifest in dataset.manifests(stage).values():
        found[json.dumps(manifest.config, sort_keys=True)] += 1
    return [(json.loads(text), units) for text, units in sorted(found.items(), key=lambda item: (-item[1], item[0]))]


def select_settings(dataset: Dataset) -> Select | None:
    """The settings most units were selected with; None before selection. Keys of other versions are left out."""
    config = _most_common(dataset, "select")
    if config is None:
        return None
    known = {field.name for field in fields(Select)}
    return Select(**{key: value for key, value in config.items() if key in known})


def pair_settings(dataset: Dataset) -> Pairs | None:
    """The bounds on groups as in most units; None before `balance`. Keys of other versions are left out."""
    config = _most_common(dataset, "balance", "pairs")
    if config is None:
        return None
    known = {field.name for field in fields(Pairs)}
    return Pairs(**{key: value for key, value in config.items() if key in known})


def _most_common(dataset: Dataset, stage: str, section: str | None = None) -> dict[str, Any] | None:
    """A section (by default its own) of what most units of a stage were made with; None where it was not done."""
    found = stage_settings(dataset, stage)
    return found[0][0].get(section or stage, {}) if found else None


def thresholds(dataset: Dataset) -> list[Threshold]:
    """Every bound that is in force, for the histograms."""
    found: list[Threshold] = []
    select = select_settings(dataset)
    if select is not None:
        for rule in rules(select):
            found.append(_of_rule(rule))
            if rule.column == "elongation" and rule.bound > 0:  # drawn on width over height, which it bounds both ways
                found.append(replace(_of_rule(rule), bound=1 / rule.bound, keeps_above=True))
        found.append(_of_wholes(select))
    for stage, name, family, column, note in (
        ("face", "min_side_px", "faces", "side_px", ""),
        ("face", "min_det_score", "faces", "det_score", ""),
        ("compose", "min_face_px", "faces", "side_px", "faces that are subjects of their own"),
        ("compose", "min_phrase_probability", "phrases", "probability", "phrases of the vocabulary"),
        ("compose", "min_phrase_margin", "phrases", "margin", "phrases of the vocabulary"),
    ):
        bound = (_most_common(dataset, stage) or {}).get(name)
        if bound is not None:
            found.append(Threshold(f"{stage}.{name}", family, column, bound, True, note=note))
    return found + [_of_pairs(rule) for rule in pairs.rules(pair_settings(dataset) or Pairs())]


def _of_wholes(select: Select) -> Threshold:
    return Threshold("select.min_whole_quality", "wholes", "quality", select.min_whole_quality, True, "low_quality")


def _of_rule(rule: Rule) -> Threshold:
    column, name, note = _DERIVED.get(rule.column, (rule.column, rule.column, ""))
    setting = f"select.{'min' if rule.keeps_above else 'max'}_{name}"
    return Threshold(setting, "objects", column, rule.bound, rule.keeps_above, rule.reason, note)


def _of_pairs(rule: Rule) -> Threshold:
    setting = f"pairs.{'min' if rule.keeps_above else 'max'}_{rule.column}"
    return Threshold(setting, "groups", rule.column, rule.bound, rule.keeps_above, rule.reason, "groups")


def effects(rows: pa.Table, select: Select) -> list[Effect]:
    """What each rule does to objects, in the order in which reasons are given.

    Args:
        rows: of the family `objects`.
        select: settings.
    """
    everything = rules(select)
    whole = np.array(rows["filtered"].is_null(), bool) & ~np.isnan(float_array(rows["quality"]))
    named = [(_of_rule(rule), rule, _values(rows, rule.column)) for rule in everything]
    return _effects(named, whole)


def pair_effects(rows: pa.Table, config: Pairs) -> list[Effect]:
    """What each bound that is set does to groups, in the order in which reasons are given.

    Args:
        rows: of the family `groups`.
        config: bounds.
    """
    named = [(_of_pairs(rule), rule, float_array(rows[rule.column])) for rule in pairs.rules(config)]
    return _effects(named, np.ones(len(rows), bool))


def _effects(named: list[tuple[Threshold, Rule, Floats]], may_hang: Bools) -> list[Effect]:
    breaks = [rule.breaks(values) for _, rule, values in named]
    broken = np.sum(breaks, axis=0)
    return [
        Effect(threshold, values, outside, may_hang & (broken == outside))
        for (threshold, _, values), outside in zip(named, breaks, strict=True)
    ]


def whole_effect(rows: pa.Table, select: Select) -> Effect:
    """What the one bound on whole pictures does to them.

    Args:
        rows: of the family `wholes`.
        select: settings.
    """
    quality = float_array(rows["quality"])
    return Effect(_of_wholes(select), quality, quality < select.min_whole_quality, ~np.isnan(quality))


def _values(rows: pa.Table, column: str) -> Floats:
    if column in _DERIVED:
        columns = {name: float_array(rows[name]) for name in ("aspect", "contained", "area_share", "box_fill")}
        return derived(columns, rows)[column]
    return float_array(rows[column])


def verdict_masks(rows: pa.Table) -> dict[str, Bools]:
    """`kept`, `rejected` and `undecided` to (N,) booleans, for rows with a `reason`."""
    reasons = np.array(rows["reason"].to_pylist(), dtype=object)
    undecided = np.array([reason is None for reason in reasons], bool)
    kept = np.array([reason == KEPT for reason in reasons], bool)
    return {"kept": kept, "rejected": ~kept & ~undecided, "undecided": undecided}


def quality_settings(dataset: Dataset) -> Quality | None:
    """The section `quality` as most units were scored; None before that, or where it is of a refloom to come."""
    config = _most_common(dataset, "quality", "quality")
    if config is None:
        return None
    known = {field.name for field in fields(Quality)}
    try:
        return build(Quality, {key: value for key, value in quality_section(config).items() if key in known})
    except Refused:
        return None


def ramps(dataset: Dataset) -> tuple[dict[str, list[list[float]]], dict[str, tuple[str, ...]]]:
    """Component to its ramp, and family to the components of its quality, as most units were scored."""
    quality = _most_common(dataset, "quality") or {}
    listed = {"objects": ("object_components", "optional_components"), "wholes": ("whole_components",)}
    counted = {family: tuple(name for key in keys for name in quality.get(key, ())) for family, keys in listed.items()}
    return quality.get("ramps", {}), counted
