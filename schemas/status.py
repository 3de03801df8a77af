"""What a dataset holds and how far it is: tables, stages, and what became of the items of each."""

from typing import Any, TypedDict

from refloom.schemas.dataset import LABEL, STAGES, Dataset, Place, opened
from refloom.schemas.storeerrors import store_errors_stop


class TableStatus(TypedDict):
    """A table: its rows, the units that they lie in, and the fingerprint of all of them."""

    rows: int
    units: int
    fingerprint: str


class StageStatus(TypedDict):
    """A stage: its state, see `stage_state`, and item kind to its counts.

    Counts are `input`, `kept`, `rejected` and `failed`, the last two by reason.
    """

    state: str
    items: dict[str, dict[str, Any]]


class Status(TypedDict):
    """What a dataset holds, and how far each stage is; json as it is."""

    tables: dict[str, TableStatus]
    stages: dict[str, StageStatus]


@store_errors_stop()
def status(dataset: Place) -> Status:
    """What a dataset holds: what `refloom status --json` prints.

        refloom.status("DATASET")["tables"]["samples"]["rows"]

    Args:
        dataset: a folder, an fsspec URL, or a dataset; in any state.

    Raises:
        Refused: it is no dataset.
    """
    found = opened(dataset)
    stages: dict[str, StageStatus] = {
        stage: {
            "state": stage_state(found, stage),
            "items": {kind: counts.to_json() for kind, counts in sorted(found.counts(stage).items())},
        }
        for stage in STAGES
    }
    tables: dict[str, TableStatus] = {
        name: {"rows": entry["rows"], "units": entry["units"], "fingerprint": entry["fingerprint"]}
        for name, entry in found.table_summary().items()
    }
    return {"tables": tables, "stages": stages}


def stage_state(dataset: Dataset, stage: str) -> str:
    """`absent`, `partial` (some units), `stale` (made from inputs that have changed since) or `done`.

    Labels are done as soon as there are any: how many are enough is for people to say.
    """
    manifests = dataset.manifests(stage)
    if not manifests:
        return "absent"
    if stage == LABEL:
        return "done"
    if any(dataset.is_stale(manifest) for manifest in manifests.values()):
        return "stale"
    return "done" if set(dataset.units()) <= manifests.keys() else "partial"
