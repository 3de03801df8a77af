"""What a run was trained on, kept in its folder: which datasets, which of their tags, and fingerprints.

RUN/sources.json   a list: from which step on, and of each source its address, tag, split, fingerprint of the samples
                   of that split, and of all samples
"""

from pathlib import Path
from typing import Any

from refloom.schemas import strict
from refloom.schemas.shapes import misfit

FILE = "sources.json"
_SOURCE = {"dataset": str, "tag": (str, None), "split": str, "fingerprint": str, "samples": str}
_SHAPE = [{"step": int, "sources": [_SOURCE]}]


def keep(run: Path, step: int, sources: list[dict[str, Any]]) -> None:
    """Write down what the run is trained on from a step on; what was said of later steps is of another branch.

    Args:
        run: folder of the run.
        step: steps that are done.
        sources: as `refloom.training.data.loader.Loader.sources` has them.
    """
    before = [one for one in read(run) if one["step"] < step or (one["step"] == step and step)]
    if not before or before[-1]["sources"] != sources:
        before.append({"step": step, "sources": sources})
    partial = run / f"{FILE}.partial"
    partial.write_text(strict.dumps(before, indent=1) + "\n", "utf-8")
    partial.rename(run / FILE)


def read(run: Path) -> list[dict[str, Any]]:
    """What the run says; nothing where there is no sound record."""
    try:
        found: list[dict[str, Any]] = strict.loads((run / FILE).read_bytes())
    except (OSError, ValueError):
        return []
    return found if misfit(found, _SHAPE) is None else []
