"""Why an object has the quality that it has, as lines for people."""

from collections.abc import Mapping
from typing import Any

from refloom.curation.annotate.faults import faults, unknown
from refloom.curation.annotate.settings import Quality

_MOST = 3


def lines(scores: Mapping[str, Any], kind: str, settings: Quality | None) -> list[str]:
    """What pulls an object's quality down, the worst first, and what it was made without; none without a quality.

    Args:
        scores: its row of `object_scores`, or the numbers of it; None or NaN for what is not known.
        kind: object, whole or face.
        settings: that its quality was made with; None where they are not known.
    """
    made = scores.get("quality")
    if settings is None or made is None or made != made:
        return []
    low = ", ".join(str(fault) for fault in faults(scores, kind, settings)[:_MOST])
    absent = ", ".join(unknown(scores, kind, settings))
    return [*([f"pulled down: {low}"] if low else []), *([f"made without: {absent}"] if absent else [])]
