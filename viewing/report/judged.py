"""What people said of objects, beside what scores and verdicts say. Pure functions of a table of judged objects."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from refloom.curation.annotate.fit import Bools, Floats, auc, over_images
from refloom.curation.objects import float_array
from refloom.curation.select.settings import Select
from refloom.schemas.labels import GOOD, SCORES
from refloom.schemas.tables import FLAGS
from refloom.viewing.report.threshold import effects

_DRAWS = 300
_LEAST_OF_EACH = 3
"""Good ones and others, without which a score is not compared with the labels."""


def summary(rows: pa.Table | None, columns: tuple[str, ...], kept: str, absent: int) -> dict[str, Any] | None:
    """What the page says of labels; None without any.

    Args:
        rows: judged objects, with `image_id`, `label`, `flags`, `reason` and scores; None without any.
        columns: the scores.
        kept: the word for kept in `reason`, where null is undecided.
        absent: labels of objects that are not in the dataset.
    """
    if rows is None or not len(rows):
        return {"judged": 0, "absent": absent} if absent else None
    good = float_array(rows["label"]) >= GOOD
    reasons = rows["reason"].to_pylist()
    verdicts = np.array(["undecided" if one is None else "kept" if one == kept else "rejected" for one in reasons])
    images = np.unique(np.array(rows["image_id"].to_pylist(), str), return_inverse=True)[1].astype(np.int64)
    flags = Counter(flag for row in rows["flags"].to_pylist() for flag in row or ())
    scores = Counter(rows["label"].to_pylist())
    return {
        "judged": len(rows),
        "good": int(good.sum()),
        "absent": absent,
        "scores": {str(score): scores[float(score)] for score in SCORES},
        "flags": {flag: flags[flag] for flag in FLAGS if flags[flag]},
        "verdicts": {
            name: {"judged": int((verdicts == name).sum()), "good": int(good[verdicts == name].sum())}
            for name in ("kept", "rejected", "undecided")
            if (verdicts == name).any()
        },
        "auc": [
            {"score": name, "all": one, "kept": _auc(values, good & (verdicts == "kept"), images, verdicts == "kept")}
            for name in columns
            for values in [float_array(rows[name])]
            if (one := _auc(values, good, images, np.ones(len(rows), bool))) is not None
        ],
    }


def alone(rows: pa.Table | None, select: Select) -> dict[str, dict[str, int]]:
    """Setting to how many judged objects its threshold rejects alone, and how many of them are good.

    Args:
        rows: see `summary`.
        select: settings.
    """
    if rows is None or not len(rows):
        return {}
    good = float_array(rows["label"]) >= GOOD
    found = {effect.threshold.setting: effect.breaks & effect.hangs for effect in effects(rows, select)}
    return {
        setting: {"judged": int(outside.sum()), "good": int((outside & good).sum())}
        for setting, outside in found.items()
    }


def _auc(
    values: Floats, good: Bools, images: np.ndarray[Any, np.dtype[np.int64]], among: Bools
) -> dict[str, Any] | None:
    """How well a score tells good ones from the others, with its interval; None where there are too few of either."""
    known = among & ~np.isnan(values)
    mine, is_good, of = values[known], good[known], images[known]
    if min(is_good.sum(), (~is_good).sum()) < _LEAST_OF_EACH:
        return None
    found = over_images(lambda rows: auc(mine[rows], is_good[rows]), of, _DRAWS, np.random.default_rng(0))
    edges = {"low": found.low, "high": found.high}
    return {"judged": int(known.sum()), "auc": found.value} | {
        name: edge if np.isfinite(edge) else None for name, edge in edges.items()
    }
