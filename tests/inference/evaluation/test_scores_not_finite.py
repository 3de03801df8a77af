"""A score that is no number is a failure that is named and tried again, never a mean that is none, or null unsaid."""

from typing import Any

import numpy as np
import pytest

from refloom.inference.evaluation import metrics
from refloom.inference.evaluation.scoring import Measurer
from refloom.schemas.errors import Refused


class Blind:
    """An encoder that makes nothing of anything."""

    def has(self, kind: str) -> bool:
        return True

    def pictures(self, kind: str, many: list[Any]) -> Any:
        return np.full((len(many), 4), np.nan)

    def text(self, prompt: str) -> Any:
        return np.ones(4)


class Case:
    prompt = "a cup"
    subjects = ()
    target = source = None


def test_a_score_that_is_not_finite_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "applies", lambda metric, case: True)
    measurer = Measurer(Blind(), [metrics.BY_NAME["clip_t"]])  # type: ignore[arg-type]
    with pytest.raises(Refused, match="its clip_t is nan, no number to average"):
        measurer.scores(Case(), np.zeros((8, 8, 3), np.uint8))  # type: ignore[arg-type]
