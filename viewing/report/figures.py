"""What the report says in numbers, as plain values for json; the page is drawn from the same."""

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refloom.curation.bound import Bools
from refloom.curation.objects import float_array
from refloom.schemas import tables
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.manifest import flatten
from refloom.schemas.status import stage_state
from refloom.viewing.report import judged
from refloom.viewing.report.distribution import LEVELS, Floats, histogram, quantiles
from refloom.viewing.report.rates import runs
from refloom.viewing.report.scores import Family, Tally
from refloom.viewing.report.survey import KEPT, Survey
from refloom.viewing.report.threshold import (
    Threshold,
    effects,
    pair_effects,
    pair_settings,
    ramps,
    select_settings,
    stage_settings,
    thresholds,
    verdict_masks,
    whole_effect,
)

_EXAMPLES = 3
"""Ledger rows that are told of each reason."""
FEW_ROWS = 12
"""Of a family with so many or fewer every value is told."""

Figures = dict[str, Any]


def collect(dataset: Dataset, found: Survey) -> Figures:
    """All figures of a dataset.

    Args:
        dataset: in any state.
        found: what `survey` saw of it.
    """
    funnel = {
        stage: {kind: counts.to_json() for kind, counts in sorted(dataset.counts(stage).items())} for stage in STAGES
    }
    sizes = table_sizes(dataset)
    limits = thresholds(dataset)
    return {
        "name": dataset.url.rstrip("/").rsplit("/", 1)[-1],
        "stages": {stage: stage_state(dataset, stage) for stage in STAGES},
        "totals": _totals(dataset, sizes, found),
        "sources": [
            {"source": source, "pictures": pictures, "videos": found.videos[source]}
            for source, pictures in sorted(found.sources.items(), key=lambda item: (-item[1], str(item[0])))
        ],
        "licenses": [
            {"source": source, "license": name, "pictures": pictures}
            for (source, name), pictures in sorted(found.licenses.items(), key=lambda item: (-item[1], str(item[0])))
        ],
        "blurred_pictures": found.blurred,
        "located_pictures": found.located,
        "pictures_not_looked_at_for_a_location": found.unlooked,
        "duplicates": [
            {"kind": kind, "by": by, "copies": copies} for (kind, by), copies in sorted(found.copies.items())
        ],
        "keys": _keys(dataset),
        "models": _models(dataset),
        "settings": {stage: _settings(dataset, stage) for stage in STAGES if dataset.manifests(stage)},
        "funnel": {stage: kinds for stage, kinds in funnel.items() if kinds},
        "examples": _examples(dataset, funnel),
        "scores": {name: _scores(dataset, tally, limits) for name, tally in found.tallies.items()},
        "thresholds": _effects(
            dataset, *(found.tallies[name].sample() for name in ("objects", "wholes", "groups")), said=found.judged
        ),
        "content": found.content.to_json(),
        "labels": judged.summary(found.judged, found.tallies["objects"].family.columns, KEPT, found.absent_labels),
        "tables": sizes,
        "runs": [run.to_json() for run in runs(dataset)],
    }


