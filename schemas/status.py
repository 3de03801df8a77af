"""What a dataset holds and how far it is: tables, stages, and what became of the items of each."""

from typing import Any

from refloom.schemas.dataset import STAGES, Dataset


def status(dataset: Dataset) -> dict[str, Any]:
    """What `refloom status --json` prints.

    Returns:
        `tables`: name to `rows`, `units` and `fingerprint`; `stages`: name to `state` (see `stage_state`) and `items`,
        kind to the counts of its items: input, kept, rejected and failed, the last two by reason.
    """
    stages = {
        stage: {
            "state": stage_state(dataset, stage),
            "items": {kind: counts.to_json() for kind, counts in sorted(dataset.counts(stage).items())},
        }
        for stage in STAGES
    }
    return {"tables": dataset.table_summary(), "stages": stages}


def stage_state(dataset: Dataset, stage: str) -> str:
    """`absent`, `partial` (some units), `stale` (made from inputs that have changed since) or `done`."""
    manifests = dataset.manifests(stage)
    if not manifests:
        return "absent"
    if any(dataset.is_stale(manifest) for manifest in manifests.values()):
        return "stale"
    return "done" if set(dataset.units()) <= manifests.keys() else "partial"
