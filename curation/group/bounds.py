"""Bounds on how much the members of a group differ. They judge stored scores: moving one runs no model."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from refloom.curation.bound import Rule

ALIKE, DIFFERENT = "too_alike", "too_different"

_REASONS = {
    "max_mean_similarity": ALIKE,
    "min_frame_gap": ALIKE,
    "min_pose_change": ALIKE,
    "min_head_turn": ALIKE,
    "min_mean_similarity": DIFFERENT,
    "min_area_ratio": DIFFERENT,
    "min_sharpness_ratio": DIFFERENT,
}
"""Setting, named after a column of `groups`, to the word for what breaks it; the first that is broken is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """How much the members of a group must and may differ; null sets no bound, and a missing score breaks none.

    A group outside is no sample; of a video a sample goes if all tracks in it that are seen more than once are outside.
    Similarity has two sides because pairs of copies teach to paste: Phantom-Data bounds it below and above, SynCD takes
    nothing above 0.98 (DINOv2-L), OpenS2V nothing below 0.6 (GME-Qwen2-VL); a cosine means something else in each
    embedding model, so there is no default.

    Attributes:
        min_mean_similarity, max_mean_similarity: mean cosine of two members.
        min_frame_gap: last minus first frame number of a track; AnyDoor takes frames a tenth of the video apart.
        min_area_ratio: smallest over largest member area.
        min_pose_change: 0 to 1; a subject that never moves teaches to paste.
        min_head_turn: degrees.
        min_sharpness_ratio: least over greatest sharpness.
    """

    min_mean_similarity: float | None = None
    max_mean_similarity: float | None = None
    min_frame_gap: int | None = None
    min_area_ratio: float | None = None
    min_pose_change: float | None = None
    min_head_turn: float | None = None
    min_sharpness_ratio: float | None = None

    def __post_init__(self) -> None:
        low, high = self.min_mean_similarity, self.max_mean_similarity
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_mean_similarity {low} is above max_mean_similarity {high}: no group would stay")

    @property
    def is_set(self) -> bool:
        """Whether there is any bound."""
        return any(getattr(self, field.name) is not None for field in fields(self))


def rules(config: Pairs) -> tuple[Rule, ...]:
    """The bounds that are set, in the order in which a reason is given."""
    return tuple(
        Rule(setting[4:], getattr(config, setting), setting.startswith("min_"), reason)
        for setting, reason in _REASONS.items()
        if getattr(config, setting) is not None
    )


def verdict(row: Mapping[str, Any], config: Pairs) -> tuple[str, str] | None:
    """The reason why a row of `groups` is outside, and the score that says so; None if it is inside."""
    for rule in rules(config):
        value = row[rule.column]
        if value is not None and bool(rule.breaks(np.array([value], np.float64))[0]):
            return rule.reason, f"{rule.column} {value:.4g}"
    return None