def table_sizes(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Rows, units, files and bytes of every table, and of the ledgers together."""
    sizes: dict[str, Counter[str]] = {}
    for stage in STAGES:
        for manifest in dataset.manifests(stage).values():
            for directory, entry in manifest.tables.items():
                size = sizes.setdefault(directory.split("/")[0], Counter())
                size["rows"] += entry.rows
            for name in {directory.split("/")[0] for directory in manifest.tables}:
                sizes[name]["units"] += 1
            for file in manifest.files:
                size = sizes.setdefault(file.path.split("/")[0], Counter())
                size.update(files=1, bytes=file.bytes)
    order = [*(name for name in tables.TABLES if name in sizes), *(["ledger"] if "ledger" in sizes else [])]
    return {name: {key: sizes[name][key] for key in ("rows", "units", "files", "bytes")} for name in order}


def _totals(dataset: Dataset, sizes: dict[str, dict[str, int]], found: Survey) -> dict[str, Any]:
    """The numbers at the top of the page; None is for what no stage has made yet."""

    def rows(table: str) -> int | None:
        return sizes[table]["rows"] if table in sizes else None

    selected = dataset.counts("select").get("object")
    samples: dict[str, int] = {}
    for manifest in dataset.manifests("compose").values():
        for directory, entry in sorted(manifest.tables.items()):
            if directory.startswith("samples/"):
                split = directory.split("/")[1]
                samples[split] = samples.get(split, 0) + entry.rows
    return {
        "pictures": rows("images") or 0,
        "videos": found.videos.total(),
        "objects": rows("objects") or 0,
        "annotated_objects": found.kinds.total() - found.kinds["whole"],
        "whole_pictures": found.kinds["whole"],
        "found_objects": found.found,
        "kept_objects": selected.kept if selected else (0 if dataset.manifests("select") else None),
        "faces": rows("faces") if dataset.manifests("face") else None,
        "groups": rows("groups") if dataset.manifests("group") else None,
        "samples": samples if dataset.manifests("compose") else None,
        "bytes": sum(size["bytes"] for size in sizes.values()),
        "units": len(dataset.units()),
    }


def _keys(dataset: Dataset) -> list[dict[str, Any]]:
    """What became of every ingest: its units, pictures, objects, kept objects and samples, from the manifests."""
    found: dict[str, Counter[str]] = {}
    for unit, manifest in dataset.manifests("ingest").items():
        mine = found.setdefault(manifest.key, Counter())
        mine["units"] += 1
        for table in ("images", "objects"):
            mine[table] += manifest.tables[table].rows if table in manifest.tables else 0
        selected, composed = dataset.manifest("select", unit), dataset.manifest("compose", unit)
        if selected is not None and "object" in selected.items:
            mine["kept"] += selected.items["object"].kept
        if composed is not None:
            mine["samples"] += sum(entry.rows for name, entry in composed.tables.items() if name.startswith("samples/"))
    names = {"units": "units", "pictures": "images", "objects": "objects", "kept_objects": "kept", "samples": "samples"}
    return [{"key": key} | {name: mine[of] for name, of in names.items()} for key, mine in sorted(found.items())]


def _models(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Role to `name@revision` to the units that were made with it."""
    found: dict[str, Counter[str]] = {}
    for stage in STAGES:
        for manifest in dataset.manifests(stage).values():
            for role, model in manifest.models.items():
                found.setdefault(role, Counter())[model] += 1
    return {role: dict(sorted(models.items())) for role, models in found.items()}


def _settings(dataset: Dataset, stage: str) -> list[dict[str, Any]]:
    return [{"units": units, "settings": flatten(config)} for config, units in stage_settings(dataset, stage)]


def _examples(dataset: Dataset, funnel: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """Reason to a few items that were left out for it, from the ledgers; reading stops when each has enough."""
    found: dict[str, list[dict[str, str]]] = {}
    for stage, kinds in funnel.items():
        mine: Counter[str] = Counter()
        waiting = {reason for counts in kinds.values() for reason in (*counts["rejected"], *counts["failed"])}
        for unit, manifest in dataset.manifests(stage).items():
            here = waiting & _reasons_of(manifest.items)
            if not here or not manifest.files_of(f"ledger/{stage}"):
                continue
            ledger = dataset.ledger(stage, unit=unit)
            for reason in sorted(here):
                wanted = ledger.filter(pc.equal(ledger["reason"], reason)).slice(0, _EXAMPLES - mine[reason])
                for row in wanted.to_pylist():
                    example = {"stage": stage, "kind": row["kind"], "id": row["item_id"], "detail": row["detail"] or ""}
                    found.setdefault(reason, []).append(example)
                    mine[reason] += 1
                if mine[reason] >= _EXAMPLES:
                    waiting.discard(reason)
    return found


def _reasons_of(items: dict[str, Any]) -> set[str]:
    return {reason for counts in items.values() for reason in (*counts.rejected, *counts.failed)}


def _scores(dataset: Dataset, tally: Tally, limits: list[Threshold]) -> dict[str, Any]:
    """Nulls, quantiles and histogram of every score of a family."""
    sample = tally.sample()
    curves, listed = ramps(dataset)
    family = tally.family
    columns: dict[str, Any] = {}
    if sample is None:
        return {"rows": 0, "sampled": 0, "filtered": 0, "levels": list(LEVELS), "columns": {}}
    masks = verdict_masks(sample) if "reason" in sample.schema.names else None
    for column in family.columns:
        values = float_array(sample[column])
        mine = [limit for limit in limits if (limit.family, limit.column) == (family.name, column)]
        in_quality = column in listed.get(family.name, ())
        columns[column] = {
            **family.doc(column),
            "nulls": tally.nulls[column],
            "quantiles": quantiles(values),
            "values": np.sort(values[~np.isnan(values)]).tolist() if len(sample) <= FEW_ROWS else None,
            "histogram": _histogram(family, column, values, masks, mine),
            "thresholds": [
                {"setting": limit.setting, "bound": limit.bound, "keeps_above": limit.keeps_above, "note": limit.note}
                for limit in mine
            ],
            "ramp": curves.get(column) if in_quality else None,
            "in_quality": in_quality,
        }
    return {
        "rows": tally.rows,
        "sampled": len(sample),
        "filtered": tally.filtered,
        "levels": list(LEVELS),
        "columns": columns,
    }


def _histogram(
    family: Family, column: str, values: Floats, masks: dict[str, Bools] | None, limits: list[Threshold]
) -> dict[str, Any] | None:
    """The histogram of a score as plain values, by verdict where there is one; None where every value is missing."""
    series = {"measured": values} if masks is None else {name: values[mask] for name, mask in masks.items()}
    span = _span(family.doc(column).get("range", ""))
    marks = [limit.bound for limit in limits]
    drawn = histogram(series, marks=marks, is_log=column in family.log, span=span)
    return None if drawn is None else asdict(drawn)


def _span(written: str) -> tuple[float, float]:
    """`0..1` of a schema as numbers; an open end is infinite."""
    low, dots, high = written.partition("..")
    if not dots:
        return -math.inf, math.inf
    return float(low or "-inf"), float(high or "inf")


def _effects(
    dataset: Dataset,
    objects: pa.Table | None,
    wholes: pa.Table | None,
    groups: pa.Table | None,
    *,
    said: pa.Table | None,
) -> list[dict[str, Any]]:
    """What each threshold of `select` and each bound of `pairs` does, over the sampled rows of the families.

    Where people judged objects, also what they said of those that a threshold rejects alone.
    """
    select, bounds = select_settings(dataset), pair_settings(dataset)
    found = effects(objects, select) if select is not None and objects is not None else []
    found += [whole_effect(wholes, select)] if select is not None and wholes is not None else []
    found += pair_effects(groups, bounds) if bounds is not None and groups is not None else []
    alone = {} if select is None else judged.alone(said, select)
    return [
        {
            "setting": effect.threshold.setting,
            "family": effect.threshold.family,
            "bound": effect.threshold.bound,
            "keeps_above": effect.threshold.keeps_above,
            "reason": effect.threshold.reason,
            "note": effect.threshold.note,
            "items": len(effect.values),
            "breaks": int(effect.breaks.sum()),
            "alone": effect.alone,
            "alone_judged": alone.get(effect.threshold.setting),
        }
        for effect in found
    ]
